"""Attributes of one DICOM film; whatever cannot be read becomes an error that names its tag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_landmark.data.spacing import SPACING_TAGS
from monai_landmark.errors import FilmError

__all__ = ["ATTRIBUTES", "Header"]

#: Every attribute that is read from a film, by keyword, with its tag. Nothing here names a patient, a study or a place.
ATTRIBUTES = {
    "SOPClassUID": "(0008,0016)",
    "Modality": "(0008,0060)",
    "BodyPartExamined": "(0018,0015)",
    "ViewPosition": "(0018,5101)",
    "ImageLaterality": "(0020,0062)",
    "NumberOfFrames": "(0028,0008)",
    "Rows": "(0028,0010)",
    "Columns": "(0028,0011)",
    "SamplesPerPixel": "(0028,0002)",
    "PhotometricInterpretation": "(0028,0004)",
    "PlanarConfiguration": "(0028,0006)",
    "BitsAllocated": "(0028,0100)",
    "BitsStored": "(0028,0101)",
    "HighBit": "(0028,0102)",
    "PixelRepresentation": "(0028,0103)",
    "PixelPaddingValue": "(0028,0120)",
    "PixelPaddingRangeLimit": "(0028,0121)",
    "ModalityLUTSequence": "(0028,3000)",
    "RescaleSlope": "(0028,1053)",
    "RescaleIntercept": "(0028,1052)",
    "VOILUTSequence": "(0028,3010)",
    "WindowCenter": "(0028,1050)",
    "WindowWidth": "(0028,1051)",
    "VOILUTFunction": "(0028,1056)",
    "PresentationLUTShape": "(2050,0020)",
    "PixelData": "(7FE0,0010)",
    "ExtendedOffsetTable": "(7FE0,0001)",
    "ExtendedOffsetTableLengths": "(7FE0,0002)",
    **SPACING_TAGS,
}


class Header:
    """The attributes of one file, each checked when it is asked for.

    Args:
        dataset: a pydicom data set, or anything with its ``get`` and ``get_item``.
        file: where it came from, for messages.
    """

    def __init__(self, dataset: Any, file: Path) -> None:
        self.dataset, self.file = dataset, file

    def error(
        self, problem: str, keyword: str, value: Any = None, expected: str | None = None, action: str | None = None
    ) -> FilmError:
        """A :class:`FilmError` that names this file and the attribute's tag."""
        field = f"{keyword} {ATTRIBUTES[keyword]}"
        action = action or "export the film again"
        return FilmError(problem, file=self.file, field=field, value=value, expected=expected, action=action)

    def value(self, keyword: str) -> Any:
        """The value as text, number or list of them; None when absent or empty.

        Raises:
            FilmError: the bytes of the attribute cannot be converted.
        """
        try:
            value = self.dataset.get(keyword)
        except Exception as error:
            # pydicom converts a value when it is asked for, and fails in many ways
            raw = getattr(self.dataset.get_item(keyword, keep_deferred=True), "value", None)
            problem = f"the attribute cannot be read ({type(error).__name__})"
            raise self.error(problem, keyword, raw, "a valid value") from None
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            value = list(value)
        return None if value is None or value in ("", b"", []) else value

    def text(self, keyword: str) -> str:
        """The value as text, empty when absent."""
        value = self.value(keyword)
        return "" if value is None else str(value).strip()

    def integer(self, keyword: str, default: int | None = None) -> int:
        """One whole number.

        Raises:
            FilmError: absent without a default, or not one whole number.
        """
        value = self.value(keyword)
        if value is None and default is not None:
            return default
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError):
            problem = "the attribute is missing or not one whole number"
            raise self.error(problem, keyword, value, "one whole number") from None

    def number(self, keyword: str) -> float | None:
        """The first of the attribute's numbers; None when absent.

        Raises:
            FilmError: not a finite number.
        """
        value = self.value(keyword)
        if value is None:
            return None
        try:
            number = float(value[0] if isinstance(value, list) else value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error("the attribute is not a finite number", keyword, value, "a finite number")
        return number
