"""Digital Hand Atlas CSV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation, read_dha, write_dha
from monai_landmark.errors import AnnotationError

LINE = ",".join(["3142", *map(str, range(74))])


def test_reads_one_film_a_line(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    file.write_text(f"{LINE}\n{LINE.replace('3142', '3143')}\n\n")
    annotations = read_dha(file)
    assert [a.film for a in annotations] == ["3142", "3143"]
    np.testing.assert_array_equal(annotations[1].landmarks, np.arange(74).reshape(37, 2))


def test_round_trip_is_exact(tmp_path: Path, complete: list[Annotation], schema: object) -> None:
    assert read_dha(write_dha(tmp_path / "all.csv", complete), schema) == complete  # type: ignore[arg-type]


def test_what_the_format_cannot_say_is_not_written(tmp_path: Path, complete: list, partial: list) -> None:
    with pytest.raises(AnnotationError, match="Digital Hand Atlas CSV cannot say"):
        write_dha(tmp_path / "all.csv", partial)
    with pytest.raises(AnnotationError, match="film name does not fit"):
        write_dha(tmp_path / "all.csv", [replace(complete[0], film="a,b")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LINE + ",1", "wrong number of values; field: line 1, film 3142; found: 76; expected: 75"),
        (LINE.replace(",7,", ",seven,"), "not a number; field: line 1, value 9; found: 'seven'"),
        (LINE.replace(",7,", ",,"), "not a number; field: line 1, value 9"),
        (f"{LINE}\n{LINE}", "film comes more than once"),
        ("", "no annotation in the file"),
        (LINE.replace(",", ";"), "wrong number of values"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "all.csv"
    file.write_text(text)
    with pytest.raises(AnnotationError, match=words):
        read_dha(file)


def test_real_file_reads_as_numpy_reads_it(shared_data: Path) -> None:
    file = shared_data / "hand" / "all_910_annotations.csv"
    table = np.loadtxt(file, delimiter=",")
    annotations = read_dha(file)
    np.testing.assert_array_equal([a.landmarks for a in annotations], table[:, 1:].reshape(910, 37, 2))
    assert [int(a.film) for a in annotations] == table[:, 0].astype(int).tolist()
