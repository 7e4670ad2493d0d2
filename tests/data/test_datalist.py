"""The datalist: MONAI reads it, it survives a round trip, and nothing false gets in."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, load_decathlon_datalist
from monai.transforms import Compose, LoadImaged
from PIL import Image

from monai_landmark.data.datalist import (
    Datalist,
    LeftOut,
    landmarks_array,
    landmarks_json,
    load_datalist,
    save_datalist,
)
from monai_landmark.data.reader import RadiographReader
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError

NAMES = ("tip", "left_base", "right_base")


def item(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "image": f"films/{name}.png",
        "id": name,
        "patient": f"p-{name}",
        "size": [20, 10],
        "spacing": [0.2, 0.1],
        "spacing_source": "user",
        "sha256": "00",
        "landmarks": [[1.5, 2.25], None, [3, 4]],
        "visibility": [2, 0, 1],
        "readers": {"a": [[1, 2], None, [3, 4]], "b": [[2, 2.5], [5, 5], [3, 4]]},
        **changes,
    }


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    LandmarkSchema("three", "Three landmarks", NAMES).to_yaml(tmp_path / "three.yaml")
    unlabelled = {key: value for key, value in item("u").items() if key not in ("landmarks", "visibility", "readers")}
    return {
        "name": "own",
        "schema": "three.yaml",
        "reader": "a",
        "root": "data",
        "duplicates_policy": "mark",
        "training": [item("t1", near_duplicates=["s1"]), item("t2", spacing=None, spacing_source="none")],
        "test": [item("s1")],
        "unlabelled": [unlabelled],
    }


def write(content: Any, tmp_path: Path) -> Path:
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def test_round_trip_keeps_everything(content: dict[str, Any], tmp_path: Path) -> None:
    content["left_out"] = [{"film": "x.png", "reason": "broken", "by": "fault"}]
    content["duplicates"] = [{"films": ["t1", "s1"], "similarity": 0.99, "identical": False}]
    content["notes"] = ["spacing: given by the user"]
    datalist = Datalist.load(write(content, tmp_path))
    assert datalist.root == tmp_path / "data"
    assert datalist.schema == str(tmp_path / "three.yaml")
    assert datalist.left_out == [LeftOut("x.png", "broken")]
    save_datalist(datalist, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == content


def test_root_is_absolute_when_it_lies_elsewhere(content: dict[str, Any], tmp_path: Path) -> None:
    datalist = Datalist.load(write(content, tmp_path))
    save_datalist(datalist, tmp_path / "deep" / "er" / "list.json")
    saved = json.loads((tmp_path / "deep" / "er" / "list.json").read_text())
    assert saved["root"] == (tmp_path / "data").as_posix()
    assert saved["schema"] == str(tmp_path / "three.yaml")
    assert Datalist.load(tmp_path / "deep" / "er" / "list.json").root == tmp_path / "data"


def test_load_gives_absolute_paths_and_nan(content: dict[str, Any], tmp_path: Path) -> None:
    items = load_datalist(write(content, tmp_path), "training")
    assert [entry["id"] for entry in items] == ["t1", "t2"]
    assert items[0]["image"] == str(tmp_path / "data" / "films" / "t1.png")
    expected = [[1.5, 2.25], [np.nan, np.nan], [3, 4]]
    np.testing.assert_array_equal(items[0]["landmarks"], expected)
    np.testing.assert_array_equal(items[0]["readers"]["b"], [[2, 2.5], [5, 5], [3, 4]])
    np.testing.assert_array_equal(landmarks_array(items[0]), expected)
    np.testing.assert_array_equal(landmarks_array(items[0], "a"), [[1, 2], [np.nan, np.nan], [3, 4]])
    assert landmarks_array(items[0]).dtype == np.float64


def test_landmarks_array_refuses_what_is_not_there(content: dict[str, Any]) -> None:
    with pytest.raises(AnnotationError, match="no landmarks"):
        landmarks_array(content["unlabelled"][0])
    with pytest.raises(AnnotationError, match="'c'"):
        landmarks_array(content["test"][0], "c")


def test_landmarks_json_is_the_inverse() -> None:
    points = np.array([[0.1234567, 5], [np.nan, np.nan], [-0.5, 7.25]])
    assert landmarks_json(points) == [[0.1235, 5.0], None, [-0.5, 7.25]]


def test_section_that_is_not_there(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"validation.*training, test, unlabelled"):
        load_datalist(write(content, tmp_path), "validation")


def test_monai_reads_it_and_caches_the_films(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data" / "films").mkdir(parents=True)
    for name, value in (("t1", 10), ("t2", 200)):
        Image.fromarray(np.full((20, 10), value, np.uint8)).save(tmp_path / "data" / "films" / f"{name}.png")
    path = write(content, tmp_path)
    items = load_decathlon_datalist(
        str(path), is_segmentation=False, data_list_key="training", base_dir=str(tmp_path / "data")
    )
    assert [entry["image"] for entry in items] == [entry["image"] for entry in load_datalist(path, "training")]
    load = LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)
    data = CacheDataset(items, Compose([load]), progress=False)
    assert [float(entry["image"].mean()) for entry in data] == [10, 200]
    assert data[0]["image"].shape == (1, 20, 10) and data[0]["image"].dtype == torch.float32


BREAKS: list[tuple[str, Any, str]] = [
    ("landmarks", [[1, 2], None], r"training\[0\].landmarks.*found: 2.*expected: 3"),
    ("landmarks", [[1, 2], None, [3]], r"landmarks\[2\].*found: \[3\]"),
    ("landmarks", [[1, 2], None, [3, True]], r"landmarks\[2\]"),
    ("landmarks", [[1, 2], None, [3, "4"]], r"landmarks\[2\]"),
    ("landmarks", [[1, 2], None, [3, 1e999]], "NaN|Infinity"),
    ("visibility", [2, 0], "visibility"),
    ("visibility", [2, 1, 1], r"visibility\[1\].*found: 1"),
    ("visibility", [0, 0, 1], r"visibility\[0\].*found: 0"),
    ("visibility", [3, 0, 1], "visibility"),
    ("visibility", None, "visibility"),
    ("readers", {"a": [[1, 2]]}, r"readers.a.*found: 1"),
    ("readers", ["a"], "readers"),
    ("spacing", [0.1], r"training\[0\].spacing"),
    ("spacing", [0.1, 0], r"training\[0\].spacing"),
    ("spacing", [0.1, -0.1], r"training\[0\].spacing"),
    ("spacing", 0.1, r"training\[0\].spacing"),
    ("spacing", [0.1, 5], r"training\[0\].spacing"),
    ("spacing", None, "spacing_source.*'user'"),
    ("spacing_source", "none", "spacing_source"),
    ("spacing_source", "guessed", "found: 'guessed'"),
    ("size", [20, 0], r"size.*\[20, 0\]"),
    ("size", [20.5, 10], "size"),
    ("id", "", r"training\[0\].id"),
    ("id", "s1", r"used twice, first in training\[0\].*test\[0\].id"),
    ("patient", "p-s1", "patient also in training.*p-s1"),
    ("patient", None, r"training\[0\].patient"),
    ("image", 3, r"training\[0\].image"),
    ("near_duplicates", "s1", "near_duplicates"),
]


@pytest.mark.parametrize(("key", "value", "message"), BREAKS)
def test_refuses_a_broken_item(content: dict[str, Any], tmp_path: Path, key: str, value: Any, message: str) -> None:
    content["training"][0][key] = value
    path = write(content, tmp_path)
    with pytest.raises(AnnotationError, match=message) as error:
        Datalist.load(path)
    assert str(path) in str(error.value)


def test_refuses_nan(content: dict[str, Any], tmp_path: Path) -> None:
    content["training"][0]["landmarks"][0] = [float("nan"), 1.0]
    with pytest.raises(AnnotationError, match="NaN"):
        Datalist.load(write(content, tmp_path))


def test_labelled_sections_need_landmarks(content: dict[str, Any], tmp_path: Path) -> None:
    del content["test"][0]["landmarks"]
    with pytest.raises(AnnotationError, match=r"test\[0\].landmarks"):
        Datalist.load(write(content, tmp_path))


@pytest.mark.parametrize(("section", "allowed"), [("training", True), ("test", False), ("validation", False)])
def test_only_training_and_unlabelled_share_a_patient(
    content: dict[str, Any], tmp_path: Path, section: str, allowed: bool
) -> None:
    content["validation"] = [item("v1")]
    content["unlabelled"][0]["patient"] = content[section][0]["patient"]
    path = write(content, tmp_path)
    if allowed:
        Datalist.load(path)
    else:
        with pytest.raises(AnnotationError, match=f"patient also in {section}"):
            Datalist.load(path)


@pytest.mark.parametrize("text", ["", "[1]", '{"name": 1}', '{"training": ', "\udcff", '{"name":"a","root":"."}'])
def test_refuses_what_is_no_datalist(tmp_path: Path, text: str) -> None:
    path = tmp_path / "datalist.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AnnotationError, match=r"datalist\.json"):
        Datalist.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="cannot be read"):
        Datalist.load(tmp_path / "no.json")


def test_landmarks_need_a_schema(content: dict[str, Any], tmp_path: Path) -> None:
    content["schema"] = None
    with pytest.raises(AnnotationError, match="schema"):
        Datalist.load(write(content, tmp_path))


def test_a_failed_write_leaves_the_old_file(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(content, tmp_path)
    before, files = path.read_text(), sorted(os.listdir(tmp_path))
    datalist = Datalist.load(path)
    broken = copy.deepcopy(datalist)
    broken.sections["training"][0]["size"] = []
    with pytest.raises(AnnotationError, match="size"):
        save_datalist(broken, path)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    datalist.name = "new"
    with pytest.raises(OSError, match="disk full"):
        save_datalist(datalist, path)
    assert path.read_text() == before and sorted(os.listdir(tmp_path)) == files
