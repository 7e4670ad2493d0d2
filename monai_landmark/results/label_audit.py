"""Annotations that look wrong beside the others: gross errors, exchanged names, sides or axes, an unlikely pixel size.

The shape of all annotated films (:class:`monai_landmark.transforms.LandmarkShape`) is fitted to each of them. What does
not fit is a question to whoever knows the film, not an error: a rare anatomy looks like a mistake, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.datalist import Datalist, landmarks_array
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.transforms.shape import LandmarkShape

__all__ = ["Suspicion", "audit_annotations", "audit_labels"]

FloatArray = NDArray[np.float64]
Kind = Literal["outlier", "left and right", "mirrored", "transposed", "turned", "copy", "spacing", "field of view"]

_MISFIT = 3.0  # of a film: times the usual distance from the shape
_BETTER = 3.0  # times better an explanation must fit
_OUTLIER = 6.0  # of a landmark: times its usual distance
_TURNED = math.radians(45)
_SIZE_RATIO = 1.5  # children beside adults stay below
_FIELD_MM = (20.0, 600.0)
_WHAT: dict[Kind, str] = {
    "transposed": "x and y may be exchanged",
    "left and right": "left and right may be exchanged",
    "mirrored": "the film may be mirrored, or left and right exchanged",
}


@dataclass(frozen=True)
class Suspicion:
    """Something to look at.

    Attributes:
        film: its id.
        kind: ``outlier``, ``left and right``, ``mirrored``, ``transposed``, ``turned``, ``copy`` (the same picture,
            other landmarks), ``spacing`` or ``field of view``.
        reason: what is strange, in a sentence.
    """

    film: str
    kind: Kind
    reason: str


def audit_labels(datalist: Datalist) -> list[Suspicion]:
    """Look at all annotated films of a datalist.

    Args:
        datalist: with its schema and the pictures that occur twice.

    Returns:
        As :func:`audit_annotations`.

    Raises:
        AnnotationError: the datalist's schema is broken.
    """
    schema = None if datalist.schema is None else LandmarkSchema.load(datalist.schema)
    items = [item for _, item in datalist.items()]
    same = [tuple(pair["films"]) for pair in datalist.duplicates if pair["identical"]]
    return audit_annotations(items, schema, same)


def audit_annotations(
    items: Sequence[Mapping[str, Any]],
    schema: LandmarkSchema | None,
    same_pictures: Iterable[tuple[str, str]] = (),
) -> list[Suspicion]:
    """Look at annotated films.

    Args:
        items: of a datalist; films without landmarks are held against the field of view alone.
        schema: their landmarks; where it names no pairs, exchanged sides look like a mirrored film.
        same_pictures: ids of two films that are the same pixel for pixel.

    Returns:
        What is strange, in the order of the films; then pictures that occur twice with other landmarks.
    """
    films = {item["id"]: item for item in items}
    points = {film: _in_mm(item) for film, item in films.items() if "landmarks" in item}
    with_mm = {film: p for film, p in points.items() if films[film].get("spacing") is not None}
    group = with_mm if len(with_mm) > len(points) / 2 else points  # shapes in mm and in px are not of one size
    shape = _robust_shape(list(group.values()))
    sizes = {} if shape is None else {film: _size(shape, found) for film, found in group.items()}
    found: list[Suspicion] = []
    for film, item in films.items():
        found += _field_of_view(film, item)
        if shape is None or film not in points:
            continue
        strange = _strange_shape(film, points[film], shape, schema)
        found += strange
        if film in with_mm and not any(entry.kind in ("transposed", "left and right") for entry in strange):
            found += _strange_size(film, sizes, item["spacing"])
    for first, second in same_pictures:
        if first in points and second in points:
            found += _strange_copy(films[first], films[second], _names(schema, len(points[first])))
    return found


def _in_mm(item: Mapping[str, Any]) -> FloatArray:
    """``(K, 2)`` landmarks (x, y), in pixels where the film has no spacing."""
    row_mm, col_mm = item.get("spacing") or (1.0, 1.0)
    points: FloatArray = landmarks_array(item) * np.array([col_mm, row_mm])
    return points


def _robust_shape(films: list[FloatArray]) -> LandmarkShape | None:
    """Of the four fifths that fit best, for wrong ones would be part of the measure."""
    shape = LandmarkShape.fit(films)
    if shape is None:
        return None
    misfits = [misfit if (misfit := _misfit(shape, film)) is not None else math.inf for film in films]
    best = np.argsort(misfits)[: max(3, math.ceil(0.8 * len(films)))]
    return LandmarkShape.fit([films[index] for index in best]) or shape


def _distances(shape: LandmarkShape, points: FloatArray) -> FloatArray | None:
    """``(K,)`` distance of each landmark from the fitted shape, in its usual distances."""
    expected = shape.expected(points)
    return None if expected is None else np.hypot(*(points - expected[0]).T) / expected[1]


def _misfit(shape: LandmarkShape, points: FloatArray) -> float | None:
    distances = _distances(shape, points)
    return None if distances is None else float(np.nanmedian(distances))


def _pose(shape: LandmarkShape, points: FloatArray) -> complex | None:
    """Scale and rotation of the fitted shape, as a complex number."""
    expected = shape.expected(points)
    if expected is None:
        return None
    placed, mean = (p @ np.array([1, 1j]) for p in (expected[0] - expected[0].mean(axis=0), shape.mean))
    return complex((np.conj(mean) * placed).sum() / (np.abs(mean) ** 2).sum())


def _size(shape: LandmarkShape, points: FloatArray) -> float:
    pose = _pose(shape, points)
    return math.nan if pose is None else abs(pose)


def _upright(shape: LandmarkShape, points: FloatArray) -> bool:
    pose = _pose(shape, points)
    return pose is not None and abs(math.atan2(pose.imag, pose.real)) < _TURNED


def _strange_shape(
    film: str, points: FloatArray, shape: LandmarkShape, schema: LandmarkSchema | None
) -> list[Suspicion]:
    distances, misfit = _distances(shape, points), _misfit(shape, points)
    if distances is None or misfit is None:
        return []
    others: dict[Kind, FloatArray] = {"transposed": points[:, ::-1]}
    if schema is not None and schema.pairs:
        others["left and right"] = points[schema.flip_permutation()]
    else:
        others["mirrored"] = points * [-1, 1]
    fits = {kind: _misfit(shape, other) or math.inf for kind, other in others.items() if _upright(shape, other)}
    kind = min(fits, key=lambda name: fits[name], default=None)
    turned = misfit <= _MISFIT and not _upright(shape, points)
    if kind is not None and misfit > _MISFIT and fits[kind] * _BETTER < misfit:
        return [Suspicion(film, kind, f"{_WHAT[kind]}: it then fits the others {misfit / fits[kind]:.1f} times better")]
    if kind is not None and turned and fits[kind] <= _MISFIT:
        return [Suspicion(film, kind, f"{_WHAT[kind]}: it fits the others then, or turned by 45 degrees or more")]
    if turned:
        return [Suspicion(film, "turned", "the landmarks fit the others when the film is turned by 45 degrees or more")]
    names = _names(schema, len(points))
    far = "{} lies {:.1f} times its usual distance from where the others put it"
    return [
        Suspicion(film, "outlier", far.format(names[k], distances[k])) for k in np.flatnonzero(distances > _OUTLIER)
    ]


def _names(schema: LandmarkSchema | None, count: int) -> tuple[str, ...]:
    return schema.landmarks if schema is not None else tuple(f"landmark {n + 1}" for n in range(count))


def _strange_copy(first: Mapping[str, Any], second: Mapping[str, Any], names: Sequence[str]) -> list[Suspicion]:
    apart = np.hypot(*(landmarks_array(first) - landmarks_array(second)).T)
    if np.isnan(apart).all() or not np.nanmax(apart):
        return []
    far = int(np.nanargmax(apart))
    text = f"the same picture as {first['id']}, where {names[far]} is {apart[far]:.0f} px away"
    return [Suspicion(second["id"], "copy", text)]


def _strange_size(film: str, sizes: Mapping[str, float], spacing: Sequence[float]) -> list[Suspicion]:
    typical = float(np.nanmedian(list(sizes.values())))
    ratio = sizes.get(film, math.nan) / typical
    if not math.isfinite(ratio) or 1 / _SIZE_RATIO < ratio < _SIZE_RATIO:
        return []
    text = (
        f"at {spacing[0]:.4g} x {spacing[1]:.4g} mm the landmarks are {ratio:.2f} times as far apart as on other films"
    )
    return [Suspicion(film, "spacing", text)]


def _field_of_view(film: str, item: Mapping[str, Any]) -> list[Suspicion]:
    if item.get("spacing") is None or item.get("size") is None:
        return []
    sides = [pixels * mm for pixels, mm in zip(item["size"], item["spacing"], strict=True)]
    if all(_FIELD_MM[0] <= side <= _FIELD_MM[1] for side in sides):
        return []
    text = (
        f"the film would be {sides[0]:.0f} x {sides[1]:.0f} mm; films are {_FIELD_MM[0]:.0f} to {_FIELD_MM[1]:.0f} mm"
    )
    return [Suspicion(film, "field of view", text)]
