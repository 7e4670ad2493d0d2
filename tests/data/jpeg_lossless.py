"""A minimal encoder of lossless JPEG (ISO 10918-1 annex H, predictor 1), for which no Python package exists."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CATEGORIES = 17


def encode_jpeg_lossless(pixels: NDArray[Any], precision: int) -> bytes:
    """One gray image as a lossless JPEG stream (SOF3, selection value 1).

    Args:
        pixels: ``(rows, columns)`` unsigned integers below ``2 ** precision``.
        precision: 2 to 16 bits.
    """
    rows, columns = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]  # left neighbor; the first column takes the one above
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 2 ** (precision - 1)
    bits = "".join(_code(int(difference)) for difference in ((values - predicted) % 2**16).ravel())
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    # one Huffman table: 17 categories, all with 5-bit codes
    counts = bytes([0, 0, 0, 0, _CATEGORIES, *[0] * 11])
    table = b"\x00" + counts + bytes(range(_CATEGORIES))
    frame = struct.pack(">BHHBBBB", precision, rows, columns, 1, 1, 0x11, 0)
    start = bytes([1, 1, 0, 1, 0, 0])  # one component, table 0, predictor 1
    return b"\xff\xd8" + _segment(0xC4, table) + _segment(0xC3, frame) + _segment(0xDA, start) + scan + b"\xff\xd9"


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def _code(difference: int) -> str:
    """Huffman code and extra bits of a difference modulo 65536."""
    difference = difference - 2**16 if difference > 2**15 else difference
    category = abs(difference).bit_length()
    prefix = format(category, "05b")
    if category in (0, 16):
        return prefix
    return prefix + format(difference if difference > 0 else difference + 2**category - 1, f"0{category}b")
