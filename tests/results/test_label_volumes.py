"""Label volumes lie on their scans: geometry in several programs, neighbors, cleaning, scores and the report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scan_factory import PLACES, SIZE, affine_of, write_nifti, write_series

from monai_landmark.data.organs import FLARE2022
from monai_landmark.data.scan import grids_apart_mm
from monai_landmark.data.scan_list import load_scans
from monai_landmark.data.scan_reader import SCANS, read_scan
from monai_landmark.data.synthetic_bodies import write_synthetic_bodies
from monai_landmark.data.volume_slices import slices_to_segment
from monai_landmark.errors import DataError
from monai_landmark.metrics.organ_overlap import organ_scores
from monai_landmark.results.label_files import LabelWriter, write_label_nifti
from monai_landmark.results.label_volumes import LabeledScan, VolumeCollector, keep_largest
from monai_landmark.results.organ_report import OrganReport
from monai_landmark.transforms import FitFilm, LoadSliced

AXES = ["LPS", "RAS", "RPI", "SPL", "AIL"]


def corners(image: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Places of the corners of an ITK image in RAS, mm."""
    index = np.array(np.meshgrid(*[(0, side - 1) for side in shape], indexing="ij")).reshape(3, -1).T
    return np.array([image.TransformIndexToPhysicalPoint([int(i) for i in one]) for one in index]) * (-1, -1, 1)


def labels_of(path: Path) -> LabeledScan:
    scan = read_scan(path)
    labels = np.asfortranarray(np.random.default_rng(0).integers(0, 14, scan.shape).astype(np.uint8))
    return LabeledScan({"id": "scan"}, scan, labels, FLARE2022)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("oblique", [0.0, 17.0])
@pytest.mark.parametrize("codes", [(1, 2), (0, 2), (1, 0)])
def test_label_volume_lies_on_its_scan_in_nibabel_and_simpleitk(
    tmp_path: Path, axes: str, oblique: float, codes: tuple[int, int]
) -> None:
    path = write_nifti(tmp_path / "scan.nii.gz", affine_of(axes, steps=(0.7, 1.1, 3.3), oblique=oblique))
    image = nibabel.load(path)
    affine = image.affine
    image.set_qform(affine if codes[0] else None, code=codes[0])
    image.set_sform(affine if codes[1] else None, code=codes[1])
    image.header["descrip"] = b"DOE JOHN"
    nibabel.save(image, path)
    found = labels_of(path)
    file = write_label_nifti(found, tmp_path / "out" / "scan.nii.gz")
    again = nibabel.load(file)
    assert grids_apart_mm(again.affine, nibabel.load(path).affine, found.scan.shape) < 1e-3
    np.testing.assert_array_equal(np.asarray(again.dataobj), found.labels)
    ours, theirs = sitk.ReadImage(str(file)), sitk.ReadImage(str(path))
    assert ours.GetSize() == theirs.GetSize()
    assert np.abs(corners(ours, found.scan.shape) - corners(theirs, found.scan.shape)).max() < 1e-3
    assert b"DOE" not in nibabel.load(file).header.binaryblock


def test_label_volume_of_a_series_lies_on_it(tmp_path: Path) -> None:
    write_series(tmp_path / "series", PLACES)
    found = labels_of(tmp_path / "series")
    file = write_label_nifti(found, tmp_path / "labels.nii.gz")
    series = sitk.ReadImage([str(one) for one in found.scan.files])
    ours = sitk.ReadImage(str(file))
    assert ours.GetSize() == series.GetSize()
    assert np.abs(corners(ours, found.scan.shape) - corners(series, found.scan.shape)).max() < 1e-3


def test_dicom_segmentation_shows_the_labels_on_their_slices(tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom")
    files = write_series(tmp_path / "series", PLACES)
    scan = read_scan(tmp_path / "series")
    labels = np.zeros(scan.shape, dtype=np.uint8, order="F")
    labels[1:4, 2:5, 1:3] = FLARE2022.index("left_kidney") + 1
    labels[6:9, 1:3, 3] = FLARE2022.index("aorta") + 1
    LabelWriter(tmp_path / "out", tmp_path, ["seg"])(LabeledScan({"id": "case"}, scan, labels, FLARE2022))
    segmentation = hd.seg.segread(tmp_path / "out" / "case.seg.dcm")
    names = {segmentation.get_segment_description(n).segment_label: n for n in segmentation.segment_numbers}
    assert set(names) == {"left_kidney", "aorta"}
    uids = [hd.imread(file).SOPInstanceUID for file in files]
    pixels = segmentation.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for organ, number in names.items():
        expected = (labels == FLARE2022.index(organ) + 1).transpose(2, 1, 0)
        np.testing.assert_array_equal(pixels[..., list(segmentation.segment_numbers).index(number)], expected)
    kidney = segmentation.get_segment_description(names["left_kidney"])
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeMeaning == "Kidney"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bodies")
    return write_synthetic_bodies(folder, training=0, test=2, unlabelled=0, size=(40, 36, 18))


def collect(items: list[dict[str, Any]], collector: VolumeCollector, grid: tuple[int, int], flip: float = 0.0) -> None:
    """Hand the true labels through the collector, as logits on a network's grid; a share of slices says nothing."""
    engine, random = SimpleNamespace(), np.random.default_rng(0)
    fit, load = FitFilm(grid, "nearest-exact"), LoadSliced("image")
    by_id = {item["id"]: item for item in items}
    collector._started(engine)  # type: ignore[arg-type]
    for one in slices_to_segment(items):
        scan = by_id[one["scan"]]
        loaded = load({**one, **{key: scan[key] for key in ("label", "numbers", "organs")}})
        label = fit(loaded["label"])
        classes = len(collector.organs) + 1
        logits = 9 * torch.nn.functional.one_hot(label[0].long().as_subclass(torch.Tensor), classes).permute(2, 0, 1)
        logits = logits if random.random() >= flip else torch.zeros_like(logits)
        engine.state = SimpleNamespace(batch=[one], output=[{"pred": logits, "image": label}])
        collector(engine)  # type: ignore[arg-type]
    collector._completed(engine)  # type: ignore[arg-type]


def test_what_the_network_sees_comes_back_to_where_it_was(bodies: Path, tmp_path: Path) -> None:
    """Maps on a grid twice as fine as the scan come back as the very labels, and score 100 %."""
    items, found = load_scans(bodies, "test"), []
    report = OrganReport(bodies, "test", tmp_path, tmp_path / "report")
    organs = items[0]["organs"]
    collect(items, VolumeCollector(items, organs, [found.append, report]), (80, 80))
    assert [one.item["id"] for one in found] == [item["id"] for item in items]
    for one, item in zip(found, items, strict=True):
        stored = nibabel.load(item["label"]).get_fdata()
        expected = np.zeros_like(stored)
        for number, organ in item["numbers"].items():
            expected[stored == number] = organs.index(organ) + 1
        np.testing.assert_array_equal(one.labels, expected)
        voxel = abs(np.linalg.det(one.scan.affine[:3, :3])) / 1000
        assert one.volumes_ml["liver"] == pytest.approx((expected == 1).sum() * voxel, abs=1e-3)
    document = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert document["mean"] == {"dsc": 100.0, "nsd": 100.0, "hd95_mm": 0.0, "scored": 12, "missed": 0}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "by construction" in page and page.count("data:image/png") == 6
    assert len((tmp_path / "report" / "scores.csv").read_text().splitlines()) == 1 + 2 * len(organs)


def test_neighbors_fill_a_slice_that_says_nothing(bodies: Path) -> None:
    items = load_scans(bodies, "test")[:1]
    lost: list[int] = []
    for neighbors in (0, 1):
        found: list[LabeledScan] = []
        collector = VolumeCollector(items, items[0]["organs"], [found.append], neighbors)
        collect(items, collector, (80, 80), flip=0.2)
        lost.append(int((found[0].slices.any(axis=(1, 2)) == 0).sum()))
    assert lost[0] >= 2 and lost[1] == 0


def test_blocks_are_put_where_they_belong(bodies: Path) -> None:
    item = {**load_scans(bodies, "test")[0], "blocks": [[2, 5], [9, 12]]}
    found: list[LabeledScan] = []
    collect([item], VolumeCollector([item], item["organs"], [found.append], neighbors=2), (80, 80))
    filled = np.flatnonzero(found[0].slices.any(axis=(1, 2)))
    assert filled.tolist() == [2, 3, 4, 9, 10, 11]


def test_scores_are_those_of_known_boxes() -> None:
    reference, found = np.zeros((2, 20, 20, 20), dtype=np.uint8)
    reference[5:10, 5:10, 5:10], found[6:11, 5:10, 5:10] = 1, 1  # a voxel off along the first axis
    reference[15:18, 15:18, 15:18] = 2
    found[1:3, 1:3, 1:3] = 3
    rows = organ_scores(found, reference, (2.0, 1.0, 1.0), ("a", "b", "c", "d"), {"a": 1.0})
    assert rows[0]["dsc"] == pytest.approx(80) and rows[0]["hd95_mm"] == pytest.approx(2)
    assert 0 < rows[0]["nsd"] < 100 and rows[0]["reference_ml"] == pytest.approx(125 * 2 / 1000)
    tolerant = organ_scores(found, reference, (2.0, 1.0, 1.0), ("a",), {"a": 2.0})
    assert tolerant[0]["nsd"] == pytest.approx(100)
    assert (rows[1]["dsc"], rows[1]["nsd"], rows[1]["hd95_mm"]) == (0, 0, np.inf) == tuple(rows[2].values())[1:4]
    assert np.isnan(rows[3]["dsc"])


def test_only_the_largest_part_is_kept() -> None:
    labels = np.zeros((12, 12, 12), dtype=np.uint8)
    labels[1:5, 1:5, 1:5], labels[8:10, 8:10, 8:10], labels[8, 1, 1] = 1, 1, 2
    expected = labels.copy()
    expected[8:10, 8:10, 8:10] = 0
    keep_largest(labels, 3)
    np.testing.assert_array_equal(labels, expected)


def test_id_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii.gz", affine_of("LPS")))
    found = LabeledScan({"id": "../scan"}, scan, np.zeros(SIZE, dtype=np.uint8), FLARE2022)
    with pytest.raises(DataError, match="leads out of the folder"):
        LabelWriter(tmp_path / "out", tmp_path)(found)


def test_meta_tensor_affine_is_followed(bodies: Path) -> None:
    """A grid that is shifted by its affine alone shifts what is found."""
    item = load_scans(bodies, "test")[0]
    scan = SCANS.scan(item["image"])
    loaded = LoadSliced("image")(slices_to_segment([item])[8])
    image = FitFilm((80, 80))(loaded["image"])
    logits = torch.zeros(2, 80, 80)
    logits[1, 40, 40] = 50
    centers = []
    for moved in (0.0, 3 * scan.spacing_mm[0]):
        affine = image.affine.clone()
        affine[1, -1] += moved  # y of the film plane
        found: list[LabeledScan] = []
        collector = VolumeCollector([item], ["dot"], [found.append])
        one = {**slices_to_segment([item])[8]}
        engine = SimpleNamespace(
            state=SimpleNamespace(
                batch=[one], output=[{"pred": logits, "image": MetaTensor(image.as_tensor(), affine)}]
            )
        )
        collector(engine)  # type: ignore[arg-type]
        collector._completed(engine)  # type: ignore[arg-type]
        centers.append(np.argwhere(found[0].slices[8] == 1).mean(axis=0))
    np.testing.assert_allclose(centers[1] - centers[0], [3, 0], atol=0.01)
