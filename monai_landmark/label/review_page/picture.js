// The film's pixels: decoded once, windowed through a table where they are seen, drawn with any transform.
// Halved copies of the film are kept, so that a film that is shown small is neither slow nor grainy.

const SMALLEST = 400; // a copy that is smaller than this helps no one
const AROUND = 0.25; // of the screen: windowed beyond it, so that a pan need not window at every step

export class Picture {
  constructor(facts, content) {
    this.facts = facts;
    [this.height, this.width] = facts.size;
    const [rows, columns] = facts.sent;
    const codes = facts.bytes === 1 ? new Uint8Array(content) : new Uint16Array(content);
    if (codes.length !== rows * columns) throw new Error("The film did not come whole; try again.");
    this.levels = [{ codes, rows, columns }];
    while (Math.min(this.levels.at(-1).rows, this.levels.at(-1).columns) > 2 * SMALLEST) this.levels.push(halved(this.levels.at(-1)));
    this.table = new Uint32Array(facts.bytes === 1 ? 256 : 65536);
    this.inverted = false;
    this.resetWindow();
  }

  resetWindow() {
    const [black, white] = this.facts.window;
    this.setWindow((black + white) / 2, white - black);
  }

  // level and width in the film's own intensities
  setWindow(level, width) {
    const [low, high] = this.facts.range;
    const span = Math.max(high - low, 1);
    this.level = Math.min(Math.max(level, low - span / 2), high + span / 2);
    this.windowWidth = Math.min(Math.max(width, span / 500), span * 3);
    this.stale = true;
  }

  invert() {
    this.inverted = !this.inverted;
    this.stale = true;
  }

  refreshTable() {
    if (!this.stale) return;
    this.stale = false;
    const { low, step } = this.facts;
    const black = this.level - this.windowWidth / 2;
    for (let code = 0; code < this.table.length; code++) {
      let share = (low + step * code - black) / this.windowWidth;
      share = share < 0 ? 0 : share > 1 ? 1 : share;
      const gray = Math.round(255 * (this.inverted ? 1 - share : share));
      this.table[code] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
    }
    for (const one of this.levels) one.fresh = null;
  }

  draw(context, view) {
    this.refreshTable();
    const dots = view.zoom * (window.devicePixelRatio || 1); // of the screen for a pixel of the film
    const number = Math.min(Math.max(Math.floor(Math.log2(1 / (dots * this.facts.reduction))), 0), this.levels.length - 1);
    const one = this.levels[number];
    const side = this.facts.reduction * 2 ** number;
    this.refresh(one, seen(one, view, side));
    // a pixel's center is at whole numbers, so the film begins at -0.5
    const [x, y] = view.toScreen(-0.5, -0.5);
    context.imageSmoothingEnabled = view.zoom < 8;
    context.imageSmoothingQuality = "low";
    const { left, top, right, bottom } = one.fresh;
    const [across, down] = [side * view.scale[0], side * view.scale[1]];
    const [wide, high] = [right - left, bottom - top];
    context.drawImage(one.canvas, left, top, wide, high, x + left * across, y + top * down, wide * across, high * down);
  }

  // windows what is seen of a copy, where that is not done yet
  refresh(one, need) {
    const { fresh } = one;
    if (fresh && need.left >= fresh.left && need.top >= fresh.top && need.right <= fresh.right && need.bottom <= fresh.bottom) return;
    if (!one.canvas) {
      one.canvas = document.createElement("canvas");
      [one.canvas.width, one.canvas.height] = [one.columns, one.rows];
      one.context = one.canvas.getContext("2d", { alpha: false });
      one.image = one.context.createImageData(one.columns, one.rows);
      one.shades = new Uint32Array(one.image.data.buffer);
    }
    const [wide, high] = [Math.ceil((need.right - need.left) * AROUND), Math.ceil((need.bottom - need.top) * AROUND)];
    const left = Math.max(need.left - wide, 0);
    const top = Math.max(need.top - high, 0);
    const right = Math.min(need.right + wide, one.columns);
    const bottom = Math.min(need.bottom + high, one.rows);
    const { codes, shades, columns } = one;
    const { table } = this;
    for (let row = top; row < bottom; row++) {
      for (let at = row * columns + left, end = row * columns + right; at < end; at++) shades[at] = table[codes[at]];
    }
    one.context.putImageData(one.image, 0, 0, left, top, right - left, bottom - top);
    one.fresh = { left, top, right, bottom };
  }
}

// the part of a copy that is on the screen, at least one pixel of it
function seen(one, view, side) {
  const [left, top] = view.toFilm(0, 0).map((value) => (value + 0.5) / side);
  const [right, bottom] = view.toFilm(...view.screen).map((value) => (value + 0.5) / side);
  const within = (value, most) => Math.min(Math.max(value, 0), most);
  return {
    left: within(Math.floor(left) - 1, one.columns - 1),
    top: within(Math.floor(top) - 1, one.rows - 1),
    right: within(Math.ceil(right) + 1, one.columns) || 1,
    bottom: within(Math.ceil(bottom) + 1, one.rows) || 1,
  };
}

// means of two by two pixels; a last row or column without a partner counts twice
function halved({ codes, rows, columns }) {
  const [height, width] = [Math.ceil(rows / 2), Math.ceil(columns / 2)];
  const half = new codes.constructor(height * width);
  for (let row = 0; row < height; row++) {
    const first = 2 * row * columns;
    const second = Math.min(2 * row + 1, rows - 1) * columns;
    for (let column = 0; column < width; column++) {
      const left = 2 * column;
      const right = Math.min(left + 1, columns - 1);
      half[row * width + column] = (codes[first + left] + codes[first + right] + codes[second + left] + codes[second + right] + 2) >> 2;
    }
  }
  return { codes: half, rows: height, columns: width };
}
