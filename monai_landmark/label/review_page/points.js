// The landmarks of one film, and every change of them that can be undone.

const same = (a, b) => (a === null || b === null ? a === b : a[0] === b[0] && a[1] === b[1] && a[2] === b[2]);

export class Points {
  // values: [x, y, visibility] or null for each landmark; origin: where they come from, "predicted" or "label"
  constructor(values, origin) {
    this.values = values.map((value) => value && [...value]);
    this.base = this.values.map((value) => value && [...value]);
    this.origin = origin;
    this.history = [];
    this.at = 0; // how many changes are in force
    this.savedAt = 0;
  }

  get changed() {
    return this.at !== this.savedAt;
  }

  get corrected() {
    return this.values.filter((value, index) => !same(value, this.base[index])).length;
  }

  moved(index) {
    return !same(this.values[index], this.base[index]);
  }

  // changes: [index, value] pairs that belong together; merge: part of the change before, as while a key is held down
  change(changes, merge = false) {
    const news = changes.filter(([index, value]) => !same(this.values[index], value));
    if (!news.length) return;
    const entry = news.map(([index, value]) => ({ index, before: this.values[index], after: value }));
    const last = this.history[this.at - 1];
    const alike = last && last.length === entry.length && last.every((one, at) => one.index === entry[at].index);
    if (this.savedAt > this.at) this.savedAt = -1; // the saved state cannot be reached any more
    this.history.length = this.at;
    if (merge && alike && this.at !== this.savedAt) {
      last.forEach((one, at) => (one.after = entry[at].after));
    } else {
      this.history.push(entry);
      this.at += 1;
    }
    for (const { index, after } of entry) this.values[index] = after;
  }

  // the landmark that was changed back, or -1
  undo() {
    if (!this.at) return -1;
    const entry = this.history[--this.at];
    for (const { index, before } of entry) this.values[index] = before;
    return entry[0].index;
  }

  redo() {
    if (this.at === this.history.length) return -1;
    const entry = this.history[this.at++];
    for (const { index, after } of entry) this.values[index] = after;
    return entry[0].index;
  }

  markSaved() {
    this.savedAt = this.at;
    this.base = this.values.map((value) => value && [...value]);
    this.origin = "label";
  }
}
