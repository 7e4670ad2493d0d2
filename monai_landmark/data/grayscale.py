"""From stored pixel values to what a person sees: the grayscale pipeline of DICOM PS3.3 (N.2, C.11), on numpy alone.

stored bits -> sign -> modality LUT or rescale -> VOI LUT or window -> polarity. Every step depends on the stored value
alone, so the pipeline runs once over all values that 8 or 16 bits can hold, and a film is one look-up in that table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grayscale", "LookupTable", "Window", "WindowFunction", "render_gray"]

_BLOCK_PIXELS = 2**20

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class LookupTable:
    """A modality or VOI LUT; input values beyond its ends take its first or last entry.

    Args:
        first: input value that the first entry belongs to.
        entries: ``(N,)`` output values.
    """

    first: int
    entries: NDArray[Any]

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map input values, rounded to whole ones, through the table."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        return np.asarray(self.entries[index], dtype=np.float64)


@dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        center: value shown at half brightness.
        width: range of values shown; at least 1 for LINEAR, above 0 for the others.
        function: LINEAR (whole values, PS3.3's half-pixel convention), LINEAR_EXACT or SIGMOID.
        maximum: value of full brightness.
    """

    center: float
    width: float
    function: WindowFunction
    maximum: float

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map values to 0..maximum."""
        center, width = (self.center - 0.5, self.width - 1) if self.function == "LINEAR" else (self.center, self.width)
        if self.function == "SIGMOID":
            # far below the window exp overflows to inf, and 1 / inf is the right 0
            with np.errstate(over="ignore"):
                share = 1 / (1 + np.exp(-4 * (values - center) / width))
        elif width == 0:
            share = (values > center).astype(np.float64)
        else:
            share = np.clip((values - center) / width + 0.5, 0, 1)
        return np.asarray(self.maximum * share, dtype=np.float64)


@dataclass(frozen=True)
class Grayscale:
    """Everything that decides how the stored values of one film look.

    Args:
        bits_allocated: 8 or 16.
        bits_stored: lowest bits that hold the value; the bits above are ignored.
        signed: whether the value is two's complement.
        modality: modality LUT, or None for ``slope`` and ``intercept``.
        slope: rescale slope.
        intercept: rescale intercept.
        voi: VOI LUT or window; None shows the modality values as they are.
        inverted: whether the smallest value is shown white.
        padding: smallest and largest stored value that mean "no film here", or None.
    """

    bits_allocated: int
    bits_stored: int
    signed: bool = False
    modality: LookupTable | None = None
    slope: float = 1.0
    intercept: float = 0.0
    voi: LookupTable | Window | None = None
    inverted: bool = False
    padding: tuple[int, int] | None = None

    def stored_values(self) -> NDArray[np.int64]:
        """``(2 ** bits_allocated,)`` stored value that each bit pattern means."""
        values: NDArray[np.int64] = np.arange(2**self.bits_allocated, dtype=np.int64) & (2**self.bits_stored - 1)
        sign_bit = 2 ** (self.bits_stored - 1)
        return (values ^ sign_bit) - sign_bit if self.signed else values

    def shown_values(self) -> NDArray[np.float64]:
        """``(2 ** bits_allocated,)`` intensity, bright = dense, that each bit pattern means; padding not yet set."""
        values = self.stored_values().astype(np.float64)
        values = values * self.slope + self.intercept if self.modality is None else self.modality(values)
        values = values if self.voi is None else self.voi(values)
        return values.min() + values.max() - values if self.inverted else values


def render_gray(codes: NDArray[Any], grayscale: Grayscale) -> tuple[NDArray[np.float32], float | None]:
    """Film as a person sees it.

    Padding is set to the darkest intensity found in the film itself, so that it neither stretches the contrast nor
    looks like bone.

    Args:
        codes: ``(H, W)`` decoded pixels, signed or unsigned, of ``grayscale.bits_allocated`` bits.
        grayscale: how to read them.

    Returns:
        ``(H, W)`` float32 intensities, bright = dense, and the share of padded pixels (None when the film states no
        padding value; the pixels are all padding when it is 1).
    """
    codes = np.ascontiguousarray(codes).view(f"u{grayscale.bits_allocated // 8}")
    table = grayscale.shown_values()
    if grayscale.padding is None:
        return _look_up(table, codes), None
    stored = grayscale.stored_values()
    padded = (grayscale.padding[0] <= stored) & (stored <= grayscale.padding[1])
    counts = sum(
        (np.bincount(part.ravel(), minlength=len(table)) for part in _blocks(codes)),
        np.zeros(len(table), dtype=np.intp),
    )
    film = (counts > 0) & ~padded
    table[padded] = table[film].min() if film.any() else 0.0
    return _look_up(table, codes), float(counts[padded].sum() / codes.size)


def _blocks(codes: NDArray[Any]) -> list[NDArray[Any]]:
    """Views of some rows each: numpy turns what it indexes with into 8 bytes a pixel, of a large film half a GB."""
    rows = max(_BLOCK_PIXELS // max(codes.shape[1], 1), 1)
    return [codes[start : start + rows] for start in range(0, len(codes), rows)]


def _look_up(table: NDArray[np.float64], codes: NDArray[Any]) -> NDArray[np.float32]:
    values = table.astype(np.float32)
    film = np.empty(codes.shape, dtype=np.float32)
    for part, shown in zip(_blocks(codes), _blocks(film), strict=True):
        np.take(values, part, out=shown)
    return film
