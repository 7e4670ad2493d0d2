"""Every DICOM file that is not one gray radiograph is refused with file, tag, value and what to do."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import lut_item, make_film, ramp, write_film
from pydicom.data import get_testdata_file

from monai_landmark.data.dicom import read_dicom
from monai_landmark.errors import FilmError


def _refuse(path: Path, *parts: str) -> str:
    """The message of the refusal; it names the file, says what to do, and holds all ``parts``."""
    with pytest.raises(FilmError) as caught:
        read_dicom(path)
    message = str(caught.value)
    for part in (str(path), "what to do: ", *parts):
        assert part in message
    return message


REFUSED_TAGS = [
    ({"NumberOfFrames": 2}, "NumberOfFrames (0028,0008)", "2"),
    ({"NumberOfFrames": 0}, "NumberOfFrames (0028,0008)", "0"),
    ({"Rows": 60000, "Columns": 60000}, "Rows (0028,0010)", "60000 x 60000"),
    ({"Rows": 0}, "Rows (0028,0010)", "0 x 96"),
    ({"Rows": None}, "Rows (0028,0010)", "missing"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation (0028,0004)", "PALETTE COLOR"),
    ({"PhotometricInterpretation": None}, "PhotometricInterpretation (0028,0004)", "not gray"),
    ({"SamplesPerPixel": 3}, "PhotometricInterpretation (0028,0004)", "3 sample(s)"),
    ({"BitsAllocated": 32}, "BitsAllocated (0028,0100)", "32"),
    ({"BitsAllocated": 1}, "BitsAllocated (0028,0100)", "1"),
    ({"BitsStored": 17}, "BitsStored (0028,0101)", "17"),
    ({"BitsStored": 0}, "BitsStored (0028,0101)", "0"),
    ({"BitsStored": 12, "HighBit": 15}, "HighBit (0028,0102)", "15"),
    ({"PixelRepresentation": 2}, "PixelRepresentation (0028,0103)", "2"),
    ({"PixelData": None}, "PixelData (7FE0,0010)", "no pixels"),
    ({"PixelData": b""}, "PixelData (7FE0,0010)", "no pixels"),
    ({"SOPClassUID": None}, "SOPClassUID (0008,0016)", "radiograph"),
    ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope (0028,1053)", "0"),
    ({"WindowCenter": 10}, "WindowWidth (0028,1051)", "width"),
    ({"WindowWidth": 10}, "WindowCenter (0028,1050)", "center"),
    ({"WindowCenter": 10, "WindowWidth": 0.5}, "WindowWidth (0028,1051)", "0.5"),
    ({"WindowCenter": 10, "WindowWidth": -5, "VOILUTFunction": "SIGMOID"}, "WindowWidth (0028,1051)", "-5"),
    ({"WindowCenter": 10, "WindowWidth": 5, "VOILUTFunction": "CUBIC"}, "VOILUTFunction (0028,1056)", "CUBIC"),
]


@pytest.mark.parametrize(("tags", "field", "value"), REFUSED_TAGS)
def test_refused_tag(tmp_path: Path, tags: dict, field: str, value: str):
    _refuse(write_film(tmp_path / "film.dcm", ramp(), **tags), field, value)


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        *(("RescaleSlope", "NaN"), ("RescaleIntercept", "inf"), ("WindowCenter", "NaN"), ("WindowWidth", "1e999")),
        *(("RescaleSlope", "abc"), ("NumberOfFrames", "two"), ("WindowCenter", "\\5")),
    ],
)
def test_refused_number(tmp_path: Path, keyword: str, text: str):
    tags = {"RescaleSlope": 1, "RescaleIntercept": 0, "WindowCenter": 10, "WindowWidth": 10}
    _refuse(write_film(tmp_path / "film.dcm", ramp(), raw={keyword: text}, **tags), f"{keyword} (0028,")


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
def test_short_look_up_table(tmp_path: Path, keyword: str):
    item = lut_item(0, np.arange(4096), 16)
    item.LUTData = item.LUTData[:-2]
    _refuse(write_film(tmp_path / "film.dcm", ramp(), **{keyword: [item]}), keyword, "4096 entries")
    del item.LUTData
    _refuse(write_film(tmp_path / "film.dcm", ramp(), **{keyword: [item]}), keyword)


def test_other_objects_are_refused_by_name(tmp_path: Path):
    _refuse(write_film(tmp_path / "film.dcm", ramp(), kind="CT"), "SOPClassUID (0008,0016)", "CT Image Storage")
    for name in ("rtplan.dcm", "test-SR.dcm", "MR_small.dcm"):
        _refuse(Path(get_testdata_file(name, download=False)), "SOPClassUID (0008,0016)")


def test_size_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("monai_landmark.data.dicom.pixel_array", lambda *_, **__: pytest.fail("decoded"))
    _refuse(write_film(tmp_path / "film.dcm", ramp(), Rows=60000, Columns=60000), "60000 x 60000")


@pytest.mark.parametrize("syntax", ["j2k", "baseline", "lossless"])
def test_bomb_inside_the_codestream(tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch):
    """The header says 64 x 96, the compressed image 60,000 x 60,000."""
    path = write_film(tmp_path / "film.dcm", ramp(bits=8).astype(np.uint8), syntax=syntax)
    data = path.read_bytes()
    if syntax == "j2k":
        bomb = data.replace(struct.pack(">2I", 96, 64), struct.pack(">2I", 60000, 60000), 1)
    else:
        bomb = data.replace(struct.pack(">2H", 64, 96), struct.pack(">2H", 60000, 60000))
    assert bomb != data
    path.write_bytes(bomb)
    monkeypatch.setattr("monai_landmark.data.dicom.pixel_array", lambda *_, **__: pytest.fail("decoded"))
    _refuse(path, "PixelData (7FE0,0010)", "(60000, 60000)", "(64, 96)")


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "rle", "j2k", "baseline", "lossless"])
def test_truncated_anywhere(tmp_path: Path, syntax: str):
    path = write_film(tmp_path / "film.dcm", ramp(bits=8).astype(np.uint8), syntax=syntax)
    data = path.read_bytes()
    # a compressed film ends in a delimiter whose last 4 bytes are zero and say nothing
    end = len(data) - (1 if syntax in ("explicit", "implicit") else 5)
    for length in [1, 100, 131, 132, 140, 200, *range(300, end, max(1, len(data) // 40)), end]:
        path.write_bytes(data[:length])
        _refuse(path)


def test_empty_file_folder_and_nothing(tmp_path: Path):
    (tmp_path / "empty.dcm").touch()
    _refuse(tmp_path / "empty.dcm", "empty")
    _refuse(tmp_path, "folder")
    _refuse(tmp_path / "absent.dcm", "no such file")


def test_not_dicom_with_its_name(tmp_path: Path):
    (tmp_path / "film.dcm").write_bytes(b"this is a letter, not a film" * 20)
    _refuse(tmp_path / "film.dcm", "DICM")


def test_without_preamble_is_never_forced(tmp_path: Path):
    data = write_film(tmp_path / "film.dcm", ramp(), PixelSpacing=[0.1, 0.1]).read_bytes()
    (tmp_path / "film.dcm").write_bytes(data[132:])
    _refuse(tmp_path / "film.dcm", "DICM")


def test_without_transfer_syntax(tmp_path: Path):
    source = get_testdata_file("meta_missing_tsyntax.dcm", download=False)
    _refuse(Path(source), "TransferSyntaxUID (0002,0010)")


def test_uncompressed_pixels_too_few(tmp_path: Path):
    film = make_film(ramp())
    film.Rows = 65
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    _refuse(tmp_path / "film.dcm", "PixelData (7FE0,0010)", "cut short")


def test_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("monai_landmark.data.dicom._DECODERS", ())
    _refuse(write_film(tmp_path / "film.dcm", ramp(), syntax="j2k"), "JPEG 2000", "install pylibjpeg")


def test_huge_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_film(tmp_path / "film.dcm", ramp())
    monkeypatch.setattr("monai_landmark.data.film.MAX_FILE_BYTES", 1000)
    _refuse(path, "too large", "bytes")


def test_mutated_files_raise_one_error_type(tmp_path: Path):
    """Flipped bytes in the header: the film is read or refused, nothing else happens."""
    path = write_film(tmp_path / "film.dcm", ramp(8, 8), PixelSpacing=[0.1, 0.1], WindowCenter=10, WindowWidth=10)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        mutant = bytearray(data)
        for position in rng.integers(128, len(data), rng.integers(1, 4)):
            mutant[position] = rng.integers(256)
        path.write_bytes(bytes(mutant))
        try:
            read_dicom(path)
            outcomes["read"] += 1
        except FilmError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
    assert outcomes["read"] > 50 and outcomes["refused"] > 50
