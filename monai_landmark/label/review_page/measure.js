// The schema's measures, with the arithmetic of monai_landmark.data.schema, and the left/right check.

// points: [x, y, ...] or null; spacing: [row_mm, col_mm] or null, when lengths are in pixels
export function measure(measures, points, spacing) {
  const [row, col] = spacing ?? [1, 1];
  const places = points.map((point) => point && [point[0] * col, point[1] * row]);
  const step = ([from, to]) => places[from] && places[to] && [places[to][0] - places[from][0], places[to][1] - places[from][1]];
  const found = {};
  for (const one of measures) {
    if (one.kind === "distance") {
      const along = step(one.ends);
      found[one.name] = along ? Math.hypot(...along) : NaN;
    } else if (one.kind === "ratio") {
      const under = found[one.over[1]];
      found[one.name] = under === 0 ? NaN : found[one.over[0]] / under;
    } else if (one.difference) {
      found[one.name] = found[one.difference[0]] - found[one.difference[1]];
    } else {
      found[one.name] = degrees(step(one.rays[0]), step(one.rays[1]));
    }
  }
  return found;
}

function degrees(first, second) {
  const long = (along) => along && (along[0] !== 0 || along[1] !== 0);
  if (!long(first) || !long(second)) return NaN;
  const cross = first[0] * second[1] - first[1] * second[0];
  return (Math.atan2(Math.abs(cross), first[0] * second[0] + first[1] * second[1]) * 180) / Math.PI;
}

// Pairs [left, right] whose left landmark stands on the film's left, where the patient's right is on a film hung as usual.
export function exchangedPairs(pairs, points) {
  return pairs.filter(([left, right]) => points[left] && points[right] && points[left][0] < points[right][0]);
}

export function unitOf(one, spacing) {
  if (one.kind === "angle") return "°";
  if (one.kind === "ratio") return "";
  return spacing ? "mm" : "px";
}
