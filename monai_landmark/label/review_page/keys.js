// The keyboard alone is enough. Letters work wherever the focus is, except where one writes or chooses.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const KEYS = [
  ["Tab, Shift+Tab", "next, previous landmark; after the last one out of the film"],
  ["N, P", "next, previous landmark"],
  ["R", "next landmark to look at"],
  ["Arrows", "move the landmark by 1 pixel; Shift: 10, Alt: a tenth"],
  ["Enter", "place an absent landmark in the middle of the view"],
  ["X, Delete", "absent or present"],
  ["U", "take the predicted place"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["S", "save as reviewed"],
  ["+, -, 0, Z", "larger, smaller, whole film, at the landmark"],
  ["Ctrl+Arrows", "shift the view"],
  ["[, ]", "darker, brighter"],
  ["{, }", "less, more contrast"],
  ["I, W", "exchange black and white, first window"],
  ["T, C, L", "names, regions, lines"],
  ["B", "back to the films"],
  ["?", "this list"],
];

export function listenToKeys(canvas, film, act) {
  const letters = {
    n: () => act.step(1), p: () => act.step(-1), r: act.nextDoubtful, x: act.toggleAbsent, Delete: act.toggleAbsent,
    u: act.takePredicted, s: act.save, "+": () => act.zoom(1.25), "=": () => act.zoom(1.25), "-": () => act.zoom(0.8), 0: act.fit,
    z: act.zoomToChosen, "[": () => act.window(0, 20), "]": () => act.window(0, -20), "{": () => act.window(-20, 0),
    "}": () => act.window(20, 0), i: act.invert, w: act.resetWindow, t: () => act.toggle("names"),
    c: () => act.toggle("regions"), l: () => act.toggle("lines"), b: act.back, "?": act.showKeys,
  };

  const onCanvas = (event) => {
    if (event.key === "Tab" && !event.ctrlKey && !event.altKey) return act.step(event.shiftKey ? -1 : 1, false);
    if (event.key === "Enter") return act.placeInView();
    const [x, y] = ARROWS[event.key] ?? [];
    if (x === undefined) return false;
    if (event.ctrlKey) return act.pan(-80 * x, -80 * y);
    const size = event.shiftKey ? 10 : event.altKey ? 0.1 : 1;
    return act.nudge(x * size, y * size, event.repeat);
  };

  document.addEventListener("keydown", (event) => {
    if (!film() || document.querySelector("dialog[open]") || event.isComposing) return;
    const target = event.target;
    if (event.ctrlKey || event.metaKey) {
      const key = event.key.toLowerCase();
      const change = key === "y" || (key === "z" && event.shiftKey) ? act.redo : key === "z" ? act.undo : key === "s" ? act.save : null;
      if (change) {
        event.preventDefault();
        return change();
      }
    }
    if (target === canvas && onCanvas(event) !== false) return event.preventDefault();
    const writes = target.matches?.("select, textarea, input:not([type=range])");
    if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
    const change = letters[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (change) {
      event.preventDefault();
      change();
    }
  });
}
