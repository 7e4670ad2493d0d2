"""Plain JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation, read_plain_json, write_plain_json
from monai_landmark.errors import AnnotationError


def _read(folder: Path, content: Any, **options: Any) -> list[Annotation]:
    (folder / "points.json").write_text(json.dumps(content))
    return read_plain_json(folder / "points.json", **options)


def test_landmarks_in_a_list_or_by_name(tmp_path: Path) -> None:
    by_list = {"landmarks": ["a", "b"], "films": [{"film": "one", "landmarks": [[1, 2.5], None]}]}
    by_name = {"landmarks": ["a", "b"], "films": [{"film": "one", "landmarks": {"a": [1, 2.5]}}]}
    named_only = {"films": [{"film": "one", "landmarks": {"a": [1, 2.5], "b": None}, "visibility": {"a": 2}}]}
    for content in (by_list, by_name, named_only):
        (annotation,) = _read(tmp_path, content)
        assert annotation.names == ("a", "b")
        np.testing.assert_array_equal(annotation.landmarks, [[1, 2.5], [np.nan, np.nan]])
        assert annotation.visibility.tolist() == [2, 0]
    (nameless,) = _read(tmp_path, {"films": [{"film": "one", "landmarks": [[1, 2]]}]}, reader="r")
    assert nameless.names is None and nameless.reader == "r"


def test_round_trip_is_exact(tmp_path: Path, complete: list[Annotation], partial: list[Annotation]) -> None:
    readers = [replace(a, reader=reader) for reader in ("r1", None) for a in partial]
    nameless = [replace(a, names=None) for a in partial]
    for films in (complete, partial, readers, nameless):
        assert read_plain_json(write_plain_json(tmp_path / "points.json", films)) == films


def test_the_schema_gives_names_and_order(tmp_path: Path, schema: Any) -> None:
    content = {"landmarks": ["c d", "b", "a"], "films": [{"film": "one", "landmarks": [[5, 6], [3, 4], [1, 2]]}]}
    assert _read(tmp_path, content, schema=schema)[0].landmarks.tolist() == [[1, 2], [3, 4], [5, 6]]
    nameless = {"films": [{"film": "one", "landmarks": [[5, 6], [3, 4], [1, 2]]}]}
    assert _read(tmp_path, nameless, schema=schema)[0].names == ("a", "b", "c d")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "field: films"),
        ({"films": {}}, "field: films"),
        ({"films": [{"landmarks": [[1, 2]]}]}, r"field: films\[0\]\.film"),
        ({"films": [{"film": 1, "landmarks": [[1, 2]]}]}, r"field: films\[0\]\.film"),
        ({"films": [{"film": "one"}]}, r"field: films\[0\]\.landmarks"),
        ({"films": [{"film": "one", "landmarks": [[1]]}]}, r"not a landmark; field: films\[0\]\.landmarks\[0\]"),
        ({"films": [{"film": "one", "landmarks": {"a": ["1", 2]}}]}, r"field: films\[0\]\.landmarks\.a"),
        ({"films": [{"film": "one", "landmarks": [[1, 2]], "visibility": []}]}, "wrong number of codes"),
        ({"films": [{"film": "one", "landmarks": [[1, 2]], "visibility": [0]}]}, "not a landmark"),
        ({"films": [{"film": "one", "landmarks": [[1, 2]]}] * 2}, "film comes more than once"),
        ({"landmarks": ["a", "b"], "films": [{"film": "one", "landmarks": [[1, 2]]}]}, "wrong number of landmarks"),
        ({"landmarks": ["a"], "films": [{"film": "one", "landmarks": {"b": [1, 2]}}]}, "unknown landmark name"),
        ({"films": [{"film": "one", "landmarks": [[1, float("nan")]]}]}, "not a landmark"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        _read(tmp_path, content)


def test_nothing_is_not_written(tmp_path: Path, complete: list[Annotation]) -> None:
    with pytest.raises(AnnotationError, match="at least one"):
        write_plain_json(tmp_path / "points.json", [])
    with pytest.raises(AnnotationError, match="same landmark names"):
        write_plain_json(tmp_path / "points.json", [complete[0], replace(complete[1], names=None)])
