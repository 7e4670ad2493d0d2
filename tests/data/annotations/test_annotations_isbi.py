"""ISBI per-reader text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation, read_isbi, write_isbi
from monai_landmark.errors import AnnotationError

LINES = [f"{10 * i},{20 * i}" for i in range(1, 20)]


def _write(folder: Path, lines: list[str], name: str = "001.txt") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


@pytest.mark.parametrize("classes", [[], ["1"] * 8])
@pytest.mark.parametrize("ending", ["", "\n\n"])
def test_reads_19_lines_with_or_without_the_8_classes(tmp_path: Path, classes: list[str], ending: str) -> None:
    (annotation,) = read_isbi(_write(tmp_path, [*LINES, *classes, ending]), reader="senior")
    assert (annotation.film, annotation.reader) == ("001", "senior")
    np.testing.assert_array_equal(annotation.landmarks, np.arange(1, 20)[:, None] * (10, 20))
    assert annotation.names is not None and annotation.names[0] == "sella"


def test_reads_a_readers_folder_in_order(tmp_path: Path) -> None:
    for name in ("003.txt", "001.txt", "002.txt"):
        _write(tmp_path, LINES, name)
    (tmp_path / "notes.md").write_text("not an annotation")
    assert [a.film for a in read_isbi(tmp_path)] == ["001", "002", "003"]


def test_round_trip_is_exact(tmp_path: Path, complete: list[Annotation], schema: object) -> None:
    write_isbi(tmp_path, complete)
    assert read_isbi(tmp_path, schema) == complete  # type: ignore[arg-type]


def test_missing_landmarks_are_not_written(tmp_path: Path, partial: list[Annotation]) -> None:
    with pytest.raises(AnnotationError, match=r"ISBI text cannot say.*film one, landmark 2 \(b\)"):
        write_isbi(tmp_path, partial)


def test_two_readers_do_not_overwrite_each_other(tmp_path: Path, complete: list[Annotation]) -> None:
    with pytest.raises(AnnotationError, match="two annotations for one file"):
        write_isbi(tmp_path, [complete[0], complete[0]])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (LINES[:18], "wrong number of lines; found: 18; expected: 19 landmark lines"),
        ([*LINES, "1"], "wrong number of lines; found: 20"),
        ([*LINES, *["1"] * 7, "x"], "not a class code; field: line 27; found: 'x'"),
        ([*LINES[:4], "1,2,3", *LINES[5:]], "not a landmark; field: line 5; found: '1,2,3'"),
        ([*LINES[:4], "1 2", *LINES[5:]], "not a landmark; field: line 5"),
        ([*LINES[:4], "1,two", *LINES[5:]], "not a number; field: line 5; found: 'two'"),
        ([*LINES[:4], "1,", *LINES[5:]], "not a number; field: line 5"),
        ([*LINES[:4], "-1,-1", *LINES[5:]], r"outside the film; field: film 001, landmark 5 \(subspinale\)"),
        ([], "wrong number of lines; found: 0"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(AnnotationError, match=words) as caught:
        read_isbi(_write(tmp_path, lines))
    assert str(tmp_path) in str(caught.value)


def test_exchanged_columns_are_noticed_when_the_size_is_known(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="seem to be exchanged"):
        read_isbi(_write(tmp_path, LINES), film_sizes={"001": (200, 400)})


def test_real_files_read_as_numpy_reads_them(shared_data: Path) -> None:
    sizes = {f"{i:03d}": (2400, 1935) for i in range(1, 401)}
    for reader in ("400_senior", "400_junior"):
        annotations = read_isbi(shared_data / "isbi2015" / reader, film_sizes=sizes)
        assert len(annotations) == 300
        for annotation in annotations[::50]:
            file = shared_data / "isbi2015" / reader / f"{annotation.film}.txt"
            np.testing.assert_array_equal(annotation.landmarks, np.loadtxt(file, delimiter=",", max_rows=19))
