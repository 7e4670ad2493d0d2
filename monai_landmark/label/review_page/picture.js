// The film's pixels: decoded once, windowed through a table into a canvas, drawn from there with any transform.

export class Picture {
  constructor(facts, content) {
    this.facts = facts;
    [this.height, this.width] = facts.size;
    const [rows, columns] = facts.sent;
    this.codes = facts.bytes === 1 ? new Uint8Array(content) : new Uint16Array(content);
    if (this.codes.length !== rows * columns) throw new Error("The film did not come whole; try again.");
    this.canvas = document.createElement("canvas");
    [this.canvas.height, this.canvas.width] = [rows, columns];
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.image = this.context.createImageData(columns, rows);
    this.shades = new Uint32Array(this.image.data.buffer);
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

  // Only where the window has changed; a pan or zoom draws the canvas as it is.
  refresh() {
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
    const { codes, shades, table } = this;
    for (let at = 0; at < codes.length; at++) shades[at] = table[codes[at]];
    this.context.putImageData(this.image, 0, 0);
  }

  // place: film pixels -> canvas pixels; a pixel's center is at whole numbers, so the film begins at -0.5
  draw(context, view) {
    const [x, y] = view.toScreen(-0.5, -0.5);
    const side = this.facts.reduction;
    const [rows, columns] = this.facts.sent;
    context.imageSmoothingEnabled = view.zoom < 8;
    context.imageSmoothingQuality = view.zoom < 1 ? "medium" : "low";
    context.drawImage(this.canvas, x, y, columns * side * view.scale[0], rows * side * view.scale[1]);
  }
}
