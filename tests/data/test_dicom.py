"""What a DICOM film looks like: bits, sign, LUTs, windows, polarity and padding, against pydicom's own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_factory import CLASSES, lut_item, make_film, ramp, write_film
from pydicom.datadict import tag_for_keyword
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.tag import Tag
from pydicom.uid import UID

from monai_landmark.data.dicom import STORAGE_CLASSES, TRANSFER_SYNTAXES, read_dicom
from monai_landmark.data.dicom_header import ATTRIBUTES
from monai_landmark.data.film import Film
from monai_landmark.errors import FilmError


def _read(tmp_path: Path, pixels=None, apply_voi: bool = True, **options) -> Film:
    return read_dicom(write_film(tmp_path / "film.dcm", pixels, **options), apply_voi=apply_voi)


def test_smoke(tmp_path: Path):
    film = _read(tmp_path, ramp(), bits_stored=12, kind="DX", ViewPosition="AP", BodyPartExamined="PELVIS")
    assert film.pixels.dtype == np.float32 and film.pixels.flags.c_contiguous
    assert film.size == (64, 96)
    assert np.array_equal(film.pixels, ramp())
    assert film.info == {
        "format": "dicom",
        "storage_class": "Digital X-Ray, for presentation",
        "transfer_syntax": "Explicit VR Little Endian",
        "bits_stored": 12,
        "signed": False,
        "inverted": False,
        "voi": "none",
        "padding_fraction": None,
        "modality": "DX",
        "body_part": "PELVIS",
        "view_position": "AP",
        "photometric": "MONOCHROME2",
    }


def test_attribute_table_is_the_dictionary():
    for keyword, shown in ATTRIBUTES.items():
        tag = Tag(tag_for_keyword(keyword))
        assert shown == f"({tag.group:04X},{tag.element:04X})"


def test_class_and_syntax_tables_name_real_uids():
    assert all(UID(uid).name.endswith("Image Storage") or "Image Storage" in UID(uid).name for uid in STORAGE_CLASSES)
    assert all(UID(uid).is_transfer_syntax for uid in TRANSFER_SYNTAXES)


@pytest.mark.parametrize("kind", ["CR", "DX", "MG", "IO", "SC"])
def test_accepted_classes(tmp_path: Path, kind: str):
    assert CLASSES[kind] in STORAGE_CLASSES
    assert np.array_equal(_read(tmp_path, ramp(), kind=kind).pixels, ramp())


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big"])
def test_unsigned_bits(tmp_path: Path, bits: int, syntax: str):
    pixels = ramp(bits=bits)
    assert np.array_equal(_read(tmp_path, pixels, bits_stored=bits, syntax=syntax).pixels, pixels)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "i1"), (10, "i2"), (12, "i2"), (16, "i2")])
def test_signed_bits(tmp_path: Path, bits: int, dtype: str):
    pixels = (ramp(bits=bits).astype(np.int64) - 2 ** (bits - 1)).astype(dtype)
    film = _read(tmp_path, pixels, bits_stored=bits)
    assert np.array_equal(film.pixels, pixels)
    assert film.info["signed"] is True


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_bits_stored_are_ignored(tmp_path: Path, signed: bool):
    values = ramp(bits=12).astype(np.int32) - (2048 if signed else 0)
    rng = np.random.default_rng(0)
    # an old overlay in the four unused bits
    stored = (values & 0x0FFF) | (rng.integers(0, 16, values.shape) << 12)
    pixels = stored.astype(np.uint16).view(np.int16 if signed else np.uint16)
    assert np.array_equal(_read(tmp_path, pixels, bits_stored=12).pixels, values)


def test_odd_number_of_bytes(tmp_path: Path):
    pixels = ramp(5, 7, bits=8).astype(np.uint8)
    assert np.array_equal(_read(tmp_path, pixels).pixels, pixels)


# --- modality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.25, 3), (-1, 4095)])
def test_rescale(tmp_path: Path, slope: float, intercept: float):
    film = _read(tmp_path, ramp(), bits_stored=12, RescaleSlope=slope, RescaleIntercept=intercept)
    assert np.allclose(film.pixels, ramp() * float(slope) + intercept)


@pytest.mark.parametrize("syntax", ["implicit", "explicit"])
def test_modality_lut(tmp_path: Path, syntax: str):
    entries = (np.arange(4096, dtype=np.float64) ** 1.4 % 60000).astype(np.uint16)
    item = lut_item(100, entries, 16)
    film = _read(tmp_path, ramp(), bits_stored=12, syntax=syntax, ModalityLUTSequence=[item])
    expected = apply_modality_lut(ramp(), make_film(ramp(), bits_stored=12, ModalityLUTSequence=[item]))
    assert np.array_equal(film.pixels, expected)


def test_lut_of_signed_pixels_with_unsigned_descriptor(tmp_path: Path):
    pixels = (ramp(bits=12).astype(np.int32) - 2048).astype(np.int16)
    entries = np.arange(4096, dtype=np.uint16)[::-1]
    item = lut_item(2**16 - 2048, entries, 12)  # first input value -2048, written without sign
    film = _read(tmp_path, pixels, bits_stored=12, ModalityLUTSequence=[item])
    assert np.array_equal(film.pixels, 4095 - ramp(bits=12))


def test_lut_of_65536_entries(tmp_path: Path):
    entries = np.arange(2**16, dtype=np.uint16)[::-1]
    film = _read(tmp_path, ramp(bits=16), ModalityLUTSequence=[lut_item(0, entries, 16)])
    assert np.array_equal(film.pixels, 65535 - ramp(bits=16).astype(np.int64))


# --- values of interest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 1000), (100, 50), (2047.5, 1), (4000, 4000)])
def test_window(tmp_path: Path, function: str | None, center: float, width: float):
    tags = {"WindowCenter": center, "WindowWidth": width} | ({"VOILUTFunction": function} if function else {})
    film = _read(tmp_path, ramp(), bits_stored=12, **tags)
    expected = apply_windowing(ramp(), make_film(ramp(), bits_stored=12, **tags))
    assert np.allclose(film.pixels, expected, atol=2e-3)
    assert film.info["voi"] == "window"
    plain = _read(tmp_path, ramp(), bits_stored=12, apply_voi=False, **tags)
    assert np.array_equal(plain.pixels, ramp()) and plain.info["voi"] == "none"


def test_window_after_rescale(tmp_path: Path):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 2000}
    film = _read(tmp_path, ramp(), bits_stored=12, **tags)
    expected = apply_windowing(ramp() * 2.0 - 1000, make_film(ramp(), bits_stored=12, **tags))
    # pydicom spreads the window over the rescaled range, this package over 0..4095: the same film in other units
    assert np.allclose(film.pixels / 4095, (expected + 1000) / (2 * 4095), atol=1e-6)


def test_window_keeps_its_direction_under_a_negative_slope(tmp_path: Path):
    tags = {"RescaleSlope": -1, "RescaleIntercept": 4095, "WindowCenter": 2048, "WindowWidth": 4096}
    film = _read(tmp_path, ramp(), bits_stored=12, **tags)
    # the modality value falls with the stored value, and the window shows large modality values bright
    assert film.pixels[0, 0] > film.pixels[-1, -1]


def test_first_of_several_windows(tmp_path: Path):
    several = _read(tmp_path, ramp(), bits_stored=12, WindowCenter=[2000, 100], WindowWidth=[500, 10])
    one = _read(tmp_path, ramp(), bits_stored=12, WindowCenter=2000, WindowWidth=500)
    assert np.array_equal(several.pixels, one.pixels)


def test_voi_lut_goes_before_the_window(tmp_path: Path):
    entries = np.minimum(np.arange(4096) ** 2 // 300, 65535).astype(np.uint16)
    tags = {"VOILUTSequence": [lut_item(0, entries, 16)], "WindowCenter": 50, "WindowWidth": 20}
    film = _read(tmp_path, ramp(), bits_stored=12, **tags)
    expected = apply_voi_lut(ramp(), make_film(ramp(), bits_stored=12, **tags), prefer_lut=True)
    assert np.array_equal(film.pixels, expected)
    assert film.info["voi"] == "lut"


def test_voi_lut_of_eight_bits_over_twelve_bit_input(tmp_path: Path):
    entries = (np.arange(4096) // 16).astype(np.uint16)
    film = _read(tmp_path, ramp(), bits_stored=12, VOILUTSequence=[lut_item(0, entries, 8)])
    assert np.array_equal(film.pixels, ramp() // 16)


# --- polarity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),  # what the DX family requires: one statement, not two
        ("MONOCHROME1", "IDENTITY", True),
    ],
)
def test_polarity(tmp_path: Path, photometric: str, shape: str | None, inverted: bool):
    tags = {"PhotometricInterpretation": photometric} | ({"PresentationLUTShape": shape} if shape else {})
    film = _read(tmp_path, ramp(), bits_stored=12, kind="DX", **tags)
    assert np.array_equal(film.pixels, 4095 - ramp() if inverted else ramp())
    assert film.info["inverted"] is inverted
    assert film.info["photometric"] == photometric


def test_inversion_comes_after_the_window(tmp_path: Path):
    window = {"WindowCenter": 1000, "WindowWidth": 800}
    normal = _read(tmp_path, ramp(), bits_stored=12, **window)
    inverse = _read(tmp_path, ramp(), bits_stored=12, PhotometricInterpretation="MONOCHROME1", **window)
    assert np.allclose(inverse.pixels, 4095 - normal.pixels, atol=1e-3)


def test_orientation_tags_never_turn_the_film(tmp_path: Path):
    film = _read(tmp_path, ramp(), PatientOrientation=["R", "H"], ViewPosition="PA", ImageLaterality="L")
    assert np.array_equal(film.pixels, ramp())
    assert film.info["laterality"] == "L" and film.info["view_position"] == "PA"


# --- padding ----------------------------------------------------------------------------------------------------------


def _framed(value: int, dtype: str = "u2"):
    pixels = np.full((64, 96), value, dtype)
    pixels[8:-8, 8:-8] = 1000 + ramp(48, 80, bits=8)
    return pixels


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("value", [0, 4095])
def test_padding_is_as_dark_as_the_darkest_film(tmp_path: Path, photometric: str, value: int):
    tags = {"PixelPaddingValue": value, "PhotometricInterpretation": photometric}
    film = _read(tmp_path, _framed(value), bits_stored=12, **tags)
    inside = film.pixels[8:-8, 8:-8]
    assert film.pixels.min() == inside.min() and film.pixels.max() == inside.max()
    assert film.pixels[0, 0] == inside.min()
    assert film.info["padding_fraction"] == pytest.approx(1 - 48 * 80 / (64 * 96))


@pytest.mark.parametrize("limits", [(0, 50), (50, 0)])
def test_padding_range(tmp_path: Path, limits: tuple[int, int]):
    pixels = _framed(30)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = 0, 50, 51
    film = _read(tmp_path, pixels, bits_stored=12, PixelPaddingValue=limits[0], PixelPaddingRangeLimit=limits[1])
    assert film.pixels[0, 2] == film.pixels.min() == 51  # 51 is film, and the darkest of it
    assert film.pixels[0, 0] == film.pixels[0, 1] == film.pixels[1, 1] == 51


@pytest.mark.parametrize("syntax", ["implicit", "explicit"])
def test_signed_padding(tmp_path: Path, syntax: str):
    film = _read(tmp_path, _framed(-2000, "i2"), syntax=syntax, PixelPaddingValue=-2000)
    assert film.pixels.min() == 1000
    assert film.info["padding_fraction"] > 0


def test_padding_written_in_the_other_sign(tmp_path: Path):
    film = make_film(_framed(-2000, "i2"))
    film.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    assert read_dicom(tmp_path / "film.dcm").pixels.min() == 1000


def test_padding_that_is_never_used_changes_nothing(tmp_path: Path):
    film = _read(tmp_path, ramp() // 2, bits_stored=12, PixelPaddingValue=4095)
    assert np.array_equal(film.pixels, ramp() // 2)
    assert film.info["padding_fraction"] == 0


def test_all_padding_is_refused(tmp_path: Path):
    with pytest.raises(FilmError, match=r"PixelPaddingValue \(0028,0120\)"):
        _read(tmp_path, np.zeros((4, 4), "u2"), PixelPaddingValue=0)


# --- RGB --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["explicit", "rle", "j2k", "baseline"])
def test_equal_channels_are_gray(tmp_path: Path, syntax: str):
    gray = ramp(bits=8).astype(np.uint8)
    film = _read(tmp_path, np.stack([gray] * 3, -1), kind="SC", syntax=syntax)
    assert np.abs(film.pixels - gray).max() <= (2 if syntax == "baseline" else 0)


@pytest.mark.parametrize("syntax", ["explicit", "j2k", "baseline"])
def test_color_is_refused(tmp_path: Path, syntax: str):
    gray = ramp(bits=8).astype(np.uint8)
    with pytest.raises(FilmError, match=r"color.*PhotometricInterpretation \(0028,0004\)"):
        _read(tmp_path, np.stack([gray, gray // 2, gray], -1), kind="SC", syntax=syntax)


# --- privacy ----------------------------------------------------------------------------------------------------------


def test_no_patient_data_in_film(tmp_path: Path):
    planted = {
        "PatientName": "Planted^Name",
        "PatientID": "PLANTED-1",
        "PatientBirthDate": "19501231",
        "AccessionNumber": "PLANTED-2",
        "InstitutionName": "Planted Hospital",
        "ReferringPhysicianName": "Planted^Doctor",
        "OperatorsName": "Planted^Operator",
        "StudyDescription": "Planted study",
        "SeriesDescription": "Planted series",
        "PatientComments": "Planted comment",
        "ImageComments": "Planted image",
        "Manufacturer": "Planted maker",
        "StationName": "PLANTED",
        "StudyInstanceUID": "1.2.3.4444",
    }
    path = write_film(tmp_path / "film.dcm", ramp(), **planted)
    assert "planted" not in repr(read_dicom(path)).lower() and "1.2.3.4444" not in repr(read_dicom(path))
    broken = write_film(tmp_path / "broken.dcm", ramp(), raw={"PixelSpacing": "0\\0"}, **planted)
    with pytest.raises(FilmError) as caught:
        read_dicom(broken)
    assert "planted" not in str(caught.value).lower()


def test_warnings_of_pydicom_stay_inside(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    """They quote values of attributes."""
    read_dicom(write_film(tmp_path / "film.dcm", ramp(), raw={"Modality": "no valid code string"}))
    assert not [warning for warning in recwarn if "no valid" in str(warning.message)]
