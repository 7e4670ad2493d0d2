"""Ratio text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation, read_ratio, write_ratio
from monai_landmark.errors import AnnotationError

SIZES = {"CHN_0001": (200, 1000)}


def _write(folder: Path, text: str) -> Path:
    (folder / "CHN_0001.txt").write_text(text)
    return folder / "CHN_0001.txt"


def test_ratios_are_shares_of_width_and_height(tmp_path: Path) -> None:
    (annotation,) = read_ratio(_write(tmp_path, "3\n0.5 0.25\n0 0\n0.001 0.1\n"), film_sizes=SIZES)
    np.testing.assert_allclose(annotation.landmarks, [[500, 50], [0, 0], [1, 20]], rtol=1e-15)
    assert annotation.names is None and annotation.film == "CHN_0001"


def test_round_trip_is_within_rounding(
    tmp_path: Path, complete: list[Annotation], schema: object, film_sizes: dict[str, tuple[int, int]]
) -> None:
    write_ratio(tmp_path, complete, film_sizes=film_sizes)
    back = read_ratio(tmp_path, schema, film_sizes=film_sizes)  # type: ignore[arg-type]
    assert [a.film for a in back] == [a.film for a in complete]
    for got, put in zip(back, complete, strict=True):
        assert got.names == put.names
        np.testing.assert_allclose(got.landmarks, put.landmarks, rtol=0, atol=1e-9)


def test_what_the_format_cannot_say_is_not_written(tmp_path: Path, partial: list, complete: list) -> None:
    with pytest.raises(AnnotationError, match="ratio text cannot say"):
        write_ratio(tmp_path, partial, film_sizes={"one": (1, 1)})
    with pytest.raises(AnnotationError, match=r"size of the film unknown.*film one"):
        write_ratio(tmp_path, complete, film_sizes={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2\n0.5 0.5\n", "does not count the landmarks; field: line 1; found: '2'; expected: 1"),
        ("", "does not count"),
        ("1\n0.5\n", "not a ratio; field: line 2"),
        ("1\n0.5 0.5 0.5\n", "not a ratio"),
        ("1\n500 50\n", "not a ratio.*pixels"),
        ("1\n-0.1 0.5\n", "not a ratio"),
        ("1\n0,5 0,5\n", "decimal point"),
        ("1\n0.5 x\n", "not a number; field: line 2"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        read_ratio(_write(tmp_path, text), film_sizes=SIZES)


def test_another_number_of_landmarks_than_the_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="wrong number of landmarks; field: film CHN_0001; found: 1; expected: 6"):
        read_ratio(_write(tmp_path, "1\n0.5 0.5\n"), "chest6", film_sizes=SIZES)


def test_the_size_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="size of the film unknown"):
        read_ratio(_write(tmp_path, "1\n0.5 0.5\n"), film_sizes={"other": (1, 1)})
