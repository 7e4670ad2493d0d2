"""Every compression that the reader promises, decoded to known pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import ramp, write_film
from jpeg_lossless import encode_jpeg_lossless
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from monai_landmark.data.codestream import codestream_size
from monai_landmark.data.dicom import TRANSFER_SYNTAXES, read_dicom
from monai_landmark.errors import FilmError

NEEDS_ENCODER = {"jpegls": "jpeg_ls"}


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("syntax", ["rle", "j2k", "jpegls", "lossless"])
def test_lossless(tmp_path: Path, syntax: str, bits: int):
    if syntax in NEEDS_ENCODER:
        pytest.importorskip(NEEDS_ENCODER[syntax])
    pixels = ramp(bits=bits).astype("u1" if bits == 8 else "u2")
    film = read_dicom(write_film(tmp_path / "film.dcm", pixels, bits_stored=bits, syntax=syntax))
    assert np.array_equal(film.pixels, pixels)


@pytest.mark.parametrize("syntax", ["rle", "j2k"])
def test_lossless_signed(tmp_path: Path, syntax: str):
    pixels = (ramp(bits=12).astype(np.int32) - 2048).astype(np.int16)
    film = read_dicom(write_film(tmp_path / "film.dcm", pixels, bits_stored=12, syntax=syntax))
    assert np.array_equal(film.pixels, pixels)


def test_jpeg_baseline(tmp_path: Path):
    pixels = ramp(bits=8).astype(np.uint8)
    film = read_dicom(write_film(tmp_path / "film.dcm", pixels, syntax="baseline"))
    assert np.abs(film.pixels - pixels).max() <= 2
    assert film.info["transfer_syntax"] == "JPEG Baseline"


def _as_secondary_capture(name: str, tmp_path: Path) -> Path:
    """A file that comes with pydicom, its class changed to one that the reader takes."""
    source = get_testdata_file(name, download=False)
    if source is None:
        pytest.skip(f"this pydicom has no {name}")
    dataset = dcmread(source)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.pop("PixelSpacing", None)
    dataset.save_as(tmp_path / "film.dcm")
    return tmp_path / "film.dcm"


def test_jpeg_extended_of_twelve_bits(tmp_path: Path):
    film = read_dicom(_as_secondary_capture("JPGExtended.dcm", tmp_path), apply_voi=False)
    assert film.info["transfer_syntax"] == "JPEG Extended" and film.info["bits_stored"] == 12
    # the same kind of scan compressed by JPEG 2000 is the independent reference
    reference = read_dicom(_as_secondary_capture("JPEG2000.dcm", tmp_path), apply_voi=False)
    assert film.size == reference.size == (1024, 256)
    assert np.corrcoef(film.pixels.ravel(), reference.pixels.ravel())[0, 1] > 0.9
    assert np.corrcoef(film.pixels.ravel(), reference.pixels[::-1].ravel())[0, 1] < 0.8


@pytest.mark.parametrize("name", ["JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"])
def test_jpeg_ls_near_lossless(tmp_path: Path, name: str):
    path = _as_secondary_capture(name, tmp_path)
    film = read_dicom(path, apply_voi=False)
    expected = dcmread(path).pixel_array
    assert film.info["transfer_syntax"] == "JPEG-LS Near-Lossless"
    assert film.pixels.max() > film.pixels.min() and np.array_equal(film.pixels, expected)


def test_every_promised_syntax_has_a_test():
    tested = {"JPEG Baseline", "JPEG Extended", "JPEG Lossless SV1", "JPEG-LS Lossless", "JPEG-LS Near-Lossless"}
    tested |= {"JPEG 2000 Lossless", "JPEG 2000", "RLE Lossless"}
    compressed = {name for uid, name in TRANSFER_SYNTAXES.items() if UID(uid).is_compressed}
    # process 14 without the restriction to predictor 1 is the same decoder
    assert compressed - tested == {"JPEG Lossless"}


def test_deflated_is_refused_with_the_way_out(tmp_path: Path):
    path = Path(get_testdata_file("image_dfl.dcm", download=False) or pytest.skip("this pydicom has no deflated file"))
    with pytest.raises(FilmError, match=r"TransferSyntaxUID \(0002,0010\).*Deflated.*Explicit VR Little Endian"):
        read_dicom(path)


def _jpeg(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def test_codestream_size():
    gray = Image.fromarray(ramp(40, 70, bits=8).astype(np.uint8))
    assert codestream_size(_jpeg(gray, format="JPEG")) == (40, 70)
    assert codestream_size(_jpeg(gray, format="JPEG", progressive=True, comment=b"x" * 500)) == (40, 70)
    assert codestream_size(_jpeg(gray, format="JPEG2000")) == (40, 70)
    assert codestream_size(_jpeg(gray, format="JPEG2000", no_jp2=True)) == (40, 70)
    assert codestream_size(encode_jpeg_lossless(ramp(40, 70), 12)) == (40, 70)
    jpeg = _jpeg(gray, format="JPEG")
    assert codestream_size(b"\xff\xd8\xff\xff" + jpeg[3:]) == (40, 70)  # fill bytes before a marker


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x02", b"nonsense", b"\xff\x4f\xff\x51", b"\0" * 40]
)
def test_codestream_without_frame_header(data: bytes):
    assert codestream_size(data) is None
