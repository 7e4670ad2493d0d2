// The side panel and the bar: what is chosen, all landmarks, measurements, display.

import { SHAPES, byId, drawing, element, words } from "./dom.js";
import { measure, unitOf } from "./measure.js";

const SOURCES = {
  user: "Lengths in mm; the spacing was given when the server was started",
  calibrated: "Lengths in mm, calibrated",
  "magnification-corrected": "Lengths in mm, corrected for magnification",
  detector: "Lengths in mm at the detector: the anatomy is smaller",
  uncalibrated: "Lengths in mm whose meaning the film does not state",
  none: "The film states no pixel spacing: lengths in pixels",
};
const STATES = { "to do": "To do", labelled: "Labelled", reviewed: "Reviewed" };
const SIDES = { L: "L · left side", R: "R · right side" };

let act = null; // what the rows of the panel do when they are used

export function wire(actions) {
  act = actions;
}

export function showFilm(film) {
  byId("film_name").textContent = film.row.shown;
  const { side, view } = film.picture.facts;
  byId("film_side").dataset.known = String(Boolean(side || view));
  byId("film_side").textContent = [side ? SIDES[side] : "Side not stated", view].filter(Boolean).join(" · ");
  byId("spacing").textContent = SOURCES[film.picture.facts.spacing_source];
  byId("predict").hidden = !film.schema.trained;
  byId("list").replaceChildren(...film.schema.landmarks.map(listRow));
  byId("measures").replaceChildren(...film.schema.measures.map((one) => measureRow(film, one)));
  showPrediction(film);
  const [low, high] = film.picture.facts.range;
  const span = Math.max(high - low, 1);
  Object.assign(byId("level"), { min: low - span / 2, max: high + span / 2 });
  Object.assign(byId("width"), { min: span / 500, max: 3 * span });
}

export function showPrediction(film) {
  byId("promise").textContent = promise(film);
  showLegend(film);
}

function promise(film) {
  if (!film.prediction) return "";
  if (!film.promise) return "The model was not calibrated: no regions, and nothing says which landmarks to look at.";
  const { region_level: level, tolerance_mm: tolerance, risk } = film.promise;
  const share = (value) => `${Math.round(value * 1000) / 10} %`;
  return `A region holds its landmark in ${share(level)} of cases. At most ${share(risk)} of landmarks are more than ${tolerance} mm off and not marked.`;
}

function listRow(landmark, index) {
  const attributes = { role: "option", id: `landmark_${index}`, tabindex: "-1", title: landmark.description };
  const short = element("span", { class: "short", text: landmark.short });
  const flags = element("span", { class: "flags" });
  const row = element("li", attributes, element("span", { class: "kind" }), short, element("span", { class: "name", text: words(landmark.name) }), flags);
  row.addEventListener("click", () => act.choose(index));
  return row;
}

function measureRow(film, one) {
  const name = element("th", { scope: "row", text: words(one.name) });
  const value = element("td", { class: "numbers" });
  const row = element("tr", { tabindex: "0", "data-measure": one.name }, name, value);
  const ends = endsOf(film.schema.measures, one);
  const point = (shown) => () => act.measured(shown);
  for (const [event, shown] of [["mouseenter", ends], ["focus", ends], ["mouseleave", []], ["blur", []]]) row.addEventListener(event, point(shown));
  return row;
}

function endsOf(measures, one) {
  if (one.ends) return [one.ends];
  if (one.rays) return one.rays;
  return (one.over ?? one.difference).flatMap((name) => endsOf(measures, measures.find((other) => other.name === name)));
}

export function showPoints(film) {
  const { points, schema } = film;
  const open = points.changed ? "Not saved" : STATES[film.state];
  byId("film_state").textContent = film.saving ? "Saving …" : open;
  byId("film_state").dataset.state = points.changed ? "changed" : film.state;
  byId("save").disabled = Boolean(film.saving);
  byId("undo").disabled = !points.at;
  byId("redo").disabled = points.at === points.history.length;
  schema.landmarks.forEach((landmark, index) => showRow(film, index));
  const measured = measure(schema.measures, points.values, film.spacing);
  for (const one of schema.measures) showMeasure(film, one, measured[one.name]);
  for (const [key, on] of Object.entries(film.shows)) byId(`show_${key}`).setAttribute("aria-pressed", String(on));
  showSides(film);
  showChosen(film, false);
}

function showRow(film, index) {
  const row = byId(`landmark_${index}`);
  const kind = film.kind(index);
  const refer = film.prediction?.[index].refer;
  const exchanged = film.exchanged.some((pair) => pair.includes(index));
  row.dataset.kind = kind;
  row.querySelector(".kind").replaceChildren(drawing(kind));
  const flags = [];
  if (exchanged) flags.push(drawing("exchanged"));
  if (refer && kind !== "refer") flags.push(drawing("refer"));
  row.querySelector(".flags").replaceChildren(...flags);
  const says = [words(film.schema.landmarks[index].name), SHAPES[kind].says];
  if (refer && kind !== "refer") says.push("the model was in doubt");
  if (exchanged) says.push(SHAPES.exchanged.says);
  row.setAttribute("aria-label", says.join(", "));
}

function showMeasure(film, one, value) {
  const cell = byId("measures").querySelector(`[data-measure="${CSS.escape(one.name)}"] td`);
  const unit = unitOf(one, film.spacing);
  cell.dataset.value = Number.isFinite(value) ? String(value) : "";
  const text = value.toFixed(one.kind === "ratio" ? 3 : 1);
  cell.textContent = Number.isFinite(value) ? `${text}${unit === "°" ? "" : " "}${unit}` : "–";
}

export function showChosen(film, moved) {
  const { chosen, schema, points } = film;
  const landmark = schema.landmarks[chosen];
  const value = points.values[chosen];
  byId("chosen_name").textContent = words(landmark.name);
  byId("chosen_text").textContent = landmark.description;
  const place = byId("chosen_place");
  [place.dataset.x, place.dataset.y] = value ?? ["", ""];
  place.replaceChildren(...(value ? whereabouts(value, film.spacing).map((text) => element("span", { text })) : ["absent"]));
  byId("chosen_doubt").replaceChildren(...doubt(film));
  byId("absent").textContent = value ? "Mark absent" : "Mark present";
  const predicted = film.prediction?.[chosen].place;
  byId("take").disabled = !predicted || (value && value[0] === predicted[0] && value[1] === predicted[1]);
  byId("doubtful").disabled = !film.exchanged.length && !film.prediction?.some((one) => one.refer);
  for (const name of ["left", "up", "down", "right"]) byId(`nudge_${name}`).disabled = !value;
  for (const row of byId("list").children) {
    const on = row.id === `landmark_${chosen}`;
    row.setAttribute("aria-selected", String(on));
    row.tabIndex = on ? 0 : -1;
    if (on && moved) showInList(row);
  }
  if (moved) byId("said").textContent = `${words(landmark.name)}, ${SHAPES[film.kind(chosen)].says}${value ? `, ${whereabouts(value, film.spacing).join(", ")}` : ""}`;
}

// scrolls the list alone, never the page
function showInList(row) {
  const list = byId("list");
  const [top, bottom] = [row.offsetTop - list.offsetTop, row.offsetTop - list.offsetTop + row.offsetHeight];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  if (list.contains(document.activeElement)) row.focus({ preventScroll: true });
}

function whereabouts([x, y], spacing) {
  const pixels = `${x.toFixed(1)}, ${y.toFixed(1)} px`;
  return spacing ? [pixels, `${(x * spacing[1]).toFixed(2)}, ${(y * spacing[0]).toFixed(2)} mm`] : [pixels];
}

function doubt(film) {
  const found = film.prediction?.[film.chosen];
  if (!found) return [];
  if (!found.place) return [element("span", { class: "quiet", text: "The model did not find it." })];
  const parts = [];
  if (found.refer) parts.push(element("strong", { class: "refer" }, drawing("refer"), "Look at it"));
  if (found.error_mm !== null) parts.push(`expected error ${found.error_mm.toFixed(1)} mm`);
  else if (found.confidence !== null) parts.push(`confidence ${Math.round(found.confidence * 100)} %`);
  if (found.radius_mm !== null) parts.push(`region ${found.radius_mm.toFixed(1)} mm`);
  const value = film.points.values[film.chosen];
  if (value && (value[0] !== found.place[0] || value[1] !== found.place[1])) {
    const [row, col] = film.spacing ?? [1, 1];
    const away = Math.hypot((value[0] - found.place[0]) * col, (value[1] - found.place[1]) * row);
    parts.push(`${away.toFixed(1)} ${film.spacing ? "mm" : "px"} from the prediction`);
  }
  return parts.flatMap((part, at) => (at ? [" · ", part] : [part]));
}

function showSides(film) {
  const notice = byId("sides");
  const { exchanged, schema, points } = film;
  if (film.dragging) return; // the notice would shift the film under the pointer
  notice.hidden = !exchanged.length;
  const key = JSON.stringify(exchanged);
  if (!exchanged.length || notice.dataset.key === key) return;
  notice.dataset.key = key;
  const placed = schema.pairs.filter(([left, right]) => points.values[left] && points.values[right]);
  const all = exchanged.length === placed.length;
  const text = all
    ? "Every left landmark stands on the film's left, where the patient's right is on a film hung as usual. Either the film is mirrored or left and right are exchanged."
    : "Left and right look exchanged:";
  const name = ([left]) => words(schema.landmarks[left].name).replace(/^left |\bleft\b ?/, "").trim();
  const buttons = all && exchanged.length > 1
    ? [element("button", { type: "button", text: "Exchange all", onclick: () => act.exchange(exchanged) })]
    : exchanged.map((pair) => element("button", { type: "button", text: `Exchange ${name(pair)}`, onclick: () => act.exchange([pair]) }));
  notice.replaceChildren(element("p", {}, drawing("exchanged"), element("span", { text })), element("div", { class: "buttons" }, ...buttons));
}

function showLegend(film) {
  const kinds = Object.keys(SHAPES).filter((kind) => (film.calibrated || kind !== "refer") && (film.schema.pairs.length || kind !== "exchanged"));
  byId("legend").replaceChildren(...kinds.map((kind) => element("li", {}, drawing(kind), SHAPES[kind].says)));
}

export function showWindow(film) {
  const { level, windowWidth, inverted } = film.picture;
  for (const [name, value] of [["level", level], ["width", windowWidth]]) {
    byId(name).value = value;
    byId(`${name}_text`).textContent = Math.round(value);
    byId(name).setAttribute("aria-valuetext", String(Math.round(value)));
  }
  byId("invert").setAttribute("aria-pressed", String(inverted));
  byId("scale").textContent = `${Math.round(film.view.zoom * (window.devicePixelRatio || 1) * 100)} %`;
}
