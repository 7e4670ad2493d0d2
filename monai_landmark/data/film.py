"""A film as the package sees it, and the limits every reader keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.spacing import FilmSpacing
from monai_landmark.errors import FilmError

__all__ = [
    "MAX_DECODED_BYTES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MAX_PIXELS_PER_BYTE",
    "Film",
    "check_film_file",
    "check_film_size",
    "merge_equal_channels",
]

#: A larger film is refused before it is decoded; the largest real ones (stitched spines) have about 40 million pixels.
MAX_PIXELS = 48_000_000
#: A larger file is refused before it is opened.
MAX_FILE_BYTES = 2**30
#: A film that would take more memory than this once it is decoded is refused before; 64 bits a pixel are no film's.
MAX_DECODED_BYTES = 2**27
#: Pixels for each byte of a compressed film, beyond which the size that it states is not believed. Films take more than
#: 0.1 bit a pixel; only films of more than :data:`_SMALL` pixels are held to it, for smaller ones cost nothing.
MAX_PIXELS_PER_BYTE = 256
_SMALL = 2**21
# JPEG's color conversion may round the three channels of a gray film apart by this share of the full range.
_GRAY_TOLERANCE = 2 / 255


@dataclass(frozen=True)
class Film:
    """One radiograph, upright as a person sees it.

    Args:
        pixels: ``(H, W)`` float32, bright = dense (MONOCHROME1 is inverted), in the file's own intensity units.
        spacing: pixel spacing and its source.
        info: facts for reports: format, polarity, bits, compression. Holds no patient data.
    """

    pixels: NDArray[np.float32]
    spacing: FilmSpacing
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` in pixels."""
        height, width = self.pixels.shape
        return height, width


def check_film_file(path: str | PathLike[str]) -> Path:
    """The film's path, once it is known to be a file of sensible length.

    Args:
        path: the film.

    Returns:
        The path.

    Raises:
        FilmError: no such file, a folder, an empty file, or one of more than :data:`MAX_FILE_BYTES`.
    """
    file = Path(path)
    if not file.is_file():
        problem = "this is a folder, not a film" if file.is_dir() else "there is no such file"
        raise FilmError(problem, file=file, action="give the path of one film")
    size = file.stat().st_size
    if size == 0:
        raise FilmError("the file is empty", file=file, value="0 bytes", action="copy the film again from its source")
    if size > MAX_FILE_BYTES:
        raise FilmError(
            "the file is too large for a film",
            file=file,
            value=f"{size} bytes",
            expected=f"at most {MAX_FILE_BYTES} bytes",
            action="export a single film",
        )
    return file


def check_film_size(
    rows: int,
    columns: int,
    *,
    file: str | PathLike[str],
    field: str,
    pixel_bytes: int = 1,
    stored_bytes: int | None = None,
    pixels_per_byte: int = MAX_PIXELS_PER_BYTE,
) -> None:
    """Refuse an impossible size by the header alone, before any pixel is decoded.

    Args:
        rows: height in pixels.
        columns: width in pixels.
        file: the film, for the message.
        field: where the size is written, for the message.
        pixel_bytes: length of a decoded pixel, all its channels together.
        stored_bytes: length of the stored pixels, where it is known.
        pixels_per_byte: that the compression can reach.

    Raises:
        FilmError: an empty side, more than :data:`MAX_PIXELS` pixels or :data:`MAX_DECODED_BYTES` bytes, or far more
            than the stored bytes can hold.
    """
    pixels = rows * columns
    if pixels * pixel_bytes > MAX_DECODED_BYTES:
        value = f"{rows} x {columns} of {pixel_bytes} bytes"
        expected = f"at least 1 x 1 and at most {MAX_PIXELS} pixels in {MAX_DECODED_BYTES} bytes"
        action = "export the film again at its own resolution, gray, 8 or 16 bits"
    elif stored_bytes is not None and pixels > max(_SMALL, pixels_per_byte * stored_bytes):
        value, expected = f"{rows} x {columns} in {stored_bytes} bytes", f"at most {pixels_per_byte} pixels a byte"
        action = "copy or export the film again"
    elif rows < 1 or columns < 1 or pixels > MAX_PIXELS:
        value, expected = f"{rows} x {columns}", f"at least 1 x 1 and at most {MAX_PIXELS} pixels"
        action = "export the film again at its own resolution"
    else:
        return
    problem = "the size of the film is impossible"
    raise FilmError(problem, file=file, field=field, value=value, expected=expected, action=action)


def merge_equal_channels(pixels: NDArray[Any], *, file: str | PathLike[str], field: str) -> NDArray[Any]:
    """Gray film out of ``(H, W, 3)``: a film saved as RGB has three equal channels, a photograph has not.

    Args:
        pixels: ``(H, W, 3)`` unsigned integers.
        file: the film, for the message.
        field: the color space's tag, for the message.

    Returns:
        ``(H, W)``, the middle channel.

    Raises:
        FilmError: the channels differ by more than JPEG's rounding.
    """
    tolerance = round(_GRAY_TOLERANCE * np.iinfo(pixels.dtype).max)
    green = pixels[..., 1]
    for other in (pixels[..., 0], pixels[..., 2]):
        # max - min of unsigned integers cannot wrap, unlike their difference
        gap = int((np.maximum(other, green) - np.minimum(other, green)).max())
        if gap > tolerance:
            raise FilmError(
                "this is a color picture, not a film",
                file=file,
                field=field,
                value=f"channels differ by up to {gap}",
                expected=f"one gray channel, or three that are equal within {tolerance}",
                action="export the film as gray, without colored annotations",
            )
    return np.ascontiguousarray(green)
