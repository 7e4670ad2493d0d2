"""Which pixel spacing a film has, and what that number means.

The policy follows DICOM PS3.3 section 10.7.1 (Basic Pixel Spacing Calibration Macro); Cornerstone's
``calculateRadiographicPixelSpacing`` is the second opinion. First rule that applies:

====  ==============================================================================  =======================
rule  what the film says                                                              source
====  ==============================================================================  =======================
1     the user gave a spacing                                                         user
2     PixelSpacing with calibration type FIDUCIAL or GEOMETRY, or PixelSpacing that   calibrated
      differs from ImagerPixelSpacing and NominalScannedPixelSpacing (those present)
3     ImagerPixelSpacing / EstimatedRadiographicMagnificationFactor                   magnification-corrected
4     ImagerPixelSpacing, else NominalScannedPixelSpacing (PixelSpacing is equal to   detector
      one of them, or absent)
5     PixelSpacing alone                                                              uncalibrated
6     nothing                                                                         none
====  ==============================================================================  =======================

Every spacing tag that is present must be sound, also one that the rule does not use: a header with one impossible
number is not to be trusted with the others. Only a spacing given by the user overrules it. A tag that is present but
empty says nothing and counts as absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, get_args

from monai_landmark.errors import FilmError

__all__ = ["SPACING_TAGS", "FilmSpacing", "SpacingSource", "check_spacing", "spacing_from_header", "spacing_from_tags"]

SpacingSource = Literal["user", "calibrated", "magnification-corrected", "detector", "uncalibrated", "none"]

#: DICOM keywords that the policy reads, with their tags.
SPACING_TAGS = {
    "PixelSpacing": "(0028,0030)",
    "PixelSpacingCalibrationType": "(0028,0A02)",
    "ImagerPixelSpacing": "(0018,1164)",
    "NominalScannedPixelSpacing": "(0018,2010)",
    "EstimatedRadiographicMagnificationFactor": "(0018,1114)",
}
_PAIRS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_FACTOR = "EstimatedRadiographicMagnificationFactor"

_LIMITS_MM = (0.01, 2.0)
_EXPECTED = f"two finite numbers (row, column) within {_LIMITS_MM[0]:g} to {_LIMITS_MM[1]:g} mm"
_ACTION = 'give the true spacing yourself (spacing_mm, or the datalist\'s "spacing"), or leave this film out'
# A ratio of distances source-detector / source-object, so never below 1.
_FACTOR_LIMITS = (1.0, 10.0)
# DICOM decimal strings are rounded to 16 characters; over a 300 mm film this tolerance is 0.03 mm.
_SAME = 1e-4
# What float() takes as well, such as 1_0 for 10, is no decimal string (PS3.5 6.2).
_DECIMAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True)
class FilmSpacing:
    """Distance between neighboring pixel centers, and where that number comes from.

    Args:
        row_mm: distance between rows (down the film) in mm; None when unknown.
        col_mm: distance between columns (along a row) in mm; None when unknown.
        source: ``"user"``, ``"calibrated"``, ``"magnification-corrected"``, ``"detector"`` (mm at the detector, larger
            than in the patient), ``"uncalibrated"`` (in mm, meaning unknown) or ``"none"``.

    Raises:
        ValueError: an unknown source, or numbers that contradict it.
    """

    row_mm: float | None
    col_mm: float | None
    source: SpacingSource

    def __post_init__(self) -> None:
        if self.source not in get_args(SpacingSource):
            raise ValueError(f"unknown spacing source {self.source!r}; expected one of {get_args(SpacingSource)}")
        known = [value is not None for value in (self.row_mm, self.col_mm)]
        if any(known) != all(known) or all(known) == (self.source == "none"):
            raise ValueError(f"spacing ({self.row_mm}, {self.col_mm}) contradicts its source {self.source!r}")

    @property
    def mm(self) -> tuple[float, float] | None:
        """``(row_mm, col_mm)``, or None when the film has no spacing."""
        return None if self.row_mm is None or self.col_mm is None else (self.row_mm, self.col_mm)


def check_spacing(values: Any, *, file: str | PathLike[str] | None = None, field: str) -> tuple[float, float]:
    """``(row_mm, col_mm)`` as floats, or an error: nothing is repaired.

    Args:
        values: what the tag, header or user says.
        file: the film, for the message.
        field: the tag or argument, for the message.

    Returns:
        The two spacings in mm.

    Raises:
        FilmError: not exactly two finite numbers within 0.01 to 2 mm.
    """
    numbers = _floats(values)
    if numbers is None or len(numbers) != 2 or not all(_LIMITS_MM[0] <= n <= _LIMITS_MM[1] for n in numbers):
        raise FilmError(
            "the pixel spacing is impossible", file=file, field=field, value=values, expected=_EXPECTED, action=_ACTION
        )
    return numbers[0], numbers[1]


def _floats(values: Any) -> list[float] | None:
    """The numbers in a list (or array) of numbers or decimal strings; None when it holds anything else."""
    items = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
        return None
    texts = [getattr(item, "original_string", item) for item in items]
    if any(isinstance(item, bool) for item in items) or any(
        isinstance(text, str) and not _DECIMAL.fullmatch(text) for text in texts
    ):
        return None
    try:
        return [float(item) for item in items]
    except (TypeError, ValueError, OverflowError):
        return None


def spacing_from_tags(
    tags: Mapping[str, Any], *, file: str | PathLike[str] | None = None, user_mm: Any = None
) -> FilmSpacing:
    """Apply the spacing policy of this module to the tags of one film.

    Args:
        tags: by DICOM keyword (see :data:`SPACING_TAGS`); spacings as lists of numbers or decimal strings,
            absent or None when the film does not say.
        file: the film, for messages.
        user_mm: ``(row_mm, col_mm)`` given by the user; overrules every tag, poisoned ones included.

    Returns:
        The spacing and its source.

    Raises:
        FilmError: a spacing tag that is present but impossible.
    """
    if user_mm is not None:
        return FilmSpacing(*check_spacing(user_mm, file=file, field="spacing_mm"), "user")
    pixel, imager, scanned = (_pair(tags, keyword, file) for keyword in _PAIRS)
    factor = _factor(tags, file)
    calibration = str(tags.get("PixelSpacingCalibrationType") or "").strip().upper()
    detector = [spacing for spacing in (imager, scanned) if spacing is not None]

    if pixel and (calibration in ("FIDUCIAL", "GEOMETRY") or (detector and not any(_same(pixel, d) for d in detector))):
        return FilmSpacing(*pixel, "calibrated")
    if imager and factor:
        field = f"ImagerPixelSpacing {SPACING_TAGS['ImagerPixelSpacing']} / {_FACTOR} {SPACING_TAGS[_FACTOR]}"
        patient_mm = check_spacing([mm / factor for mm in imager], file=file, field=field)
        return FilmSpacing(*patient_mm, "magnification-corrected")
    if detector:
        return FilmSpacing(*detector[0], "detector")
    if pixel:
        return FilmSpacing(*pixel, "uncalibrated")
    return FilmSpacing(None, None, "none")


def spacing_from_header(values: Any, *, file: str | PathLike[str], field: str, user_mm: Any = None) -> FilmSpacing:
    """Spacing out of a MetaImage, NRRD or NIfTI header, whose meaning nobody states: ``uncalibrated``.

    Exactly 1 x 1 is what these formats hold when nobody set a spacing; it cannot be told from a measurement, so it
    counts as ``none``.

    Args:
        values: ``(row, column)`` spacing in mm.
        file: the film, for messages.
        field: the header's field, for messages.
        user_mm: ``(row_mm, col_mm)`` given by the user; overrules the header.

    Returns:
        The spacing and its source.

    Raises:
        FilmError: the header's spacing is impossible.
    """
    if user_mm is not None:
        return spacing_from_tags({}, file=file, user_mm=user_mm)
    if _floats(values) == [1.0, 1.0]:
        return FilmSpacing(None, None, "none")
    return FilmSpacing(*check_spacing(values, file=file, field=field), "uncalibrated")


def _pair(tags: Mapping[str, Any], keyword: str, file: str | PathLike[str] | None) -> tuple[float, float] | None:
    values = tags.get(keyword)
    if values is None:
        return None
    return check_spacing(values, file=file, field=f"{keyword} {SPACING_TAGS[keyword]}")


def _factor(tags: Mapping[str, Any], file: str | PathLike[str] | None) -> float | None:
    """The magnification (distance source-detector / source-object), or None when the film does not say."""
    value = tags.get(_FACTOR)
    if value is None:
        return None
    numbers = _floats(value if isinstance(value, (list, tuple)) else [value])
    if numbers is None or len(numbers) != 1 or not _FACTOR_LIMITS[0] <= numbers[0] <= _FACTOR_LIMITS[1]:
        raise FilmError(
            "the magnification factor is impossible",
            file=file,
            field=f"{_FACTOR} {SPACING_TAGS[_FACTOR]}",
            value=value,
            expected=f"one finite number within {_FACTOR_LIMITS[0]:g} to {_FACTOR_LIMITS[1]:g}",
            action=_ACTION,
        )
    return numbers[0]


def _same(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return all(math.isclose(a, b, rel_tol=_SAME) for a, b in zip(first, second, strict=True))
