// Where the film lies on the screen: zoom about a point, pan, and pixels of true shape.

const MOST = 64;

export class View {
  constructor(size, spacing) {
    [this.height, this.width] = size;
    const [row, col] = spacing ?? [1, 1];
    const least = Math.min(row, col);
    this.shape = [col / least, row / least]; // pixels that are not square are shown as they are
    this.screen = [1, 1];
    this.zoom = 1; // screen units for the shorter side of a pixel
    this.center = [(this.width - 1) / 2, (this.height - 1) / 2]; // film pixel in the middle of the screen
  }

  get scale() {
    return [this.zoom * this.shape[0], this.zoom * this.shape[1]];
  }

  get least() {
    const [width, height] = this.screen;
    return 0.96 * Math.min(width / (this.width * this.shape[0]), height / (this.height * this.shape[1]));
  }

  resize(width, height) {
    const whole = this.fitted;
    this.screen = [width, height];
    if (whole) this.fit();
  }

  fit() {
    this.fitted = true;
    this.zoom = this.least;
    this.center = [(this.width - 1) / 2, (this.height - 1) / 2];
  }

  toScreen(x, y) {
    const [across, down] = this.scale;
    return [(x - this.center[0]) * across + this.screen[0] / 2, (y - this.center[1]) * down + this.screen[1] / 2];
  }

  toFilm(x, y) {
    const [across, down] = this.scale;
    return [(x - this.screen[0] / 2) / across + this.center[0], (y - this.screen[1] / 2) / down + this.center[1]];
  }

  pan(across, down) {
    this.lookAt(this.center[0] - across / this.scale[0], this.center[1] - down / this.scale[1]);
  }

  // the film point under (x, y) of the screen stays there
  zoomAt(factor, x, y) {
    const [column, row] = this.toFilm(x, y);
    this.zoom = Math.min(Math.max(this.zoom * factor, this.least / 2), MOST);
    const [now_x, now_y] = this.toScreen(column, row);
    this.pan(x - now_x, y - now_y);
  }

  lookAt(x, y) {
    this.fitted = false;
    this.center = [Math.min(Math.max(x, 0), this.width - 1), Math.min(Math.max(y, 0), this.height - 1)];
  }

  sees(x, y, margin = 24) {
    const [across, down] = this.toScreen(x, y);
    return across > margin && down > margin && across < this.screen[0] - margin && down < this.screen[1] - margin;
  }

  clamp(x, y) {
    return [Math.min(Math.max(x, -0.5), this.width - 0.5), Math.min(Math.max(y, -0.5), this.height - 0.5)];
  }
}
