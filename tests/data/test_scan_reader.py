"""CT scans: geometry, orientation, DICOM series, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import generate_uid
from scan_factory import PLACES, SIZE, affine_of, write_nifti, write_series

from monai_landmark.data.scan import axial_view, grids_apart_mm
from monai_landmark.data.scan_reader import ScanCache, find_scans, read_labels, read_scan
from monai_landmark.errors import AnnotationError, ScanError


def world_of_slices(path: Path) -> NDArray[np.float64]:
    """RAS places of the axial view's first voxel and its neighbors along slice, row and column."""
    scan = read_scan(path)
    index = np.stack(np.meshgrid(*map(np.arange, scan.shape), indexing="ij"))
    places = np.einsum("ab,bijk->aijk", scan.affine[:3, :3], index) + scan.affine[:3, 3][:, None, None, None]
    views = np.stack([axial_view(part, scan.affine) for part in places])
    origin = views[:, 0, 0, 0]
    return np.stack([views[:, 1, 0, 0] - origin, views[:, 0, 1, 0] - origin, views[:, 0, 0, 1] - origin])


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "RPI", "SPL", "IAR", "PSR"])
@pytest.mark.parametrize("oblique", [0.0, 12.0])
def test_slices_go_from_feet_to_head_front_to_back_right_to_left(tmp_path: Path, axes: str, oblique: float) -> None:
    up, back, left = world_of_slices(write_nifti(tmp_path / "scan.nii.gz", affine_of(axes, oblique=oblique)))
    tolerance = np.cos(np.radians(20))
    for step, towards in ((up, (0, 0, 1)), (back, (0, -1, 0)), (left, (-1, 0, 0))):
        assert step @ np.array(towards) / np.linalg.norm(step) > tolerance
    scan = read_scan(tmp_path / "scan.nii.gz")
    assert scan.slice_mm == pytest.approx(np.linalg.norm(up))
    assert scan.spacing_mm == pytest.approx((np.linalg.norm(back), np.linalg.norm(left)))


def test_what_is_written_into_a_slice_lies_in_the_files_own_order(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii.gz", affine_of("PSR", oblique=8)))
    labels = np.zeros(scan.shape, dtype=np.uint8)
    view = axial_view(labels, scan.affine)
    view[2] = scan.slices[2] > 300
    expected = np.zeros_like(labels)
    axial_view(expected, scan.affine)[2] = axial_view(np.asarray(scan.stored) > 300, scan.affine)[2]
    assert labels.sum() > 0 and np.array_equal(labels, expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_values_are_the_files_with_slope_and_intercept(tmp_path: Path, suffix: str) -> None:
    stored = np.random.default_rng(1).integers(0, 2500, SIZE).astype(np.uint16)
    image = nibabel.Nifti1Image(stored, affine_of("LPS"))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / f"scan{suffix}")
    raw = nibabel.load(tmp_path / f"scan{suffix}")
    scan = read_scan(tmp_path / f"scan{suffix}")
    expected = axial_view(raw.get_fdata(), raw.affine)
    found = np.stack([scan.slice(index) for index in range(len(scan))])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert isinstance(scan.stored, np.memmap) == (suffix == ".nii")


def broken_nifti(folder: Path, how: str) -> Path:
    path = write_nifti(folder / "scan.nii.gz", affine_of("LPS"))
    if how == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif how == "changed":
        content = bytearray(path.read_bytes())
        content[-6] ^= 0xFF  # the checksum
        path.write_bytes(bytes(content))
    elif how == "no geometry":
        image = nibabel.load(path)
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)
        nibabel.save(image, path)
    elif how == "shear":
        matrix = affine_of("LPS")
        matrix[0, 2] += 0.4
        write_nifti(path, matrix)
    elif how == "tiny":
        write_nifti(path, affine_of("LPS", steps=(0.001, 0.9, 2.5)))
    elif how == "scaled":
        write_nifti(path, affine_of("LPS"), np.random.default_rng(0).random(SIZE).astype(np.float32))
    elif how == "nan":
        voxels = np.full(SIZE, -1000.0, dtype=np.float32)
        voxels[0, 0, 0] = np.nan
        write_nifti(path, affine_of("LPS"), voxels)
    elif how == "flat":
        write_nifti(path, affine_of("LPS"), np.zeros((10, 8, 1), dtype=np.int16))
    elif how == "text":
        path.write_bytes(gzip.compress(b"not a scan"))
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "broken or cut short"),
        ("changed", "broken or cut short"),
        ("text", "broken or cut short"),
        ("no geometry", "does not say how the scan lies"),
        ("shear", "not at right angles"),
        ("tiny", "voxel size is impossible"),
        ("scaled", "not Hounsfield units"),
        ("nan", "not a finite number"),
        ("flat", "not one volume"),
    ],
)
def test_broken_nifti_is_refused_with_its_name(tmp_path: Path, how: str, says: str) -> None:
    path = broken_nifti(tmp_path, how)
    with pytest.raises(ScanError, match=says) as refusal:
        read_scan(path)
    assert str(path) in str(refusal.value) and refusal.value.action


def test_labels_must_lie_on_their_scan(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii.gz", affine_of("LPS")))
    labels = np.ones(SIZE, dtype=np.uint8)
    assert read_labels(write_nifti(tmp_path / "same.nii.gz", scan.affine, labels), scan).sum() == labels.size
    moved = scan.affine.copy()
    moved[2, 3] += 0.5
    with pytest.raises(AnnotationError, match="do not lie on their scan") as refusal:
        read_labels(write_nifti(tmp_path / "moved.nii.gz", moved, labels), scan)
    assert refusal.value.field == "affine" and "0.5 mm apart" in str(refusal.value)
    with pytest.raises(AnnotationError, match="do not lie on their scan") as refusal:
        read_labels(write_nifti(tmp_path / "other.nii.gz", scan.affine, labels[:-1]), scan)
    assert refusal.value.field == "shape"
    with pytest.raises(AnnotationError, match="not whole numbers"):
        read_labels(write_nifti(tmp_path / "soft.nii.gz", scan.affine, np.full(SIZE, 0.5, dtype=np.float32)), scan)


def test_series_becomes_a_scan_in_the_patients_space(tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", PLACES)
    scan = read_scan(tmp_path / "series")
    assert scan.shape == (SIZE[0], SIZE[1], 5) and scan.files == tuple(files)
    np.testing.assert_allclose(scan.affine[:3, 3], [20, 15, 100])  # RAS
    assert scan.spacing_mm == pytest.approx((0.9, 0.8)) and scan.slice_mm == pytest.approx(2.5)
    for index, file in enumerate(files):
        stored = pydicom.dcmread(file).pixel_array.astype(np.float32) - 1024
        np.testing.assert_array_equal(scan.slice(index), stored)


def test_order_of_files_does_not_matter(tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", [107.5, 100.0, 110.0, 105.0, 102.5])
    scan = read_scan(tmp_path / "series")
    assert [float(scan.slice(k)[0, 0]) + 1024 for k in range(5)] == [100, 102, 105, 107, 110]
    assert scan.files == tuple(files[n] for n in (1, 4, 3, 0, 2))


@pytest.mark.parametrize(
    ("places", "changes", "says"),
    [
        ([100, 102.5, 107.5, 110, 112.5], {}, "slices are missing: 1"),
        ([100, 102.5, 103.5, 106, 108.5], {}, "not evenly spaced"),
        ([100, 102.5, 105, 105, 107.5], {}, "two slices lie at one place"),
        (PLACES, {"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, "differ in direction"),
        (PLACES, {"PixelSpacing": [1.1, 0.8]}, "differ in direction or spacing"),
        (PLACES, {"Rows": 4}, "differ in size"),
        (PLACES, {"Modality": "MR"}, "not a CT slice"),
        (PLACES, {"SeriesInstanceUID": generate_uid()}, "not one DICOM series"),
        (PLACES, {"ImagePositionPatient": [-20.0, -10.0, 110.0]}, "tilted gantry"),
    ],
)
def test_a_series_that_is_no_even_stack_is_refused(
    tmp_path: Path, places: list[float], changes: dict[str, Any], says: str
) -> None:
    write_series(tmp_path / "series", places, **changes)
    with pytest.raises(ScanError, match=says) as refusal:
        read_scan(tmp_path / "series")
    assert refusal.value.field and refusal.value.action and refusal.value.value is not None


def test_find_scans_takes_files_and_series(tmp_path: Path) -> None:
    write_series(tmp_path / "b" / "series", PLACES)
    (tmp_path / "a").mkdir()
    write_nifti(tmp_path / "a" / "scan.nii.gz", affine_of("LPS"))
    assert [item["id"] for item in find_scans(tmp_path)] == ["a/scan", "b/series"]
    assert [item["id"] for item in find_scans(tmp_path / "a" / "scan.nii.gz")] == ["scan"]
    with pytest.raises(ScanError, match="there is no scan"):
        find_scans(tmp_path / "nowhere")


def test_cache_closes_what_was_used_least(tmp_path: Path) -> None:
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii.gz", affine_of("LPS"))
    cache = ScanCache(megabytes=0)
    first = cache.scan(tmp_path / "a.nii.gz")
    assert cache.scan(tmp_path / "a.nii.gz") is first
    cache.scan(tmp_path / "b.nii.gz")
    assert cache.scan(tmp_path / "a.nii.gz") is not first


def test_distance_of_grids_is_that_of_their_corners() -> None:
    one, other = affine_of("LPS"), affine_of("LPS")
    other[:3, 3] += (0, 3, 4)
    assert grids_apart_mm(one, other, SIZE) == pytest.approx(5)
