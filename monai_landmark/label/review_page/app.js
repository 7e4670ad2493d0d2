// The page: which view is open, how one leaves it, and which button does what.

import { loadSchema, onSignIn, requestToken } from "./api.js";
import { addIcons, byId, complain, element } from "./dom.js";
import * as film from "./film.js";
import { KEYS, listenToKeys } from "./keys.js";
import { wire } from "./panel.js";
import { listen } from "./pointer.js";
import { filmRows, refreshFilms, showFilms, startWorklist } from "./worklist.js";

const canvas = byId("canvas");
let schema = null;
let here = null; // the address that is shown

const unsaved = () => Boolean(film.current()?.points.changed);

// ---- which view ---------------------------------------------------------------------------------------------------
async function show() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (wanted === here) return;
  if (unsaved()) {
    history.pushState(null, "", `#${here}`); // stay where the changes are, and ask
    if (!(await mayLeave())) return;
    history.replaceState(null, "", wanted ? `#${wanted}` : location.pathname);
  }
  const row = filmRows().find(({ shown }) => shown === wanted);
  const last = here;
  here = row ? wanted : "";
  if (wanted !== here) history.replaceState(null, "", location.pathname); // of another day, or no film at all
  complain("");
  byId("films").hidden = Boolean(row);
  byId("film").hidden = !row;
  document.title = row ? `Film ${row.shown}` : "Review films";
  if (!row) return showList(last);
  canvas.focus({ preventScroll: true });
  await film.openFilm(row, schema);
}

async function showList(last) {
  film.close();
  try {
    await refreshFilms();
  } catch (error) {
    complain(error.message);
  }
  showFilms();
  const links = [...document.querySelectorAll(".film_link")];
  (links.find((link) => link.hash === `#${last}`) ?? links[0])?.focus();
}

function mayLeave() {
  const dialog = byId("leave");
  return new Promise((resolve) => {
    const answer = (leaves) => {
      dialog.close();
      dialog.onclose = null;
      resolve(leaves);
    };
    byId("leave_save").onclick = async () => answer(await film.save());
    byId("leave_drop").onclick = () => {
      film.close();
      answer(true);
    };
    byId("leave_stay").onclick = () => answer(false);
    dialog.onclose = () => answer(false); // Escape
    dialog.showModal();
  });
}

function signIn() {
  const dialog = byId("sign_in");
  byId("sign_in_problem").textContent = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("sign_in_form").onsubmit = async (event) => {
      event.preventDefault();
      try {
        await requestToken(byId("user").value, byId("password").value);
        byId("password").value = "";
        dialog.close();
        resolve();
      } catch (error) {
        byId("sign_in_problem").textContent = error.message;
      }
    };
  });
}

// ---- which button -------------------------------------------------------------------------------------------------
const actions = {
  ...film,
  window: (across, down) => film.dragWindow(across, down),
  predict: () => film.askModel(),
  back: () => (location.hash = ""),
  showKeys: () => {
    byId("keys").open = true;
    byId("keys").scrollIntoView({ block: "nearest" });
    byId("keys").firstElementChild.focus();
  },
  measured: (ends) => {
    if (!film.current()) return;
    film.current().measured = ends;
    film.redraw();
  },
};

const whenOpen = (act) => () => film.current() && act();

function connect() {
  const nudge = (x, y) => () => film.nudge(x * byId("nudge_step").value, y * byId("nudge_step").value);
  const buttons = {
    undo: film.undo, redo: film.redo, predict: actions.predict, save: film.save, zoom_in: () => film.zoom(1.4), zoom_out: () => film.zoom(1 / 1.4),
    zoom_fit: film.fit, previous: () => film.step(-1), next: () => film.step(1), nudge_left: nudge(-1, 0), nudge_right: nudge(1, 0), nudge_up: nudge(0, -1),
    nudge_down: nudge(0, 1), absent: film.toggleAbsent, take: film.takePredicted, doubtful: film.nextDoubtful, window_reset: film.resetWindow,
    invert: film.invert, show_names: () => film.toggle("names"), show_regions: () => film.toggle("regions"), show_lines: () => film.toggle("lines"),
  };
  for (const [id, act] of Object.entries(buttons)) byId(id).addEventListener("click", whenOpen(act));
  byId("back").addEventListener("click", actions.back);
  byId("problem_close").addEventListener("click", () => complain(""));
  for (const id of ["level", "width"]) byId(id).addEventListener("input", whenOpen(() => film.setWindow(Number(byId("level").value), Number(byId("width").value))));
  byId("keys_list").append(...KEYS.flatMap(([keys, text]) => [element("dt", { text: keys }), element("dd", { text })]));
  byId("list").addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && film.current()) film.step(by);
    else if (event.key === "Enter") canvas.focus();
    else return;
    event.preventDefault();
  });
  new ResizeObserver(() => film.current() && film.redraw()).observe(canvas);
}

async function start() {
  addIcons();
  wire(actions);
  connect();
  listen(canvas, film.current, actions);
  listenToKeys(canvas, film.current, actions);
  onSignIn(signIn);
  addEventListener("hashchange", show);
  addEventListener("beforeunload", (event) => unsaved() && event.preventDefault());
  try {
    schema = await loadSchema();
    byId("schema_title").textContent = schema.title;
    startWorklist(schema.trained);
    await refreshFilms();
    await show();
  } catch (error) {
    byId("films").hidden = false;
    complain(error.message);
  }
}

start();
