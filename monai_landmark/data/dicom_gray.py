"""How the header of a DICOM film says that its stored values are to be shown."""

from __future__ import annotations

from typing import cast, get_args

import numpy as np

from monai_landmark.data.dicom_header import Header
from monai_landmark.data.grayscale import Grayscale, LookupTable, Window, WindowFunction

__all__ = ["grayscale_of"]


def grayscale_of(header: Header, apply_voi: bool) -> Grayscale:
    """How the film's stored values are to be shown; three channels are shown as they are.

    A film is inverted once when PhotometricInterpretation is MONOCHROME1 or PresentationLUTShape is INVERSE: the DX
    family requires both together (PS3.3 C.8.11.3), so the two are one statement and not two inversions.

    Args:
        header: the film's attributes.
        apply_voi: show the film through its first VOI LUT, else its first window.

    Returns:
        The grayscale pipeline.

    Raises:
        FilmError: an attribute of the pipeline is impossible.
    """
    allocated, stored = header.integer("BitsAllocated"), header.integer("BitsStored")
    photometric = header.text("PhotometricInterpretation")
    if not photometric.startswith("MONOCHROME"):
        return Grayscale(allocated, stored)
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if slope == 0:
        raise header.error("the slope would make every pixel equal", "RescaleSlope", slope, "a number other than 0")
    return Grayscale(
        allocated,
        stored,
        signed=header.integer("PixelRepresentation", 0) == 1,
        modality=_lookup_table(header, "ModalityLUTSequence"),
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        voi=(_lookup_table(header, "VOILUTSequence") or _window(header, stored)) if apply_voi else None,
        inverted=photometric == "MONOCHROME1" or header.text("PresentationLUTShape") == "INVERSE",
        padding=_padding(header),
    )


def _lookup_table(header: Header, keyword: str) -> LookupTable | None:
    """First item of a LUT sequence (PS3.3 C.11.1.1)."""
    items = header.value(keyword)
    if not items:
        return None
    try:
        count, first, _ = (int(n) for n in items[0].LUTDescriptor)
        data = items[0].LUTData
        count = count or 2**16
        if isinstance(data, bytes):
            order = "<" if header.dataset.original_encoding[1] else ">"
            # entries of 8 bits may be packed two to a word
            packed = len(data) == count + count % 2
            entries = np.frombuffer(data, "u1" if packed else f"{order}u2")[:count]
        else:
            entries = np.atleast_1d(np.asarray(data, dtype=np.int64))
    except Exception as error:
        raise header.error(f"the look-up table cannot be read ({type(error).__name__})", keyword) from None
    if len(entries) != count:
        raise header.error("the look-up table is cut short", keyword, f"{len(entries)} entries", f"{count} entries")
    return LookupTable(_in_sign(header, first), entries)


def _window(header: Header, bits_stored: int) -> Window | None:
    center, width = header.number("WindowCenter"), header.number("WindowWidth")
    function = header.text("VOILUTFunction") or "LINEAR"
    action = "read the film with apply_voi=False, or export it again"
    if center is None and width is None:
        return None
    if function not in get_args(WindowFunction):
        expected = "LINEAR, LINEAR_EXACT or SIGMOID"
        raise header.error("the window's function is unknown", "VOILUTFunction", function, expected, action)
    if center is None:
        raise header.error("the window has a width but no center", "WindowCenter", None, "a number", action)
    if width is None or width <= 0 or (function == "LINEAR" and width < 1):
        expected = "at least 1" if function == "LINEAR" else "above 0"
        raise header.error("the window's width is impossible", "WindowWidth", width, expected, action)
    return Window(center, width, cast(WindowFunction, function), 2.0**bits_stored - 1)


def _padding(header: Header) -> tuple[int, int] | None:
    """Smallest and largest padding value; the limit may lie on either side of the value (PS3.3 C.7.5.1.1.2)."""
    if header.value("PixelPaddingValue") is None:
        return None
    value = _in_sign(header, header.integer("PixelPaddingValue"))
    limit = _in_sign(header, header.integer("PixelPaddingRangeLimit", value))
    return min(value, limit), max(value, limit)


def _in_sign(header: Header, value: int) -> int:
    """A 16-bit attribute in the pixels' own sign; files often write it in the other one."""
    signed = header.integer("PixelRepresentation", 0) == 1
    return (value + 2**15) % 2**16 - 2**15 if signed else value % 2**16
