// One picture of the screen: film, regions, lines, points, and a loupe while a point is moved.

import { SHAPES } from "./dom.js";
import { View } from "./view.js";

const PATHS = Object.fromEntries(Object.entries(SHAPES).map(([name, shape]) => [name, new Path2D(shape.path)]));
const LOUPE = 76; // radius

export function draw(canvas, film) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { alpha: false });
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  film.view.resize(canvas.clientWidth, canvas.clientHeight);
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  film.picture.draw(context, film.view);
  drawOver(context, film, film.view);
  if (film.dragging) drawLoupe(context, film, canvas.clientWidth);
}

function drawOver(context, film, view) {
  if (film.shows.lines) for (const ends of film.schema.lines) drawLine(context, film, view, ends, "#cfd8df", [6, 5]);
  for (const pair of film.exchanged) drawLine(context, film, view, pair, SHAPES.exchanged.color, [2, 4]);
  for (const ends of film.measured) drawLine(context, film, view, ends, "#ffffff", []);
  if (film.shows.regions) film.prediction?.forEach((_, index) => drawRegion(context, film, view, index));
  const order = film.points.values.map((_, index) => index).filter((index) => film.points.values[index] && index !== film.chosen);
  if (film.points.values[film.chosen]) order.push(film.chosen);
  for (const index of order) drawPoint(context, film, view, index);
  drawNames(context, film, view, order.reverse());
}

// dark below bright, so that a stroke is seen on bone and on air
function stroke(context, color, width, path) {
  for (const [shade, thickness] of [["rgb(0 0 0 / 65%)", width + 2], [color, width]]) {
    [context.strokeStyle, context.lineWidth] = [shade, thickness];
    path ? context.stroke(path) : context.stroke();
  }
}

function drawLine(context, film, view, [from, to], color, dashes) {
  const [start, end] = [film.points.values[from], film.points.values[to]];
  if (!start || !end) return;
  context.beginPath();
  context.moveTo(...view.toScreen(start[0], start[1]));
  context.lineTo(...view.toScreen(end[0], end[1]));
  context.setLineDash(dashes);
  stroke(context, color, 1.25);
  context.setLineDash([]);
}

// A circle in millimeters about the predicted place; an ellipse in pixels, where those are not square.
function drawRegion(context, film, view, index) {
  const { place, radius_mm: radius, refer } = film.prediction[index];
  if (!place || radius === null || !film.spacing) return;
  const chosen = index === film.chosen;
  const [x, y] = view.toScreen(...place);
  const [row, col] = film.spacing;
  context.beginPath();
  context.ellipse(x, y, (radius / col) * view.scale[0], (radius / row) * view.scale[1], 0, 0, 2 * Math.PI);
  const color = refer ? SHAPES.refer.color : SHAPES.predicted.color;
  if (chosen) {
    context.fillStyle = "rgb(255 255 255 / 7%)";
    context.fill();
  }
  context.setLineDash(refer ? [7, 3] : []);
  stroke(context, color, chosen ? 1.75 : 1);
  context.setLineDash([]);
  if (film.points.values[index] && film.points.moved(index)) drawGhost(context, x, y, color);
}

function drawGhost(context, x, y, color) {
  context.beginPath();
  for (const [across, down] of [[1, 1], [1, -1]]) {
    context.moveTo(x - 4 * across, y - 4 * down);
    context.lineTo(x + 4 * across, y + 4 * down);
  }
  stroke(context, color, 1.25);
}

function drawPoint(context, film, view, index) {
  const [column, row] = film.points.values[index];
  const [x, y] = view.toScreen(column, row);
  const kind = film.kind(index);
  const chosen = index === film.chosen;
  context.save();
  context.translate(x, y);
  if (chosen) drawCross(context);
  stroke(context, SHAPES[kind].color, chosen ? 2 : 1.5, PATHS[kind]);
  context.fillStyle = SHAPES[kind].color;
  context.fillRect(-1, -1, 2, 2);
  if (film.exchanged.some((pair) => pair.includes(index))) {
    context.translate(-20, 0);
    stroke(context, SHAPES.exchanged.color, 1.5, PATHS.exchanged);
    context.translate(20, 0);
  }
  context.restore();
}

function drawCross(context) {
  context.beginPath();
  for (const [x, y] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(13 * x, 13 * y);
    context.lineTo(24 * x, 24 * y);
  }
  stroke(context, "#ffffff", 1.5);
}

// Each name at the corner of its point where it hides the fewest points and names; the chosen one first.
function drawNames(context, film, view, order) {
  const places = order.map((index) => view.toScreen(film.points.values[index][0], film.points.values[index][1]));
  const taken = places.map(([x, y]) => [x - 8, y - 8, x + 8, y + 8]);
  const hides = (box) => taken.filter((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]).length;
  [context.textBaseline, context.lineJoin] = ["alphabetic", "round"];
  order.forEach((index, at) => {
    const chosen = index === film.chosen;
    if (!film.shows.names && !chosen) return;
    const { short } = film.schema.landmarks[index];
    context.font = `${chosen ? 700 : 500} ${chosen ? 14 : 12}px system-ui, sans-serif`;
    const [x, y] = places[at];
    const wide = context.measureText(short).width;
    const corners = [[x + 10, y - 9], [x + 10, y + 18], [x - 10 - wide, y - 9], [x - 10 - wide, y + 18]];
    const boxes = corners.map(([left, base]) => [left, base - 11, left + wide, base + 3]);
    const box = boxes.reduce((best, other) => (hides(other) < hides(best) ? other : best));
    taken.push(box);
    [context.strokeStyle, context.lineWidth] = ["rgb(0 0 0 / 80%)", 3.5];
    context.strokeText(short, box[0], box[3] - 3);
    context.fillStyle = chosen ? "#ffffff" : "#dfe6eb";
    context.fillText(short, box[0], box[3] - 3);
  });
}

// What the finger or the pointer hides, in the corner away from it.
function drawLoupe(context, film, width) {
  const value = film.points.values[film.chosen];
  if (!value) return;
  const [x] = film.view.toScreen(value[0], value[1]);
  const middle = [x < width / 2 ? width - LOUPE - 12 : LOUPE + 12, LOUPE + 12];
  const loupe = new View(film.picture.facts.size, film.spacing);
  loupe.screen = [2 * middle[0], 2 * middle[1]];
  loupe.zoom = Math.min(Math.max(2.5 * film.view.zoom, 2), 12);
  loupe.center = [value[0], value[1]];
  context.save();
  context.beginPath();
  context.arc(...middle, LOUPE, 0, 2 * Math.PI);
  context.save();
  context.clip();
  context.fillStyle = "#000";
  context.fillRect(0, 0, 2 * middle[0], 2 * middle[1]);
  film.picture.draw(context, loupe);
  if (film.shows.regions && film.prediction) drawRegion(context, film, loupe, film.chosen);
  context.translate(...middle);
  drawCross(context);
  context.fillStyle = SHAPES.moved.color;
  context.fillRect(-1, -1, 2, 2);
  context.restore();
  context.beginPath();
  context.arc(...middle, LOUPE, 0, 2 * Math.PI);
  stroke(context, "#ffffff", 1.5);
  context.restore();
}
