"""What the landmarks of a kind of film are called, in which order, and what is drawn and measured with them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from monai_landmark.errors import AnnotationError
from monai_landmark.files import write_text

__all__ = ["LandmarkSchema", "shipped_schemas"]

SCHEMA_FOLDER = Path(__file__).parent / "schemas"
LISTS = frozenset({"landmarks", "pairs"})
REQUIRED = ("name", "title", "landmarks")
_NamedTuples = Mapping[str, tuple[str, ...]]


def shipped_schemas() -> list[str]:
    """Names that :meth:`LandmarkSchema.load` knows without a path, sorted."""
    return sorted(path.stem for path in SCHEMA_FOLDER.glob("*.yaml"))


@dataclass(frozen=True)
class LandmarkSchema:
    """The landmarks of one kind of film.

    Args:
        name: short identifier, e.g. ``"isbi19"``.
        title: one line for people.
        landmarks: the K landmark names in the order of every ``(K, 2)`` array.
        pairs: (left, right) landmark names, the patient's sides; they change places when a film is mirrored.
        lines: line name -> (start, end) landmarks, to draw and to measure with.
        angles: angle name -> what spans it: three landmarks, the vertex in the middle; two lines (directed from start
            to end); or two angles that come earlier (first minus second, the only kind that can be negative).
        distances: distance name -> two landmarks.
        ratios: ratio name -> two distances, first over second.
        groups: group name -> landmarks, for tables and colors.
        descriptions: landmark name -> where it lies, for those that need saying.

    Raises:
        AnnotationError: names that repeat, refer to nothing, or a landmark that is in two pairs.
    """

    name: str
    title: str
    landmarks: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    lines: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    angles: _NamedTuples = field(default_factory=dict)
    distances: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    ratios: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    groups: _NamedTuples = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        _check(self)

    @property
    def count(self) -> int:
        """Number of landmarks, K."""
        return len(self.landmarks)

    def index(self, name: str) -> int:
        """Row of a landmark in ``(K, 2)`` arrays.

        Raises:
            AnnotationError: the schema has no such landmark.
        """
        if name not in self.landmarks:
            raise _error(self, "unknown landmark", "landmarks", name, f"one of {', '.join(self.landmarks)}")
        return self.landmarks.index(name)

    def flip_permutation(self) -> list[int]:
        """Where each landmark of a mirrored film is to be taken from: ``points[permutation]`` has its names right."""
        other = {a: b for left, right in self.pairs for a, b in ((left, right), (right, left))}
        return [self.landmarks.index(other.get(name, name)) for name in self.landmarks]

    def angle_rays(self, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """The two rays, each (from, to), that span an angle which is not a difference of others."""
        parts = self.angles[name]
        if len(parts) == 3:
            start, vertex, end = parts
            return (vertex, start), (vertex, end)
        return self.lines[parts[0]], self.lines[parts[1]]

    def measure(self, points: ArrayLike) -> dict[str, float]:
        """Every angle, distance and ratio of one film.

        Args:
            points: ``(K, 2)`` (x, y), in mm, NaN = not annotated. In pixels the distances are pixels, and angles are
                true only where pixels are square.

        Returns:
            Measure name -> degrees (angles, 0 to 180, differences signed), the unit of ``points`` (distances) or a
            plain number (ratios); NaN where a landmark is missing or the measure is not defined.
        """
        if np.shape(points) != (self.count, 2):
            raise _error(self, "points do not fit the schema", "points", np.shape(points), f"({self.count}, 2)")
        return {name: float(value) for name, value in self.measure_films(points).items()}

    def measure_films(self, points: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Every angle, distance and ratio of many films at once.

        Args:
            points: ``(..., K, 2)``, otherwise as in :meth:`measure`.

        Returns:
            Measure name -> ``(...)``, as in :meth:`measure`.
        """
        xy = np.asarray(points, dtype=np.float64)
        if xy.shape[-2:] != (self.count, 2):
            raise _error(self, "points do not fit the schema", "points", xy.shape, f"(..., {self.count}, 2)")
        step = partial(_step, {name: xy[..., index, :] for index, name in enumerate(self.landmarks)})
        measured: dict[str, NDArray[np.float64]] = {}
        for name, parts in self.angles.items():
            if parts[0] in self.angles:
                measured[name] = measured[parts[0]] - measured[parts[1]]
            else:
                measured[name] = _degrees(*map(step, self.angle_rays(name)))
        for name, ends in self.distances.items():
            along = step(ends)
            measured[name] = np.hypot(along[..., 0], along[..., 1])
        for name, (over, under) in self.ratios.items():
            measured[name] = measured[over] / np.where(measured[under] == 0, np.nan, measured[under])
        return measured

    @classmethod
    def load(cls, name: str | PathLike[str]) -> LandmarkSchema:
        """A schema by its shipped name (``"isbi19"``, also ``"ISBI-19"``) or by the path of a YAML file.

        Raises:
            AnnotationError: no such schema, or one that contradicts itself.
        """
        text = str(name)
        if Path(text).suffix.lower() in {".yaml", ".yml"}:
            return cls.from_yaml(text)
        key = re.sub(r"[-_ ]", "", text).lower()
        if key not in shipped_schemas():
            raise AnnotationError(
                "unknown landmark schema",
                value=text,
                expected=f"one of {', '.join(shipped_schemas())}, or a path that ends in .yaml",
                action="correct the name or give the path of your own schema",
            )
        return cls.from_yaml(SCHEMA_FOLDER / f"{key}.yaml")

    @classmethod
    def from_yaml(cls, path: str | PathLike[str]) -> LandmarkSchema:
        """Read a schema from YAML; keys are the fields of this class.

        Raises:
            AnnotationError: not readable, not of this form, or contradicting itself; names the file.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise AnnotationError("cannot read the landmark schema", file=path, value=str(error)) from error
        try:
            return cls(**_fields_of(content))
        except AnnotationError as error:
            raise AnnotationError(
                error.problem,
                file=path,
                field=error.field,
                value=error.value,
                expected=error.expected,
                action=error.action,
            ) from None

    def to_yaml(self, path: str | PathLike[str]) -> None:
        """Write the schema as YAML that :meth:`from_yaml` reads back to an equal schema."""
        content = {key: _plain(value) for key, value in asdict(self).items() if value}
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _step(points: Mapping[str, NDArray[np.float64]], ends: Sequence[str]) -> NDArray[np.float64]:
    """Vector from the first landmark to the second."""
    return points[ends[1]] - points[ends[0]]


def _degrees(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles of vectors ``(..., 2)``, 0 to 180 degrees; NaN when one has no length. atan2 keeps small ones exact."""
    cross = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    angle = np.degrees(np.arctan2(abs(cross), (first * second).sum(axis=-1)))
    return np.where(first.any(axis=-1) & second.any(axis=-1), angle, np.nan)


def _plain(value: Any) -> Any:
    """Tuples as lists and mappings as dicts, which is all that plain YAML knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _fields_of(content: Any) -> dict[str, Any]:
    """Constructor arguments from parsed YAML, lists turned into tuples."""
    known = {item.name for item in fields(LandmarkSchema)}
    if not isinstance(content, dict) or not set(REQUIRED) <= content.keys() or content.keys() - known:
        raise AnnotationError(
            "not a landmark schema",
            value=sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__,
            expected=f"keys {', '.join(REQUIRED)} and any of {', '.join(sorted(known - set(REQUIRED)))}",
            action="compare with a shipped schema",
        )
    arguments = {key: value for key, value in content.items() if value is not None}
    for key in arguments.keys() - {"name", "title"}:
        arguments[key] = _tuples(key, arguments[key])
    return arguments


def _tuples(key: str, value: Any) -> Any:
    """One collection of the schema with its lists as tuples; refuses a collection of the wrong kind."""
    if not isinstance(value, list if key in LISTS else dict):
        expected = "a list" if key in LISTS else "a mapping"
        raise AnnotationError("wrong kind of value", field=key, value=value, expected=expected)
    if isinstance(value, list):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}


def _error(schema: LandmarkSchema, problem: str, where: str, value: Any, expected: str) -> AnnotationError:
    """An error about one entry of a schema."""
    return AnnotationError(
        problem,
        field=f"schema {schema.name}: {where}",
        value=value,
        expected=expected,
        action="correct the schema or the name",
    )


def _check(schema: LandmarkSchema) -> None:
    """Refuse a schema whose parts do not fit together."""
    names = schema.landmarks
    if not all(isinstance(text, str) and text for text in (schema.name, schema.title)):
        raise _error(schema, "name and title must be text", "name", (schema.name, schema.title), "two texts")
    if not names or not all(isinstance(name, str) and name.strip() == name and name for name in names):
        raise _error(schema, "landmark names must be text", "landmarks", names, "non-empty names without outer blanks")
    _check_unique(schema, "landmarks", names)
    for where, entries, size in (
        ("pairs", dict(enumerate(schema.pairs)), 2),
        ("lines", schema.lines, 2),
        ("distances", schema.distances, 2),
        ("groups", schema.groups, None),
    ):
        for key, parts in entries.items():
            _check_parts(schema, f"{where} {key}", parts, names, size)
    _check_unique(schema, "pairs", [name for pair in schema.pairs for name in pair])
    for key, parts in schema.ratios.items():
        _check_parts(schema, f"ratios {key}", parts, tuple(schema.distances), 2)
    _check_angles(schema)
    _check_unique(schema, "angles, distances and ratios", [*schema.angles, *schema.distances, *schema.ratios])
    for key in schema.descriptions:
        _check_parts(schema, "descriptions", (key,), names, 1)


def _check_angles(schema: LandmarkSchema) -> None:
    """Three landmarks, two lines, or two angles that come earlier (so that a difference can always be worked out)."""
    earlier: list[str] = []
    for key, parts in schema.angles.items():
        if len(parts) == 3:
            _check_parts(schema, f"angles {key}", parts, schema.landmarks, 3)
        else:
            of_angles = bool(parts) and parts[0] in schema.angles and parts[0] not in schema.lines
            _check_parts(schema, f"angles {key}", parts, tuple(earlier) if of_angles else tuple(schema.lines), 2)
        earlier.append(key)
    _check_unique(schema, "lines and angles", [*schema.lines, *schema.angles])


def _check_parts(schema: LandmarkSchema, where: str, parts: Any, known: Sequence[str], size: int | None) -> None:
    """The parts of one entry are distinct known names, as many as it takes."""
    if not isinstance(parts, tuple) or not parts or (size is not None and len(parts) != size):
        raise _error(schema, "wrong number of names", where, parts, f"{size or 'one or more'} names in a list")
    for part in parts:
        if part not in known:
            raise _error(
                schema, "unknown name", where, part, f"one of {', '.join(known) or 'none: nothing to refer to'}"
            )
    _check_unique(schema, where, parts)


def _check_unique(schema: LandmarkSchema, where: str, names: Iterable[str]) -> None:
    """Refuse a name that comes twice."""
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise _error(schema, "name comes more than once", where, repeated, "every name once")
