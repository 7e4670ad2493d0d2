"""PNG, JPEG, TIFF, BMP and JPEG 2000: depth, polarity, orientation, color, and what is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import ramp
from numpy.typing import NDArray
from PIL import Image

from monai_landmark.data.film import Film
from monai_landmark.data.reader import read_film
from monai_landmark.data.spacing import FilmSpacing
from monai_landmark.errors import FilmError

GRAY8, GRAY16 = ramp(bits=8).astype(np.uint8), ramp(bits=16)


def _saved(tmp_path: Path, image, name: str, **options) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(tmp_path / name, **options)
    return tmp_path / name


def _refuse(path: Path, *parts: str) -> None:
    with pytest.raises(FilmError) as caught:
        read_film(path)
    for part in (str(path), "what to do: ", *parts):
        assert part in str(caught.value)


def write_tiff(path: Path, pixels: NDArray, photometric: int = 1, orientation: int = 1, big: bool = False) -> Path:
    """A plain TIFF written by hand, with the tags that Pillow will not write."""
    order = ">" if big else "<"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    rows, columns = pixels.shape
    tags = [(256, columns), (257, rows), (258, pixels.dtype.itemsize * 8), (259, 1), (262, photometric), (273, 8)]
    tags += [(274, orientation), (277, 1), (278, rows), (279, len(data))]
    directory = struct.pack(order + "H", len(tags))
    directory += b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"MM\x00*" if big else b"II*\x00") + struct.pack(order + "I", 8 + len(data))
    path.write_bytes(head + data + directory + struct.pack(order + "I", 0))
    return path


@pytest.mark.parametrize("name", ["film.png", "film.tif", "film.bmp", "film.jp2"])
def test_eight_bits(tmp_path: Path, name: str):
    film = read_film(_saved(tmp_path, GRAY8, name))
    assert isinstance(film, Film) and film.pixels.dtype == np.float32
    assert np.array_equal(film.pixels, GRAY8)
    assert film.spacing == FilmSpacing(None, None, "none")


def test_jpeg(tmp_path: Path):
    film = read_film(_saved(tmp_path, GRAY8, "film.jpg", quality=95))
    assert film.size == GRAY8.shape
    assert np.abs(film.pixels - GRAY8).max() <= 2


@pytest.mark.parametrize("name", ["film.png", "film.tif", "film.jp2"])
def test_sixteen_bits(tmp_path: Path, name: str):
    assert np.array_equal(read_film(_saved(tmp_path, GRAY16, name)).pixels, GRAY16)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(tmp_path: Path, compression: str):
    path = _saved(tmp_path, GRAY16, "film.tif", compression=compression)
    assert np.array_equal(read_film(path).pixels, GRAY16)


def test_dots_per_inch_are_no_spacing(tmp_path: Path):
    for name in ("film.png", "film.tif", "film.jpg"):
        path = _saved(tmp_path, GRAY8, name, dpi=(254, 254))  # would be 0.1 mm
        assert read_film(path).spacing.source == "none"
        assert read_film(path, (0.2, 0.3)).spacing == FilmSpacing(0.2, 0.3, "user")


@pytest.mark.parametrize("values", [(0.1,), (0, 0), (0.1, float("nan"))])
def test_spacing_of_the_user_is_checked(tmp_path: Path, values):
    with pytest.raises(FilmError, match="spacing_mm"):
        read_film(_saved(tmp_path, GRAY8, "film.png"), values)


def test_content_counts_not_the_suffix(tmp_path: Path):
    path = _saved(tmp_path, GRAY8, "film.png").rename(tmp_path / "film.dcm")
    assert np.array_equal(read_film(path).pixels, GRAY8)


# --- orientation and polarity -----------------------------------------------------------------------------------------

# EXIF orientation -> how an upright picture was turned before it was stored with that number
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["film.png", "film.jpg"])
def test_exif_orientation(tmp_path: Path, name: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](GRAY8))
    film = read_film(_saved(tmp_path, stored, name, exif=exif, **({"quality": 95} if "jpg" in name else {})))
    assert film.size == GRAY8.shape
    assert np.abs(film.pixels - GRAY8).max() <= (3 if "jpg" in name else 0)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("dtype", "big"), [("u1", False), ("u1", True), ("u2", False)])
def test_tiff_orientation_and_polarity(tmp_path: Path, orientation: int, photometric: int, dtype: str, big: bool):
    upright = GRAY8 if dtype == "u1" else GRAY16
    shown = upright if photometric == 1 else np.iinfo(dtype).max - upright
    path = write_tiff(
        tmp_path / "film.tif", np.ascontiguousarray(STORED[orientation](upright)), photometric, orientation, big
    )
    film = read_film(path)
    assert film.size == upright.shape
    assert np.array_equal(film.pixels, shown)


# --- color and transparency -------------------------------------------------------------------------------------------


def test_gray_in_other_clothes(tmp_path: Path):
    gray = Image.fromarray(GRAY8)
    rgb = Image.merge("RGB", [gray] * 3)
    opaque = Image.new("L", gray.size, 255)
    palette = gray.convert("P")
    for number, image in enumerate(
        [rgb, Image.merge("RGBA", [gray] * 3 + [opaque]), Image.merge("LA", [gray, opaque]), palette]
    ):
        film = read_film(_saved(tmp_path, image, f"film{number}.png"))
        assert np.array_equal(film.pixels, GRAY8), image.mode
    assert np.abs(read_film(_saved(tmp_path, rgb, "film.jpg", quality=95)).pixels - GRAY8).max() <= 2


def test_color_is_refused(tmp_path: Path):
    photo = np.stack([GRAY8, GRAY8[::-1], GRAY8], -1)
    _refuse(_saved(tmp_path, photo, "photo.png"), "color")
    _refuse(_saved(tmp_path, photo, "photo.jpg"), "color")
    _refuse(_saved(tmp_path, Image.fromarray(photo).quantize(16), "photo_palette.png"), "color")
    _refuse(_saved(tmp_path, Image.fromarray(photo).convert("CMYK"), "cmyk.jpg"), "CMYK")


def test_one_colored_pixel_is_refused(tmp_path: Path):
    marked = np.stack([GRAY8] * 3, -1)
    marked[3, 5] = (255, 0, 0)
    _refuse(_saved(tmp_path, marked, "film.png"), "color", "channels differ by up to")


def test_transparency_is_refused(tmp_path: Path):
    alpha = np.full_like(GRAY8, 255)
    alpha[0, 0] = 0
    image = Image.merge("LA", [Image.fromarray(GRAY8), Image.fromarray(alpha)])
    _refuse(_saved(tmp_path, image, "film.png"), "alpha channel", "0")


def test_mask_is_refused(tmp_path: Path):
    _refuse(_saved(tmp_path, Image.fromarray(GRAY8 > 100), "mask.png"), "color mode", "'1'")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    head = _png_chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _png_chunk(b"IDAT", zlib.compress(rows)) + _png_chunk(b"IEND", b"")


@pytest.mark.parametrize(("color", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_deep_color_would_lose_bits_and_is_refused(tmp_path: Path, color: int, samples: int):
    (tmp_path / "film.png").write_bytes(_png(4, 2, 16, color, (b"\0" + b"\xff" * 8 * samples) * 2))
    _refuse(tmp_path / "film.png", "16 bit gray")


def test_white_is_zero_of_unreadable_depth_is_refused(tmp_path: Path):
    path = write_tiff(tmp_path / "film.tif", ramp().astype(np.uint32), photometric=0)
    _refuse(path)


def test_float_tiff(tmp_path: Path):
    pixels = GRAY16.astype(np.float32) / 7
    assert np.array_equal(read_film(_saved(tmp_path, pixels, "film.tif")).pixels, pixels)
    pixels[0, 0] = np.nan
    _refuse(_saved(tmp_path, pixels, "film.tif"), "finite")


# --- broken -----------------------------------------------------------------------------------------------------------


def test_pages_are_refused(tmp_path: Path):
    page = Image.fromarray(GRAY8)
    for name in ("film.tif", "film.png"):
        page.save(tmp_path / name, save_all=True, append_images=[Image.fromarray(GRAY8[::-1])])
        _refuse(tmp_path / name, "pages", "2")


def test_bomb_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    (tmp_path / "bomb.png").write_bytes(_png(60000, 60000, 8, 0, b"\0" * 100))
    _refuse(tmp_path / "bomb.png", "image size")
    # below Pillow's own limit, above ours
    (tmp_path / "large.png").write_bytes(_png(10000, 10000, 8, 0, b"\0" * 100))
    _refuse(tmp_path / "large.png", "image size", "10000 x 10000")


def test_tiff_bomb_is_refused(tmp_path: Path):
    path = write_tiff(tmp_path / "bomb.tif", GRAY8)
    data = path.read_bytes()
    bomb = data.replace(struct.pack("<HHII", 256, 4, 1, 96), struct.pack("<HHII", 256, 4, 1, 60000))
    path.write_bytes(bomb.replace(struct.pack("<HHII", 257, 4, 1, 64), struct.pack("<HHII", 257, 4, 1, 60000)))
    _refuse(path, "image size")


@pytest.mark.parametrize("name", ["film.png", "film.jpg", "film.tif", "film.bmp", "film.jp2"])
def test_truncated_anywhere(tmp_path: Path, name: str):
    rng = np.random.default_rng(0)
    path = _saved(tmp_path, rng.integers(0, 256, (64, 96), dtype=np.uint8), name)
    data = path.read_bytes()
    for length in (1, 10, 60, len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        path.write_bytes(data[:length])
        _refuse(path)
