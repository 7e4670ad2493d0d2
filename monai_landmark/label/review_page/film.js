// One open film: what is known of it, and what may be done with it.

import { loadPixels, loadPoints, predict, saveLabel } from "./api.js";
import { byId, complain, say, words } from "./dom.js";
import { draw } from "./draw.js";
import { exchangedPairs } from "./measure.js";
import { showChosen, showFilm, showPoints, showPrediction, showWindow } from "./panel.js";
import { Picture } from "./picture.js";
import { Points } from "./points.js";
import { View } from "./view.js";

const canvas = byId("canvas");
const shows = { names: true, regions: true, lines: false }; // kept from film to film
let film = null;
let opening = 0; // number of the last film that was asked for; answers for those before it are dropped
let drawn = 0;

export const current = () => film;

export async function openFilm(row, schema) {
  close();
  const number = ++opening;
  wait("Reading the film …");
  try {
    const [{ facts, content }, label] = await Promise.all([loadPixels(row.id), row.state === "to do" ? null : loadPoints(row.id)]);
    if (number !== opening) return;
    start(row, schema, new Picture(facts, content), label);
    if (!label && schema.trained) await askModel();
  } catch (error) {
    if (number === opening) complain(error.message);
  } finally {
    if (number === opening) wait("");
  }
}

export function close() {
  opening += 1;
  film = null;
  complain("");
  const context = canvas.getContext("2d", { alpha: false });
  context.clearRect(0, 0, canvas.width, canvas.height);
}

function start(row, schema, picture, label) {
  const spacing = picture.facts.spacing_mm;
  const points = new Points(label ?? schema.landmarks.map(() => null), "label");
  film = { row, schema, picture, spacing, points, shows, view: new View(picture.facts.size, spacing), state: row.state };
  Object.assign(film, { prediction: null, promise: null, chosen: 0, exchanged: [], measured: [], dragging: false, kind });
  film.view.fit();
  film.view.fitted = true;
  showFilm(film);
  pointsChanged();
}

function kind(index) {
  if (!film.points.values[index]) return "absent";
  if (film.points.moved(index)) return "moved";
  if (film.points.origin === "label") return "label";
  return film.prediction?.[index].refer ? "refer" : "predicted";
}

function wait(text) {
  byId("wait").textContent = text;
  byId("wait").hidden = !text;
  byId("predict").disabled = Boolean(text);
  if (text) say(text);
}

export function redraw() {
  drawn ||= requestAnimationFrame(() => {
    drawn = 0;
    if (film) {
      draw(canvas, film);
      showWindow(film);
    }
  });
}

function pointsChanged() {
  film.exchanged = exchangedPairs(film.schema.pairs, film.points.values);
  showPoints(film);
  redraw();
}

function change(changes, merge) {
  film.points.change(changes, merge);
  pointsChanged();
}

function place(index, x, y, merge) {
  change([[index, [...film.view.clamp(x, y), film.points.values[index]?.[2] ?? 2]]], merge);
}

function reveal() {
  const point = film.points.values[film.chosen] ?? film.prediction?.[film.chosen].place;
  if (point && !film.view.sees(point[0], point[1])) film.view.lookAt(point[0], point[1]);
}

// ---- predict and save --------------------------------------------------------------------------------------------
export async function askModel() {
  const asked = film;
  wait("Predicting …");
  try {
    const result = await predict(asked.schema.model, asked.row.id);
    if (film !== asked) return;
    takeResult(result);
  } catch (error) {
    if (film === asked) complain(error.message);
  } finally {
    if (film === asked) wait("");
  }
}

function takeResult(result) {
  film.prediction = result.landmarks.map((one) => ({
    place: one.x_px === null ? null : [one.x_px, one.y_px],
    radius_mm: one.region_radius_mm,
    error_mm: one.expected_error_mm,
    confidence: one.confidence,
    refer: one.refer === true,
  }));
  film.promise = result.guarantee;
  film.calibrated = result.guarantee !== null;
  const untouched = film.points.values.every((value) => !value) && !film.points.at;
  if (untouched) film.points = new Points(film.prediction.map(({ place }) => place && [...place, 2]), "predicted");
  const doubtful = film.prediction.filter((one) => one.refer).length;
  const first = film.prediction.findIndex((one) => one.refer);
  if (untouched && first >= 0) film.chosen = first;
  showPrediction(film);
  pointsChanged();
  const looks = film.calibrated ? ` ${doubtful} to look at.` : "";
  say(untouched ? `Landmarks predicted.${looks}` : "Prediction shown; your points stay where they are.");
}

// whether it was saved
export async function save() {
  if (!film || film.saving) return false;
  const saved = film;
  const outside = saved.points.values.findIndex((value) => value && !within(value));
  if (outside >= 0) {
    choose(outside);
    complain(`${words(saved.schema.landmarks[outside].name)} lies outside the film: move it, or mark it absent.`);
    return false;
  }
  const named = saved.schema.landmarks.map(({ name }, index) => [name, saved.points.values[index]]);
  const info = { status: "reviewed", corrected: saved.points.corrected, predicted: saved.points.origin === "predicted" };
  saved.saving = true;
  showPoints(saved);
  try {
    const at = saved.points.at;
    await saveLabel(saved.row.id, Object.fromEntries(named.filter(([, value]) => value)), info);
    if (saved.points.at === at) saved.points.markSaved();
    saved.state = saved.row.state = "reviewed";
    complain("");
    say("Saved as reviewed.");
    return true;
  } catch (error) {
    complain(error.message);
    return false;
  } finally {
    saved.saving = false;
    if (film === saved) pointsChanged();
  }
}

const within = ([x, y]) => x >= -0.5 && y >= -0.5 && x <= film.view.width - 0.5 && y <= film.view.height - 0.5;

// ---- what pointers, keys and buttons do ---------------------------------------------------------------------------
export function choose(index, look = true) {
  film.chosen = index;
  if (look) reveal();
  showChosen(film, true);
  redraw();
}

// false at the end of the landmarks, where around is false
export function step(by, around = true) {
  const count = film.schema.landmarks.length;
  const next = film.chosen + by;
  if (!around && (next < 0 || next >= count)) return false;
  choose((next + count) % count);
}

export function nextDoubtful() {
  const count = film.schema.landmarks.length;
  for (let ahead = 1; ahead <= count; ahead++) {
    const index = (film.chosen + ahead) % count;
    if (film.prediction?.[index].refer || film.exchanged.some((pair) => pair.includes(index))) return choose(index);
  }
  say("No landmark to look at.");
}

export function nudge(x, y, merge = false) {
  const value = film.points.values[film.chosen];
  if (!value) return say("This landmark is absent. Enter places it.");
  place(film.chosen, value[0] + x, value[1] + y, merge);
  reveal();
}

export function drag(index, x, y, merge) {
  film.dragging = true;
  place(index, x, y, merge);
}

// dropped: a second finger came; the point goes back
export function dragged(dropped) {
  if (dropped && film.dragging) return undo();
  film.dragging = false;
  pointsChanged();
}

export function click(x, y) {
  if (film.points.values[film.chosen]) return;
  if (film.view.clamp(x, y).every((value, axis) => value === [x, y][axis])) place(film.chosen, x, y, false);
}

export function placeInView() {
  if (film.points.values[film.chosen]) return;
  const [x, y] = film.view.center;
  place(film.chosen, x, y, false);
}

export function toggleAbsent() {
  const value = film.points.values[film.chosen];
  if (value) return change([[film.chosen, null]], false);
  const before = film.points.base[film.chosen];
  if (before) return change([[film.chosen, [...before]]], false);
  if (film.prediction?.[film.chosen].place) return takePredicted();
  placeInView();
}

export function takePredicted() {
  const found = film.prediction?.[film.chosen].place;
  if (found) place(film.chosen, ...found, false);
}

export function exchange(pairs) {
  const { values } = film.points;
  change(pairs.flatMap(([left, right]) => [[left, values[right]], [right, values[left]]]), false);
}

function back(index, text) {
  film.dragging = false;
  if (index < 0) return say(`Nothing to ${text}.`);
  film.chosen = index;
  reveal();
  pointsChanged();
  say(`${words(film.schema.landmarks[index].name)}: ${text}.`);
}

export const undo = () => back(film.points.undo(), "undo");
export const redo = () => back(film.points.redo(), "redo");

function look(act) {
  act(film.view, film.picture);
  redraw();
}

const middle = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];
export const zoom = (factor, x, y) => look((view) => view.zoomAt(factor, ...(x === undefined ? middle() : [x, y])));
export const pan = (x, y) => look((view) => view.pan(x, y));
export const fit = () => look((view) => view.fit());
export const invert = () => look((_, picture) => picture.invert());
export const resetWindow = () => look((_, picture) => picture.resetWindow());
export const setWindow = (level, width) => look((_, picture) => picture.setWindow(level, width));

export function zoomToChosen() {
  const point = film.points.values[film.chosen] ?? film.prediction?.[film.chosen].place;
  if (!point) return;
  look((view) => {
    view.zoom = Math.max(view.zoom, 3);
    view.lookAt(point[0], point[1]);
  });
}

// across: contrast, down: brightness, as in other viewers; 1000 px are the film's whole range
export function dragWindow(across, down) {
  look((_, picture) => {
    const [low, high] = picture.facts.range;
    const unit = Math.max(high - low, 1) / 1000;
    picture.setWindow(picture.level + down * unit, picture.windowWidth - across * unit);
  });
}

export function toggle(what) {
  shows[what] = !shows[what];
  showPoints(film);
  redraw();
}
