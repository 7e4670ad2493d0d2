// The server, as any client of MONAI Label asks it, and what the page asks for beyond that.

let token = ""; // in memory only: a reload asks for it again
let signIn = null; // shows the dialog; resolves when the user has signed in

export function onSignIn(ask) {
  signIn = ask;
}

async function ask(method, target, options = {}) {
  for (;;) {
    const headers = { ...options.headers };
    if (token) headers.Authorization = `Bearer ${token}`;
    let answer;
    try {
      answer = await fetch(target, { method, headers, body: options.body, cache: "no-store" });
    } catch {
      throw new Error("The server cannot be reached. Nothing was lost here; try again.");
    }
    if (answer.ok) return answer;
    if (answer.status !== 401 || !signIn) throw new Error(await sentence(answer));
    await signIn();
  }
}

async function sentence(answer) {
  let detail = "";
  try {
    detail = (await answer.json()).detail;
  } catch {
    // not JSON: the status says what there is to say
  }
  const text = typeof detail === "string" && detail ? detail : `the server answered ${answer.status}`;
  return text[0].toUpperCase() + text.slice(1) + ".";
}

const film = (id) => encodeURIComponent(id);
const json = async (method, target, options) => (await ask(method, target, options)).json();

export async function requestToken(user, password) {
  const body = new URLSearchParams({ username: user, password });
  const answer = await fetch("../auth/token", { method: "POST", body, cache: "no-store" });
  if (!answer.ok) throw new Error("The server did not accept this name and password.");
  token = (await answer.json()).access_token;
}

export const loadSchema = () => json("GET", "api/schema");
export const loadFilms = async () => (await json("GET", "api/films")).films;
export const loadPoints = async (id) => (await json("GET", `api/points?image=${film(id)}`)).points;

export async function loadPixels(id) {
  const answer = await ask("GET", `api/pixels?image=${film(id)}`);
  return { facts: JSON.parse(answer.headers.get("Film-Facts")), content: await answer.arrayBuffer() };
}

export async function predict(model, id) {
  const body = new FormData();
  body.append("params", "{}");
  return (await json("POST", `../infer/${model}?image=${film(id)}&output=json`, { body })).result;
}

// points: landmark name -> [x, y, visibility]; absent ones are left out
export async function saveLabel(id, points, info) {
  const landmarks = Object.fromEntries(Object.entries(points).map(([name, [x, y]]) => [name, [x, y]]));
  const visibility = Object.fromEntries(Object.entries(points).map(([name, [, , seen]]) => [name, seen]));
  const label = JSON.stringify({ films: [{ film: id, landmarks, visibility }] });
  const body = new FormData();
  body.append("params", JSON.stringify(info));
  body.append("label", new Blob([label], { type: "application/json" }), "label.json");
  return json("PUT", `../datastore/label?image=${film(id)}&tag=final`, { body });
}

export async function scoreAll() {
  const headers = { "Content-Type": "application/json" };
  await ask("POST", "../scoring/expected_error", { headers, body: "{}" });
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const task = await json("GET", "../scoring/");
    if (task.status === "DONE") return;
    if (task.status !== "RUNNING" && task.status !== "SUBMITTED") throw new Error("The films could not be predicted; the server's log says where.");
  }
}
