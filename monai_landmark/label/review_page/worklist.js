// The films, the most doubtful first.

import { loadFilms, scoreAll } from "./api.js";
import { byId, complain, drawing, element, say } from "./dom.js";

const AT_ONCE = 200;
const STATES = { "to do": "To do", labelled: "Labelled", reviewed: "Reviewed" };
let rows = [];
let most = AT_ONCE;

export const filmRows = () => rows;

export async function refreshFilms() {
  rows = await loadFilms();
  showFilms();
}

function wanted() {
  const filter = document.querySelector("input[name=filter]:checked").value;
  return rows.filter(({ state }) => filter === "all" || (filter === "to do") === (state === "to do"));
}

export function showFilms() {
  const listed = wanted();
  byId("films_list").replaceChildren(...listed.slice(0, most).map(filmRow));
  byId("films_more").hidden = listed.length <= most;
  const done = rows.filter(({ state }) => state !== "to do").length;
  byId("films_count").textContent = `${done} of ${rows.length} done`;
  byId("films_none").hidden = listed.length > 0;
  byId("films_none").textContent = rows.length ? "No film in this list." : "The folder holds no films.";
}

function filmRow({ shown, state, score, outdated }) {
  const doubt = element("span", { class: "film_doubt" });
  if (score?.referred) doubt.append(drawing("refer"), element("span", { class: "refer", text: `${score.referred} to look at` }));
  const link = element(
    "a",
    { href: `#${shown}`, class: "film_link", "data-state": state },
    element("span", { class: "film_state" }, drawing(state), element("span", { text: STATES[state] })),
    element("span", { class: "film_name", text: shown }),
    doubt,
    element("span", { class: "film_error numbers" }, ...errorOf(score, outdated)),
  );
  return element("li", {}, link);
}

function errorOf(score, outdated) {
  if (!score) return [element("span", { class: "quiet", text: "not predicted yet" })];
  const old = outdated ? " (earlier model)" : "";
  if (score.unit !== "mm") return [element("span", { text: `least confidence ${Math.round((1 - score.highest) * 100)} %${old}` })];
  const bar = element("span", { class: "meter", "aria-hidden": "true" }, element("span"));
  bar.firstChild.style.width = `${Math.min(score.highest / 10, 1) * 100}%`;
  return [element("span", { text: `up to ${score.highest.toFixed(1)} mm, mean ${score.mean.toFixed(1)}${old}` }), bar];
}

export function startWorklist(trained) {
  byId("score").hidden = !trained;
  byId("score").addEventListener("click", predictAll);
  byId("filter").addEventListener("change", () => {
    most = AT_ONCE;
    showFilms();
  });
  byId("films_more").addEventListener("click", () => {
    most += AT_ONCE;
    showFilms();
  });
  byId("films_list").addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const links = [...byId("films_list").querySelectorAll("a")];
    links[links.indexOf(document.activeElement) + by]?.focus();
    event.preventDefault();
  });
}

async function predictAll() {
  byId("score").disabled = true;
  byId("score").textContent = "Predicting …";
  say("Predicting all films without a label.");
  try {
    await scoreAll();
    await refreshFilms();
    say("All films without a label are predicted.");
  } catch (error) {
    complain(error.message);
  } finally {
    byId("score").disabled = false;
    byId("score").textContent = "Predict all films without a label";
  }
}
