"""CSV with a header, wide and long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from monai_landmark.data.annotations import Annotation, read_csv, write_csv
from monai_landmark.errors import AnnotationError

WIDE = "film,a_x,a_y,b_x,b_y\none,1,2,3.5,4\ntwo,5,6,,\n"
LONG = "film,landmark,x,y\none,a,1,2\none,b,3.5,4\ntwo,a,5,6\n"
EXPECTED = {"one": [[1, 2], [3.5, 4]], "two": [[5, 6], [np.nan, np.nan]]}


def _read(folder: Path, text: str, encoding: str = "utf-8", **options: object) -> list[Annotation]:
    file = folder / "points.csv"
    file.write_bytes(text.encode(encoding))
    return read_csv(file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        WIDE,
        LONG,
        WIDE.replace(",", ";"),
        WIDE.replace(",", "\t"),
        LONG.replace("\n", "\r\n"),
        WIDE.replace("film", "id"),
        "age,b_y,b_x,a_y,a_x,image\n30,4,3.5,2,1,one\n40,NaN,nan,6,5,two\n",
        "x,y,film,landmark,visibility\n1,2,one,a,2\n5,6,two,a,\n3.5,4,one,b,2\n,,two,b,0\n",
        ' film , "a_x",a_y,b_x,b_y\none,"1",2,3.5,4\n\ntwo,5,6,,\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_are_found_by_name(tmp_path: Path, text: str, encoding: str) -> None:
    annotations = {a.film: a for a in _read(tmp_path, text, encoding)}
    assert list(annotations) == ["one", "two"]
    for film, points in EXPECTED.items():
        names = annotations[film].names
        assert names is not None
        order = [names.index(name) for name in ("a", "b")]
        np.testing.assert_array_equal(annotations[film].landmarks[order], points)


@pytest.mark.parametrize("form", ["wide", "long"])
def test_round_trip_is_exact(
    tmp_path: Path, complete: list[Annotation], partial: list[Annotation], form: Literal["wide", "long"]
) -> None:
    readers = [replace(a, reader=reader) for reader in ("Müller", "Y, Z") for a in partial]
    awkward = [replace(a, film=f'films, "{a.film}".dcm') for a in complete]
    for films in (complete, partial, readers, awkward):
        assert read_csv(write_csv(tmp_path / "points.csv", films, form)) == films


def test_pandas_reads_what_is_written(tmp_path: Path, partial: list[Annotation]) -> None:
    table = pd.read_csv(write_csv(tmp_path / "points.csv", partial)).set_index("film")
    assert table.loc["one", "a_x"] == partial[0].landmarks[0, 0]
    assert table.loc["one", "c d_y"] == partial[0].landmarks[2, 1]
    assert table.loc["two"].filter(regex="_[xy]$").isna().all()


def test_the_schema_gives_the_order(tmp_path: Path, schema: object) -> None:
    text = "film,c d_x,c d_y,a_x,a_y,b_x,b_y\none,5,6,1,2,3,4\n"
    (annotation,) = _read(tmp_path, text, schema=schema)
    assert annotation.landmarks.tolist() == [[1, 2], [3, 4], [5, 6]]
    (sparse,) = _read(tmp_path, "film,landmark,x,y\none,b,3,4\n", schema=schema)
    assert sparse.visibility.tolist() == [0, 2, 0]


def test_a_reader_column_keeps_readers_apart(tmp_path: Path) -> None:
    text = "film,reader,a_x,a_y\none,r1,1,2\none,r2,3,4\none,,5,6\n"
    assert [a.reader for a in _read(tmp_path, text, reader="r3")] == ["r1", "r2", "r3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "header does not tell the films"),
        ("a_x,a_y\n1,2\n", "header does not tell the films"),
        ("film,id,a_x,a_y\none,1,1,2\n", "header does not tell the films"),
        ("film,a_x,a_y,a_x\none,1,2,3\n", "a column comes twice"),
        ("film,age\none,3\n", "no landmark columns"),
        ("film,a_x,a_y,b_x\none,1,2,3\n", r"do not pair up.*\['b'\]"),
        ("film,a_x,a_y\none,1\n", "wrong number of values; field: line 2; found: 2; expected: 3"),
        ("film,a_x,a_y\none,1,5,2,5\n", "write decimals with a point"),
        ("film;a_x;a_y\none;1,5;2\n", "field: line 2, film one, a; found: '1,5'.*decimal point"),
        ("film,a_x,a_y\none,left,2\n", "not a number; field: line 2, film one, a; found: 'left'"),
        ("film,a_x,a_y\none,1,\n", "half a landmark; field: line 2"),
        ("film,a_x,a_y\n,1,2\n", "line without a film; field: line 2"),
        ("film,a_x,a_y\none,1,2\none,1,2\n", "film comes more than once"),
        ("film,a_x,a_y\none,-5,2\n", "outside the film"),
        ('film,a_x,a_y\none,"1,2\n', "not valid CSV"),
        ("film,landmark,x,y\none,a,1,2\none,a,1,2\n", "landmark comes twice; field: line 3, film one, a"),
        ("film,landmark,x,y\none,,1,2\n", "landmark without a name; field: line 2"),
        ("film,landmark,x,y,visibility\none,a,1,2,0\n", "half a landmark"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        _read(tmp_path, text)


def test_names_outside_the_schema_are_refused(tmp_path: Path, schema: object) -> None:
    with pytest.raises(AnnotationError, match=r"unknown landmark name.*'cd'.*'c d'"):
        _read(tmp_path, "film,landmark,x,y\none,cd,1,2\n", schema=schema)
    with pytest.raises(AnnotationError, match=r"does not know all landmarks.*'c d'"):
        _read(tmp_path, WIDE, schema=schema)


def test_nothing_and_nameless_are_not_written(tmp_path: Path, complete: list[Annotation]) -> None:
    for films in (
        [],
        [replace(complete[0], names=None)],
        [complete[0], replace(complete[1], names=("x", "y", "z"))],
    ):
        with pytest.raises(AnnotationError, match="CSV needs at least one annotation"):
            write_csv(tmp_path / "points.csv", films)


def test_real_tables_read_as_pandas_reads_them(shared_data: Path) -> None:
    for file in ("chest/landmarks_extremes6_origpx.csv", "hand/landmarks_origpx.csv"):
        table = pd.read_csv(shared_data / file, dtype={"id": str})
        annotations = read_csv(shared_data / file)
        assert [a.film for a in annotations] == table["id"].tolist()
        np.testing.assert_array_equal(
            np.stack([a.landmarks for a in annotations]).reshape(len(table), -1), table.iloc[:, 1:]
        )
