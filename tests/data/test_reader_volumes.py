"""MetaImage, NRRD and NIfTI that hold one flat film."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_factory import ramp

from monai_landmark.data.reader import read_film
from monai_landmark.data.spacing import FilmSpacing
from monai_landmark.errors import FilmError

FILM = ramp(20, 30)
NAMES = ["film.mha", "film.nrrd", "film.nii", "film.nii.gz"]


def _write(path: Path, pixels=FILM, spacing_xy=(0.2, 0.4), compress: bool = False) -> Path:
    image = sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3 and pixels.shape[-1] == 3)
    image.SetSpacing(tuple(spacing_xy) + (1.0,) * (image.GetDimension() - 2))
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


def _refuse(path: Path, *parts: str) -> None:
    with pytest.raises(FilmError) as caught:
        read_film(path)
    for part in (str(path), "what to do: ", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_written_by_simpleitk(tmp_path: Path, name: str, compress: bool):
    film = read_film(_write(tmp_path / name, compress=compress))
    assert np.array_equal(film.pixels, FILM) and film.pixels.dtype == np.float32
    assert film.spacing.source == "uncalibrated"
    assert film.spacing.mm == pytest.approx((0.4, 0.2))  # (row, col); x is the column


@pytest.mark.parametrize("name", NAMES)
def test_default_spacing_is_none(tmp_path: Path, name: str):
    path = _write(tmp_path / name, spacing_xy=(1, 1))
    assert read_film(path).spacing == FilmSpacing(None, None, "none")
    assert read_film(path, (0.1, 0.1)).spacing == FilmSpacing(0.1, 0.1, "user")


@pytest.mark.parametrize("name", NAMES)
def test_impossible_spacing_is_refused(tmp_path: Path, name: str):
    path = _write(tmp_path / name, spacing_xy=(5.0, 5.0))
    _refuse(path, "spacing", "5.0")
    assert read_film(path, (0.1, 0.1)).spacing.source == "user"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4"])
def test_types(tmp_path: Path, name: str, dtype: str):
    pixels = ramp(20, 30, bits=8).astype(dtype) - (100 if dtype == "i2" else 0)
    assert np.array_equal(read_film(_write(tmp_path / name, pixels)).pixels, pixels)


@pytest.mark.parametrize("name", NAMES)
def test_single_slice(tmp_path: Path, name: str):
    assert np.array_equal(read_film(_write(tmp_path / name, FILM[None])).pixels, FILM)


@pytest.mark.parametrize("name", NAMES)
def test_several_slices_are_refused(tmp_path: Path, name: str):
    _refuse(_write(tmp_path / name, np.stack([FILM] * 4)), "dimensions", "(30, 20, 4)")


@pytest.mark.parametrize("name", ["film.mha", "film.nrrd"])
def test_channels(tmp_path: Path, name: str):
    gray = ramp(20, 30, bits=8).astype(np.uint8)
    assert np.array_equal(read_film(_write(tmp_path / name, np.stack([gray] * 3, -1))).pixels, gray)
    _refuse(_write(tmp_path / name, np.stack([gray, gray, gray // 2], -1)), "color")


@pytest.mark.parametrize("name", ["film.nii", "film.nii.gz"])
def test_nifti_rgb24(tmp_path: Path, name: str):
    gray = ramp(20, 30, bits=8).astype(np.uint8)
    for blue, refused in ((gray, False), (gray // 2, True)):
        pixels = np.zeros((30, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        pixels["R"], pixels["G"], pixels["B"] = gray.T, gray.T, blue.T
        nibabel.save(nibabel.Nifti1Image(pixels, np.diag([0.2, 0.4, 1, 1])), tmp_path / name)
        if refused:
            _refuse(tmp_path / name, "color")
        else:
            assert np.array_equal(read_film(tmp_path / name).pixels, gray)


@pytest.mark.parametrize("name", NAMES)
def test_not_finite_is_refused(tmp_path: Path, name: str):
    pixels = FILM.astype(np.float32)
    pixels[0, 0] = np.inf
    _refuse(_write(tmp_path / name, pixels), "finite")


def test_nifti_axes_and_units(tmp_path: Path):
    image = nibabel.Nifti1Image(FILM.T.astype(np.int16), np.diag([0.2, 0.4, 1, 1]))
    for unit, factor in (("unknown", 1), ("mm", 1), ("micron", 1000), ("meter", 0.001)):
        image.header["pixdim"][1:3] = np.array([0.2, 0.4]) * factor
        image.header.set_xyzt_units(unit)
        # the header's own pixdim must survive: no affine is given again
        nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), tmp_path / "film.nii")
        film = read_film(tmp_path / "film.nii")
        assert np.array_equal(film.pixels, FILM)
        assert film.spacing.mm == pytest.approx((0.4, 0.2)), unit


def test_nifti_scaling(tmp_path: Path):
    image = nibabel.Nifti1Image(FILM.T.astype(np.int16), np.diag([0.2, 0.4, 1, 1]))
    image.header.set_slope_inter(2, -10)
    nibabel.save(image, tmp_path / "film.nii")
    stored = np.asarray(nibabel.load(tmp_path / "film.nii").dataobj).T
    assert np.allclose(read_film(tmp_path / "film.nii").pixels, stored)


@pytest.mark.parametrize("name", NAMES)
def test_bomb_is_refused_before_reading(tmp_path: Path, name: str):
    path = _write(tmp_path / name)
    data = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    if ".nii" in name:
        data = data[:42] + np.array([32000, 32000], "<i2").tobytes() + data[46:]
    else:
        data = data.replace(b"30 20", b"60000 60000")
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    _refuse(path, "dimensions", "32000 x 32000" if ".nii" in name else "60000 x 60000")


@pytest.mark.parametrize("name", NAMES)
def test_truncated(tmp_path: Path, name: str):
    path = _write(tmp_path / name)
    data = path.read_bytes()
    for length in (3, 40, len(data) // 2, len(data) - 9):
        path.write_bytes(data[:length])
        _refuse(path)


def test_pixels_in_another_file_are_refused(tmp_path: Path):
    """A header must not make the reader open whatever it names."""
    (tmp_path / "secret.raw").write_bytes(b"\x07" * 600)
    head = "ObjectType = Image\nNDims = 2\nDimSize = 30 20\nElementType = MET_UCHAR\nElementSpacing = 0.1 0.1\n"
    (tmp_path / "film.mha").write_text(head + "ElementDataFile = secret.raw\n")
    _refuse(tmp_path / "film.mha", "another file")
    (tmp_path / "list.mha").write_text(head + "ElementDataFile = LIST\nsecret.raw\n")
    _refuse(tmp_path / "list.mha", "another file")
    (tmp_path / "hidden.mha").write_text(
        "Comment = ElementDataFile = LOCAL\n" + head + "ElementDataFile = secret.raw\n"
    )
    _refuse(tmp_path / "hidden.mha", "another file")
    for link in ("data file", "datafile", "Data File", "#" * 70000 + "\ndata file"):
        nrrd = f"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 30 20\nencoding: raw\n{link}: secret.raw\n\n"
        (tmp_path / "film.nrrd").write_text(nrrd)
        _refuse(tmp_path / "film.nrrd", "another file")
