"""Each fault is planted once among sound annotations, and found; sound ones are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmark.apps.cli import main
from monai_landmark.data.datalist import Datalist, save_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.results.label_audit import audit_annotations

NAMES = ("top", "left_a", "right_a", "left_b", "right_b", "bottom", "left_c", "right_c")
SCHEMA = LandmarkSchema(
    "test", "A test", NAMES, pairs=(("left_a", "right_a"), ("left_b", "right_b"), ("left_c", "right_c"))
)
MEAN = np.array([[0, -60], [40, -30], [-40, -30], [60, 20], [-60, 20], [0, 70], [20, 45], [-20, 45]], dtype=float)


def annotated(count: int = 20, spacing: tuple[float, float] | None = (0.2, 0.25)) -> list[dict[str, Any]]:
    """Films of one symmetric shape of 130 mm, moved, scaled by 10 %, turned by 5 degrees and read with 1.5 mm error."""
    random, items = np.random.default_rng(0), []
    for number in range(count):
        angle, scale = np.radians(random.normal(0, 5)), random.normal(1, 0.1)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        mm = MEAN @ turn.T + [120, 110] + random.normal(0, 5, 2) + random.normal(0, 1.5, MEAN.shape)
        row_mm, col_mm = spacing or (0.2, 0.25)
        points = mm / [col_mm, row_mm]
        items.append({"id": f"film {number}", "size": [1200, 1000], "spacing": spacing, "landmarks": points.tolist()})
    return items


def kinds(items: list[dict[str, Any]], schema: LandmarkSchema | None = SCHEMA) -> list[tuple[str, str]]:
    return [(found.film, found.kind) for found in audit_annotations(items, schema)]


@pytest.mark.parametrize("spacing", [(0.2, 0.25), None])
def test_sound_films(spacing: tuple[float, float] | None):
    assert kinds(annotated(spacing=spacing)) == []
    assert kinds(annotated(2)) == []  # no shape to be learned


def test_outlier_is_named():
    items = annotated()
    items[3]["landmarks"][5] = [700.0, 100.0]
    (found,) = audit_annotations(items, SCHEMA)
    assert (found.film, found.kind) == ("film 3", "outlier") and found.reason.startswith("bottom lies ")
    assert audit_annotations(items, None)[0].reason.startswith("landmark 6 lies ")


def test_left_and_right():
    items = annotated()
    items[7]["landmarks"] = [items[7]["landmarks"][k] for k in SCHEMA.flip_permutation()]
    assert kinds(items) == [("film 7", "left and right")]


@pytest.mark.parametrize("lop_sided", [False, True])
def test_mirrored(lop_sided: bool):
    """Without pairs a symmetric shape with exchanged sides is one turned upside down, and a mirrored one as well."""
    items = annotated()
    for item in items if lop_sided else []:
        item["landmarks"][6][0] += 200
    items[7]["landmarks"] = [[1000 - x, y] for x, y in items[7]["landmarks"]]
    assert kinds(items, None) == [("film 7", "mirrored")]


def test_copies_that_disagree():
    items = annotated()
    items[5]["landmarks"] = [*items[4]["landmarks"][:7], None]
    same = [("film 4", "film 5")]
    assert audit_annotations(items, SCHEMA, same) == []
    items[5]["landmarks"][1] = np.add(items[5]["landmarks"][1], [3, 4]).tolist()
    (found,) = audit_annotations(items, SCHEMA, same)
    assert (found.film, found.kind) == ("film 5", "copy")
    assert found.reason == "the same picture as film 4, where left_a is 5 px away"
    assert audit_annotations(items[5:], SCHEMA, same) == []  # the other one has no landmarks


def test_transposed():
    items = annotated(spacing=(0.2, 0.2))
    items[4]["landmarks"] = [point[::-1] for point in items[4]["landmarks"]]
    assert kinds(items) == [("film 4", "transposed")]


def test_turned():
    items = annotated(spacing=(0.2, 0.2))
    items[4]["landmarks"] = [[1000 - y, x] for x, y in items[4]["landmarks"]]
    assert kinds(items) == [("film 4", "turned")]


def test_spacing():
    items = annotated()
    items[2]["spacing"] = (0.4, 0.5)
    assert kinds(items) == [("film 2", "spacing")]
    items[2]["spacing"] = (0.02, 0.025)
    assert sorted(kinds(items)) == [("film 2", "spacing")]


def test_field_of_view():
    items = [
        {"id": "a", "size": [2000, 2000], "spacing": [1.0, 1.0]},
        {"id": "b", "size": [64, 64], "spacing": [0.1, 0.1]},
    ]
    items += [{"id": "c", "size": [2000, 2000], "spacing": [0.1, 0.1]}, {"id": "d", "size": [9, 9], "spacing": None}]
    assert kinds(items) == [("a", "field of view"), ("b", "field of view")]


def test_several_faults_at_once():
    items = annotated(40)
    for index in (1, 2, 3):
        items[index]["landmarks"] = [items[index]["landmarks"][k] for k in SCHEMA.flip_permutation()]
    items[9]["landmarks"][0] = [10.0, 900.0]
    assert kinds(items) == [("film 1", "left and right"), ("film 2", "left and right"), ("film 3", "left and right"), ("film 9", "outlier")]  # noqa: E501 # fmt: skip


def test_inspect_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_synthetic_dataset(tmp_path, training=8, test=1, unlabelled=0, size=(200, 216))
    file, out = tmp_path / "datalist.json", tmp_path / "found.json"
    assert main(["inspect", str(file), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["suspicions"] == []
    datalist = Datalist.load(file)
    item = datalist.sections["training"][2]
    flip = LandmarkSchema.load("synthetic").flip_permutation()
    for key in ("landmarks", "visibility"):
        item[key] = [item[key][k] for k in flip]
    save_datalist(datalist, file)
    assert main(["inspect", str(file), "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text())["suspicions"]
    assert (found["film"], found["kind"]) == (item["id"], "left and right")
    assert "Annotations to look at: 1" in capsys.readouterr().out
