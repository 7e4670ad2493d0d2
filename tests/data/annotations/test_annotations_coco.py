"""COCO keypoints."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation, read_coco, write_coco
from monai_landmark.errors import AnnotationError

CONTENT: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.png", "width": 30, "height": 40}],
    "categories": [{"id": 1, "name": "box"}, {"id": 3, "name": "hand", "keypoints": ["p", "q", "r"]}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": 7, "category_id": 3, "keypoints": [1, 2, 2, 3.5, 4, 1, 9, 9, 0]},
    ],
}


def _read(folder: Path, content: Any, **options: Any) -> list[Annotation]:
    (folder / "coco.json").write_text(json.dumps(content))
    return read_coco(folder / "coco.json", **options)


def test_reads_the_keypoint_category(tmp_path: Path) -> None:
    (annotation,) = _read(tmp_path, CONTENT)
    assert (annotation.film, annotation.names) == ("a.png", ("p", "q", "r"))
    np.testing.assert_array_equal(annotation.landmarks, [[1, 2], [3.5, 4], [np.nan, np.nan]])
    assert annotation.visibility.tolist() == [2, 1, 0]


def test_round_trip_is_exact(
    tmp_path: Path, complete: list[Annotation], partial: list[Annotation], film_sizes: dict[str, tuple[int, int]]
) -> None:
    readers = [replace(a, reader=reader) for reader in ("r1", "r2") for a in complete]
    for films in (complete, partial, readers):
        file = write_coco(tmp_path / "coco.json", films, film_sizes=film_sizes)
        assert read_coco(file, film_sizes=film_sizes) == films


def test_written_entries_hold_what_coco_tools_ask_for(
    tmp_path: Path, partial: list[Annotation], film_sizes: dict[str, tuple[int, int]]
) -> None:
    content = json.loads(write_coco(tmp_path / "coco.json", partial, film_sizes=film_sizes).read_text())
    assert content["images"][0] == {"id": 1, "file_name": "one", "width": 300, "height": 400}
    first, second = content["annotations"]
    assert first["num_keypoints"] == 2 and first["keypoints"][3:6] == [0, 0, 0] and first["keypoints"][2] == 1
    low, high = np.nanmin(partial[0].landmarks, 0), np.nanmax(partial[0].landmarks, 0)
    np.testing.assert_allclose(first["bbox"], [*low, *(high - low)])
    assert first["area"] == pytest.approx(np.prod(high - low))
    assert second["num_keypoints"] == 0 and second["bbox"] == [0, 0, 0, 0]


def _changed(*path: Any, to: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    place: Any = content
    for key in path[:-1]:
        place = place[key]
    if to is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "field: images|field: categories"),
        (_changed("images", to=KeyError), "field: images"),
        (_changed("categories", 1, "keypoints", to=[]), "not exactly one keypoint category"),
        (_changed("categories", 0, "keypoints", to=["z"]), "not exactly one keypoint category"),
        (_changed("images", 0, "width", to="30"), r"field: images\[0\]\.width.*whole number"),
        (_changed("annotations", 1, "image_id", to=8), r"unknown image; field: annotations\[1\]\.image_id; found: 8"),
        (_changed("annotations", 1, "keypoints", to=[1, 2]), "not triples"),
        (
            _changed("annotations", 1, "keypoints", to=[1, 2, 2]),
            "wrong number of landmarks; field: film a.png; found: 1",
        ),
        (
            _changed("annotations", 1, "keypoints", 0, to="1"),
            r"not a landmark; field: annotations\[1\]\.keypoints\[0\]",
        ),
        (_changed("annotations", 1, "keypoints", 2, to=3), "not a landmark"),
        (_changed("annotations", 1, "keypoints", 2, to=None), "not a landmark"),
        (_changed("annotations", 1, "keypoints", 0, to=31), "outside the film"),
        (_changed("annotations", 0, to=CONTENT["annotations"][1]), "film comes more than once"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        _read(tmp_path, content)


def test_annotations_of_resized_films_are_refused(tmp_path: Path) -> None:
    assert _read(tmp_path, CONTENT, film_sizes={"a": (40, 30)})
    with pytest.raises(AnnotationError, match=r"another size.*found: \(40, 30\); expected: \(400, 300\)"):
        _read(tmp_path, CONTENT, film_sizes={"a": (400, 300)})


def test_other_names_than_the_schema_are_refused(tmp_path: Path, schema: Any) -> None:
    with pytest.raises(AnnotationError, match="unknown landmark name"):
        _read(tmp_path, CONTENT, schema=schema)
