"""PNG, JPEG, TIFF, BMP and JPEG 2000 pictures -> :class:`Film`, by Pillow."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from monai_landmark.data.film import Film, check_film_file, check_film_size, merge_equal_channels
from monai_landmark.data.spacing import spacing_from_tags
from monai_landmark.errors import FilmError

__all__ = ["RASTER_FORMATS", "read_raster"]

#: Formats that Pillow may try; every other decoder of Pillow stays shut.
RASTER_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "JPEG2000")
_GRAY_MODES = ("L", "I", "I;16", "I;16B", "I;16L", "F")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def read_raster(path: str | PathLike[str], spacing_mm: Any = None) -> Film:
    """Read one gray picture of 8 or 16 bits.

    The picture is turned upright by its EXIF orientation. Dots per inch are a printing size and never used as a pixel
    spacing. Three equal channels, an opaque alpha channel and a gray palette are taken as gray.

    Args:
        path: the picture.
        spacing_mm: ``(row_mm, col_mm)`` of the upright film, known to the user.

    Returns:
        The film; without ``spacing_mm`` its spacing is ``none``.

    Raises:
        FilmError: not a picture, broken, too large, of several pages, or not gray.
    """
    file = check_film_file(path)
    spacing = spacing_from_tags({}, file=file, user_mm=spacing_mm)
    try:
        with file.open("rb") as stream:
            picture = _open(stream)
            width, height = picture.size
            sizes = {"pixel_bytes": _pixel_bytes(picture), "stored_bytes": file.stat().st_size}
            check_film_size(height, width, file=file, field="image size", **sizes)
            _check_layout(picture, file)
            info = {"format": str(picture.format).lower(), "mode": picture.mode}
            pixels = _gray(picture, file)
    except Image.DecompressionBombError:
        raise FilmError(
            "the size of the film is impossible",
            file=file,
            field="image size",
            expected="a film that fits into memory",
            action="export the film again at its own resolution",
        ) from None
    except FilmError:
        raise
    except Exception as error:
        # Pillow's decoders fail in many ways: OSError, SyntaxError, ValueError, struct.error ...
        raise FilmError(
            f"the picture is broken, cut short or not a picture ({type(error).__name__})",
            file=file,
            expected="one of " + ", ".join(RASTER_FORMATS),
            action="copy or export the film again",
        ) from None
    return Film(pixels.astype(np.float32), spacing, info)


def _open(stream: IO[bytes]) -> Image.Image:
    """Read the header only. From a stream: by file name Pillow maps plain TIFFs into memory and turns them twice."""
    with warnings.catch_warnings():
        # our own limit is lower and is checked before decoding
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(stream, formats=RASTER_FORMATS)


def _pixel_bytes(picture: Image.Image) -> int:
    """Of a decoded pixel, as Pillow keeps it: 4 for color, 32-bit integers and floats."""
    return 4 if picture.mode in ("I", "F") or len(picture.getbands()) > 1 else 2


def _check_layout(picture: Image.Image, file: PathLike[str]) -> None:
    """One page, and no more bits than Pillow keeps."""
    frames = getattr(picture, "n_frames", 1)
    if frames != 1:
        raise FilmError(
            "the file holds several pages",
            file=file,
            field="pages",
            value=frames,
            expected="1",
            action="export the one page that is the film",
        )
    tile = picture.tile[0] if picture.tile else None
    raw_mode = (tile[3][0] if isinstance(tile[3], tuple) else tile[3]) if tile else None
    if picture.mode in ("RGB", "RGBA", "LA", "PA") and isinstance(raw_mode, str) and ";16" in raw_mode:
        raise FilmError(
            "16 bits a channel would be cut to 8",
            file=file,
            field="color mode",
            value=raw_mode,
            expected="8 bits a channel, or 16 bit gray",
            action="save the film as 16 bit gray without alpha channel",
        )


def _gray(picture: Image.Image, file: PathLike[str]) -> NDArray[Any]:
    """``(H, W)`` upright gray pixels, as bright as they are meant to be shown."""
    maximum = _white_is_zero_maximum(picture, file)
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in ("P", "PA"):
        upright = upright.convert("RGBA")
    if upright.mode in ("LA", "RGBA"):
        _check_opaque(upright, file)
        upright = upright.convert(upright.mode[:-1])
    if upright.mode == "RGB":
        return merge_equal_channels(np.asarray(upright), file=file, field="color mode")
    if upright.mode not in _GRAY_MODES:
        raise FilmError(
            "the picture is not a gray film",
            file=file,
            field="color mode",
            value=upright.mode,
            expected="8 or 16 bit gray",
            action="export the film as gray, 8 or 16 bits",
        )
    pixels: NDArray[Any] = np.asarray(upright)
    if not np.isfinite(pixels).all():
        raise FilmError("a pixel is not a finite number", file=file, field="pixels", action="export the film again")
    return pixels if maximum is None else maximum - pixels


def _white_is_zero_maximum(picture: Image.Image, file: PathLike[str]) -> int | None:
    """Brightest value of a deep TIFF that shows 0 as white; Pillow inverts such films itself only up to 8 bits."""
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_TIFF_PHOTOMETRIC) != _WHITE_IS_ZERO or picture.mode in ("1", "L"):
        return None
    if picture.mode != "I;16":
        raise FilmError(
            "the polarity of this TIFF is not readable",
            file=file,
            field="PhotometricInterpretation (262)",
            value="WhiteIsZero",
            expected="BlackIsZero, or unsigned pixels of 8 to 16 bits",
            action="export the film again with black as 0",
        )
    return int(2 ** tags[_TIFF_BITS][0] - 1)


def _check_opaque(picture: Image.Image, file: PathLike[str]) -> None:
    lowest, _ = picture.getchannel("A").getextrema()
    if lowest != 255:
        raise FilmError(
            "the picture is partly transparent",
            file=file,
            field="alpha channel",
            value=lowest,
            expected="255 everywhere",
            action="export the film without alpha channel",
        )
