// Mouse, pen and fingers on the film: move a point, pan, zoom, window.

const NEAR = { mouse: 14, pen: 18, touch: 26 };
const STILL = 4; // a pointer that moved less than this was not meant to drag

// film(): what is open; act: what may be done with it
export function listen(canvas, film, act) {
  const pointers = new Map();
  let gesture = null;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  const nearest = ([x, y], reach) => {
    let found = -1;
    film().points.values.forEach((value, index) => {
      if (!value) return;
      const [across, down] = film().view.toScreen(value[0], value[1]);
      const away = Math.hypot(across - x, down - y) - (index === film().chosen ? 4 : 0);
      if (away < reach) [found, reach] = [index, away];
    });
    return found;
  };

  const begin = (event) => {
    const at = place(event);
    if (event.button === 2) return { kind: "window", at };
    const index = event.button === 0 ? nearest(at, NEAR[event.pointerType] ?? NEAR.mouse) : -1;
    if (index < 0) return { kind: "pan", at, from: at, still: true };
    act.choose(index, false);
    const [x, y] = film().points.values[index];
    const [across, down] = film().view.toScreen(x, y);
    return { kind: "point", at, from: at, still: true, index, off: [across - at[0], down - at[1]], first: true };
  };

  const end = (dropped) => {
    if (!film()) gesture = null; // it was closed meanwhile
    if (gesture?.kind === "point") act.dragged(dropped);
    if (!dropped && gesture?.kind === "pan" && gesture.still) act.click(...film().view.toFilm(...gesture.from));
    gesture = null;
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (!film()) return;
    canvas.focus({ preventScroll: true });
    event.preventDefault();
    pointers.set(event.pointerId, place(event));
    canvas.setPointerCapture(event.pointerId);
    if (pointers.size === 1) gesture = begin(event);
    else if (pointers.size === 2) {
      end(true);
      gesture = { kind: "pinch", fingers: [...pointers.values()].map((finger) => [...finger]) };
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!film() || !pointers.has(event.pointerId) || !gesture) return;
    const at = place(event);
    pointers.set(event.pointerId, at);
    if (gesture.kind === "pinch") return pinch();
    const moved = [at[0] - gesture.at[0], at[1] - gesture.at[1]];
    if (gesture.still && Math.hypot(at[0] - gesture.from[0], at[1] - gesture.from[1]) < STILL) return;
    gesture.still = false;
    gesture.at = at;
    if (gesture.kind === "pan") act.pan(...moved);
    else if (gesture.kind === "window") act.window(...moved);
    else {
      const to = film().view.toFilm(at[0] + gesture.off[0], at[1] + gesture.off[1]);
      act.drag(gesture.index, ...to, !gesture.first);
      gesture.first = false;
    }
  });

  const pinch = () => {
    const now = [...pointers.values()];
    const [a, b] = gesture.fingers;
    const apart = (one, other) => Math.max(Math.hypot(one[0] - other[0], one[1] - other[1]), 1);
    const middle = (one, other) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
    const [before, after] = [middle(a, b), middle(now[0], now[1])];
    act.pan(after[0] - before[0], after[1] - before[1]);
    act.zoom(apart(now[0], now[1]) / apart(a, b), ...after);
    gesture.fingers = now.map((finger) => [...finger]);
  };

  const lift = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (pointers.size === 0) end(event.type === "pointercancel");
    else gesture = { kind: "pan", at: [...pointers.values()][0], from: [0, 0], still: false };
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  // else a flick of the film counts as a fling of the page, and the next tap anywhere only stops that
  canvas.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!film()) return;
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 30 : event.deltaMode === 2 ? 300 : 1;
      act.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), ...place(event));
    },
    { passive: false },
  );
}
