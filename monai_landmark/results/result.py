"""One result type for a film's predicted landmarks, and its published JSON form."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark import __version__
from monai_landmark.errors import DataError

__all__ = [
    "DISCLAIMER",
    "RESULT_FORMAT",
    "RESULT_FORMAT_VERSION",
    "Guarantee",
    "LandmarkResult",
    "parse_json",
    "result_json_schema",
]

FloatArray = NDArray[np.float64]

DISCLAIMER = "not for diagnosis"
RESULT_FORMAT = "monai-landmark/landmark-result"
RESULT_FORMAT_VERSION = 2
# Files that other programs write may round; a tenth of a micrometer is far below any film's pixel.
_MM_TOLERANCE = 1e-3


class Guarantee(NamedTuple):
    """What regions and referrals promise, on average over new films like those they were calibrated on.

    Attributes:
        region_level: share of the regions that hold their landmark.
        tolerance_mm: an error above it is gross.
        risk: at most this share of a film's landmarks are off by more than that and not referred.
    """

    region_level: float
    tolerance_mm: float
    risk: float


@dataclass(frozen=True, eq=False)
class LandmarkResult:
    """The landmarks predicted on one film, with all that is needed to trust or distrust them.

    Args:
        film: id of the film; never a path or a patient's name.
        original_size: ``(H, W)`` of the original film in pixels.
        names: the K landmark names, in the schema's order.
        points_px: ``(K, 2)`` (x, y) in pixels of the original film; NaN = not found.
        spacing_mm: ``(row_mm, col_mm)`` of one pixel, or None: then every millimeter below is None too.
        spacing_source: where the spacing comes from (``user``, ``calibrated``, ``magnification-corrected``,
            ``detector``, ``uncalibrated``) or ``none``.
        confidence: ``(K,)`` in [0, 1], NaN = unknown, or None when the model states none.
        expected_error_mm: ``(K,)`` radial error in mm that the model itself expects, or None.
        region_radius_mm: ``(K,)`` radius of the region about each point, NaN = none, or None when not calibrated.
        refer: ``(K,)`` boolean, which landmarks a person should look at, or None when not calibrated.
        guarantee: what region and refer promise; None when there is neither.
        schema: name of the landmark schema, e.g. ``isbi19``.
        model_name: name of the model.
        model_sha256: SHA-256 of the weights, 64 hexadecimal digits, or None when they were never a file.
        version: version of this package that made the result.
        warnings: plain sentences that the reader of the result should see.
        disclaimer: always ``not for diagnosis``.

    Raises:
        DataError: a shape, a spacing or a range that cannot be right.
    """

    film: str
    original_size: tuple[int, int]
    names: tuple[str, ...]
    points_px: FloatArray
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str = "none"
    confidence: FloatArray | None = None
    expected_error_mm: FloatArray | None = None
    region_radius_mm: FloatArray | None = None
    refer: NDArray[np.bool_] | None = None
    guarantee: Guarantee | None = None
    schema: str = ""
    model_name: str = ""
    model_sha256: str | None = None
    version: str = __version__
    warnings: tuple[str, ...] = ()
    disclaimer: str = DISCLAIMER

    def __post_init__(self) -> None:
        count = len(self.names)
        _set(self, "names", tuple(str(name) for name in self.names))
        _set(self, "original_size", (int(self.original_size[0]), int(self.original_size[1])))
        _set(self, "warnings", tuple(self.warnings))
        _set(self, "points_px", self._array("points_px", self.points_px, (count, 2)))
        for field in ("confidence", "expected_error_mm", "region_radius_mm"):
            if (value := getattr(self, field)) is not None:
                _set(self, field, self._array(field, value, (count,)))
        if self.refer is not None:
            _set(self, "refer", self._array("refer", self.refer, (count,)) != 0)
            self.refer.setflags(write=False)
        self._check_spacing()
        self._check_ranges()

    @property
    def referred(self) -> NDArray[np.bool_]:
        """``(K,)`` which landmarks a person should look at; none where nothing was calibrated."""
        return np.zeros(len(self.names), dtype=bool) if self.refer is None else self.refer

    def _array(self, field: str, value: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
        array = np.array(value, dtype=np.float64)
        if array.shape != shape:
            self._refuse("wrong shape", field, array.shape, f"{shape}: one row for each of the {shape[0]} names")
        if np.isinf(array).any():
            self._refuse("infinite value", field, array.tolist(), "finite numbers, or NaN where nothing was found")
        array.setflags(write=False)
        return array

    def _check_spacing(self) -> None:
        if (self.spacing_mm is None) != (self.spacing_source == "none"):
            found = {"spacing_mm": self.spacing_mm, "spacing_source": self.spacing_source}
            self._refuse("spacing and its source contradict", "spacing_source", found, "both, or neither ('none')")
        if self.spacing_mm is None:
            for field in ("expected_error_mm", "region_radius_mm"):
                if getattr(self, field) is not None:
                    self._refuse("millimeters without a spacing", field, "given", "None")
            return
        values = tuple(float(value) for value in self.spacing_mm)
        if len(values) != 2 or not all(math.isfinite(value) and value > 0 for value in values):
            self._refuse("impossible spacing", "spacing_mm", values, "two finite numbers above 0: (row_mm, col_mm)")
        _set(self, "spacing_mm", (values[0], values[1]))

    def _check_ranges(self) -> None:
        if not self.film:
            self._refuse("a film without an id", "film", self.film, "an id that is not empty")
        if len(set(self.names)) != len(self.names) or not all(self.names):
            self._refuse("landmark names are not distinct", "names", self.names, "distinct names, none of them empty")
        if (np.isnan(self.points_px[:, 0]) != np.isnan(self.points_px[:, 1])).any():
            self._refuse("half a point", "points_px", self.points_px.tolist(), "x and y, or NaN for both")
        if min(self.original_size) < 1:
            self._refuse("impossible film size", "original_size", self.original_size, "(H, W) of at least one pixel")
        if self.confidence is not None and ((self.confidence < 0) | (self.confidence > 1)).any():
            self._refuse("confidence out of range", "confidence", self.confidence.tolist(), "numbers within 0..1")
        for field in ("expected_error_mm", "region_radius_mm"):
            if (length := getattr(self, field)) is not None and (length < 0).any():
                self._refuse("negative length", field, length.tolist(), "numbers >= 0")
        self._check_guarantee()
        if self.model_sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.model_sha256):
            self._refuse("not a SHA-256", "model_sha256", self.model_sha256, "64 lower-case hexadecimal digits")
        if self.disclaimer != DISCLAIMER:
            self._refuse("the disclaimer was changed", "disclaimer", self.disclaimer, repr(DISCLAIMER))

    def _check_guarantee(self) -> None:
        """Regions and referrals come with what they promise, or not at all."""
        promised = self.region_radius_mm is not None or self.refer is not None
        if promised and self.guarantee is None:
            self._refuse("a region or referral that promises nothing", "guarantee", None, "level, tolerance and risk")
        if self.guarantee is None:
            return
        level, tolerance_mm, risk = self.guarantee
        if not (0 < level < 1 and 0 < risk < 1 and 0 < tolerance_mm < math.inf):
            expected = "level and risk between 0 and 1, tolerance above 0"
            self._refuse("impossible guarantee", "guarantee", tuple(self.guarantee), expected)

    def _refuse(self, problem: str, field: str, value: Any, expected: str) -> None:
        raise DataError(f"film {self.film!r}: {problem}", field=field, value=value, expected=expected)

    @property
    def points_mm(self) -> FloatArray | None:
        """``(K, 2)`` (x, y) in mm, origin at the center of the top-left pixel; None for a film without spacing."""
        if self.spacing_mm is None:
            return None
        row_mm, col_mm = self.spacing_mm
        return np.asarray(self.points_px * (col_mm, row_mm), dtype=np.float64)

    @property
    def unit(self) -> str:
        """``mm``, or ``px`` for a film without spacing."""
        return "px" if self.spacing_mm is None else "mm"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LandmarkResult) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON types, as the published schema describes them; NaN becomes null."""
        return {
            "format": RESULT_FORMAT,
            "format_version": RESULT_FORMAT_VERSION,
            "film": self.film,
            "original_size": list(self.original_size),
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "spacing_source": self.spacing_source,
            "schema": self.schema,
            "model": {"name": self.model_name, "sha256": self.model_sha256},
            "version": self.version,
            "guarantee": None if self.guarantee is None else self.guarantee._asdict(),
            "landmarks": self._landmark_dicts(),
            "warnings": list(self.warnings),
            "disclaimer": self.disclaimer,
        }

    def _landmark_dicts(self) -> list[dict[str, Any]]:
        unknown = np.full(len(self.names), np.nan)
        columns = {
            "x_px": self.points_px[:, 0],
            "y_px": self.points_px[:, 1],
            "x_mm": unknown if self.points_mm is None else self.points_mm[:, 0],
            "y_mm": unknown if self.points_mm is None else self.points_mm[:, 1],
            "confidence": unknown if self.confidence is None else self.confidence,
            "expected_error_mm": unknown if self.expected_error_mm is None else self.expected_error_mm,
            "region_radius_mm": unknown if self.region_radius_mm is None else self.region_radius_mm,
        }
        refer = [None] * len(self.names) if self.refer is None else self.refer.tolist()
        return [
            {"name": name, **{key: _number(values[index]) for key, values in columns.items()}, "refer": refer[index]}
            for index, name in enumerate(self.names)
        ]

    @classmethod
    def from_dict(cls, document: Any, *, file: str | PathLike[str] | None = None) -> LandmarkResult:
        """Read what :meth:`to_dict` made.

        Args:
            document: a parsed JSON object.
            file: where it was read, named in errors.

        Returns:
            The result.

        Raises:
            DataError: the document does not follow the published schema, or its mm do not follow from its px.
        """
        document = _upgraded(document)
        _validate(document, file)
        landmarks = document["landmarks"]
        result = cls(
            film=document["film"],
            original_size=tuple(document["original_size"]),
            names=tuple(landmark["name"] for landmark in landmarks),
            points_px=np.array([_column(landmarks, "x_px"), _column(landmarks, "y_px")]).T.reshape(-1, 2),
            spacing_mm=None if document["spacing_mm"] is None else tuple(document["spacing_mm"]),
            spacing_source=document["spacing_source"],
            confidence=_optional(_column(landmarks, "confidence")),
            expected_error_mm=_optional(_column(landmarks, "expected_error_mm")),
            region_radius_mm=_optional(_column(landmarks, "region_radius_mm")),
            refer=_flags(landmarks),
            guarantee=None if document["guarantee"] is None else Guarantee(**document["guarantee"]),
            schema=document["schema"],
            model_name=document["model"]["name"],
            model_sha256=document["model"]["sha256"],
            version=document["version"],
            warnings=tuple(document["warnings"]),
            disclaimer=document["disclaimer"],
        )
        stated = np.array([_column(landmarks, "x_mm"), _column(landmarks, "y_mm")]).T.reshape(-1, 2)
        expected = np.full_like(stated, np.nan) if result.points_mm is None else result.points_mm
        if not np.allclose(stated, expected, rtol=0, atol=_MM_TOLERANCE, equal_nan=True):
            raise DataError(
                f"film {result.film!r}: millimeters do not follow from pixels and spacing",
                file=file,
                field="landmarks[].x_mm, y_mm",
                expected="x_mm = x_px * spacing_mm[1] and y_mm = y_px * spacing_mm[0]",
                action="write the file again from the prediction instead of editing one of the two",
            )
        return result

    def to_json(self) -> str:
        """The result as a JSON document, indented."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, file: str | PathLike[str] | None = None) -> LandmarkResult:
        """Read one result from JSON text; ``file`` is named in errors. Raises DataError (see :meth:`from_dict`)."""
        return cls.from_dict(parse_json(text, file=file), file=file)


@cache
def result_json_schema() -> dict[str, Any]:
    """The published JSON schema (draft 2020-12) of one result."""
    text = Path(__file__).with_name("landmark_result.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped, unused-ignore]

    return Draft202012Validator(result_json_schema())


def _validate(document: Any, file: str | PathLike[str] | None) -> None:
    error = next(iter(sorted(_validator().iter_errors(document), key=lambda item: list(map(str, item.path)))), None)
    if error is not None:
        raise DataError(
            f"not a landmark result: {error.message[:200]}",
            file=file,
            field="/".join(map(str, error.absolute_path)) or "(whole document)",
            expected=f"{RESULT_FORMAT} version {RESULT_FORMAT_VERSION}, see landmark_result.schema.json",
            action="write it with `python -m monai_landmark predict`",
        )


def parse_json(text: str, *, file: str | PathLike[str] | None = None) -> Any:
    """Strict JSON: unlike :func:`json.loads` it refuses ``NaN`` and ``Infinity``.

    Args:
        text: the JSON text.
        file: where it was read, named in errors.

    Returns:
        The parsed document.

    Raises:
        DataError: the text is not JSON.
    """

    def refuse(constant: str) -> None:
        """Raise where the parser would make a number of the constant."""
        raise DataError("not JSON", file=file, value=constant, expected="a finite number, or null")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}", file=file, expected="a landmark result as JSON") from error


def _upgraded(document: Any) -> Any:
    """A document of version 1 with what it could not say yet as null; every other one as it is."""
    if not isinstance(document, dict) or document.get("format_version") != 1 or "guarantee" in document:
        return document
    landmarks = document.get("landmarks")
    if not isinstance(landmarks, list) or not all(isinstance(landmark, dict) for landmark in landmarks):
        return document
    if any("region_radius_mm" in landmark or "refer" in landmark for landmark in landmarks):
        return document
    newer = [{**landmark, "region_radius_mm": None, "refer": None} for landmark in landmarks]
    return {**document, "format_version": RESULT_FORMAT_VERSION, "guarantee": None, "landmarks": newer}


def _flags(landmarks: list[dict[str, Any]]) -> NDArray[np.bool_] | None:
    flags = [landmark["refer"] for landmark in landmarks]
    return None if not flags or None in flags else np.array(flags, dtype=bool)


def _set(result: LandmarkResult, field: str, value: Any) -> None:
    object.__setattr__(result, field, value)


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _column(landmarks: list[dict[str, Any]], key: str) -> list[float]:
    return [math.nan if landmark[key] is None else float(landmark[key]) for landmark in landmarks]


def _optional(values: list[float]) -> FloatArray | None:
    return None if all(math.isnan(value) for value in values) else np.array(values)
