// Elements by id, new elements, and what is said to the user. Text only ever goes through textContent.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Shapes about (0, 0), the same on the canvas and in lists: a state is told by its shape as well as by its color.
export const SHAPES = {
  predicted: { path: "M-8 0H-3M3 0H8M0 -8V-3M0 3V8", color: "#56b4e9", says: "predicted" },
  refer: { path: "M0 -9L8.5 6H-8.5Z", color: "#e69f00", says: "predicted, look at it" },
  label: { path: "M0 -8.5L8.5 0L0 8.5L-8.5 0Z", color: "#2fc596", says: "saved label" },
  moved: { path: "M-6.5 -6.5H6.5V6.5H-6.5Z", color: "#f0e442", says: "placed or moved now" },
  absent: { path: "M-6 0H6", color: "#9aa4ad", says: "absent" },
  exchanged: { path: "M-8 -3H6M3 -6L7 -3L3 0M8 4H-6M-3 1L-7 4L-3 7", color: "#ff8a4c", says: "left and right look exchanged" },
};

const ICONS = {
  undo: "M-3 -7L-7 -3L-3 1M-7 -3H2A4.5 4.5 0 0 1 2 6H-3",
  redo: "M3 -7L7 -3L3 1M7 -3H-2A4.5 4.5 0 0 0 -2 6H3",
  zoom_in: "M-6 0H6M0 -6V6",
  zoom_out: "M-6 0H6",
  zoom_fit: "M-7 -3V-7H-3M3 -7H7V-3M7 3V7H3M-3 7H-7V3",
  previous: "M3 -7L-4 0L3 7",
  next: "M-3 -7L4 0L-3 7",
  nudge_left: "M3 -6L-4 0L3 6",
  nudge_right: "M-3 -6L4 0L-3 6",
  nudge_up: "M-6 3L0 -4L6 3",
  nudge_down: "M-6 -3L0 4L6 -3",
  reviewed: "M-6 0L-2 5L7 -6",
  labelled: SHAPES.label.path,
  "to do": "M7 0A7 7 0 1 1 -7 0A7 7 0 1 1 7 0Z",
};

export function drawing(name) {
  const shape = SHAPES[name];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-11 -11 22 22");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "drawing");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", shape ? shape.path : ICONS[name]);
  path.setAttribute("stroke", shape ? shape.color : "currentColor");
  svg.append(path);
  return svg;
}

export function addIcons() {
  for (const name of Object.keys(ICONS)) byId(name)?.append(drawing(name));
}

export function say(text) {
  byId("said").textContent = text;
}

export function complain(text) {
  byId("problem_text").textContent = text;
  byId("problem").hidden = !text;
}

export const words = (name) => name.replaceAll("_", " ");
