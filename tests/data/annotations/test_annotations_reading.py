"""The dispatcher: what is recognized, what is refused, what it passes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from monai_landmark.data import annotations as formats
from monai_landmark.data.annotations import Annotation, read_annotations, sniff_format
from monai_landmark.errors import AnnotationError, DataError


@pytest.fixture
def written(tmp_path: Path, complete: list[Annotation], film_sizes: dict[str, tuple[int, int]]) -> dict[str, Path]:
    """One file or folder in each format."""
    formats.write_isbi(tmp_path / "isbi", complete)
    formats.write_ratio(tmp_path / "ratio", complete, film_sizes=film_sizes)
    for annotation in complete:
        formats.write_mrk_json(tmp_path / "mrk" / f"{annotation.film}.mrk.json", annotation, spacing=(0.1, 0.2))
        formats.write_fcsv(tmp_path / "fcsv" / f"{annotation.film}.fcsv", annotation, spacing=(0.1, 0.2))
    return {
        "csv": formats.write_csv(tmp_path / "wide.csv", complete),
        "isbi": tmp_path / "isbi",
        "dha": formats.write_dha(tmp_path / "dha.csv", complete),
        "ratio": tmp_path / "ratio",
        "coco": formats.write_coco(tmp_path / "coco.json", complete, film_sizes=film_sizes),
        "mrk.json": tmp_path / "mrk",
        "fcsv": tmp_path / "fcsv",
        "json": formats.write_plain_json(tmp_path / "plain.json", complete),
    }


def test_every_format_is_recognized_and_read(
    written: dict[str, Path], complete: list[Annotation], schema: Any, film_sizes: dict[str, tuple[int, int]]
) -> None:
    assert set(written) == set(formats.FORMATS)
    for kind, path in written.items():
        assert sniff_format(path) == kind
        got = read_annotations(path, schema=schema, film_sizes=film_sizes, spacing=(0.1, 0.2), reader="r")
        assert [(a.film, a.names, a.reader) for a in got] == [(a.film, a.names, "r") for a in complete], kind
        for one, other in zip(got, complete, strict=True):
            assert abs(one.landmarks - other.landmarks).max() < 1e-9, kind


def test_single_files_of_folder_formats_are_recognized(written: dict[str, Path]) -> None:
    for kind in ("isbi", "ratio", "mrk.json", "fcsv"):
        assert sniff_format(sorted(written[kind].iterdir())[0]) == kind


def test_the_long_csv_is_recognized(tmp_path: Path, complete: list[Annotation]) -> None:
    assert read_annotations(formats.write_csv(tmp_path / "long.csv", complete, "long")) == complete


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", json.dumps({"points": []}), "unknown kind of JSON.*points.*name the format"),
        ("a.json", json.dumps({"films": [], "markups": []}), "unknown kind of JSON"),
        ("a.json", "[]", "unknown kind of JSON"),
        ("a.txt", "hello\n", "unknown kind of text; found: 'hello'"),
        ("a.txt", "", "unknown kind of text"),
        ("a.csv", "1,a_x,3\n", "unknown kind of CSV"),
        ("a.csv", "", "unknown kind of CSV"),
        ("a.xml", "<a/>", "unknown kind of annotation file; found: '.xml'"),
    ],
)
def test_what_fits_no_format_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationError, match=words):
        read_annotations(tmp_path / name)


def test_folders_of_several_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no annotation files"):
        read_annotations(tmp_path)
    (tmp_path / "a.txt").write_text("1,2\n")
    (tmp_path / "a.csv").write_text("film,a_x,a_y\n")
    with pytest.raises(AnnotationError, match=r"several kinds; found: \['.csv', '.txt'\]"):
        read_annotations(tmp_path)


def test_what_a_format_needs_must_be_given(written: dict[str, Path]) -> None:
    with pytest.raises(AnnotationError, match="ratio annotations mean nothing without film_sizes"):
        read_annotations(written["ratio"])
    for kind in ("mrk.json", "fcsv"):
        with pytest.raises(AnnotationError, match=r"without spacing.*\(1\.0, 1\.0\)"):
            read_annotations(written[kind])
    with pytest.raises(AnnotationError, match="unknown annotation format; found: 'xls'"):
        read_annotations(written["csv"], "xls")


def test_the_named_format_is_not_questioned(written: dict[str, Path]) -> None:
    with pytest.raises(AnnotationError, match="wrong number of values"):
        read_annotations(written["csv"], "dha")


def test_damaged_files_are_read_or_refused_but_never_crash(
    tmp_path: Path, written: dict[str, Path], schema: Any, film_sizes: dict[str, tuple[int, int]]
) -> None:
    chance = random.Random(5)
    refused = 0
    for kind, path in written.items():
        source = sorted(path.iterdir())[0] if path.is_dir() else path
        content = source.read_bytes()
        damaged = tmp_path / "damaged" / source.name
        damaged.parent.mkdir(exist_ok=True)
        for _ in range(60):
            at = chance.randrange(len(content))
            junk = chance.choice(
                [b"", b"\x00", b'"', b",", b"nan", b"-", b"1e999", b"\xff", b"[", b"{}", b"\n", b"null", b"true"]
            )
            cut = chance.choice([0, 1, 5, len(content)])
            damaged.write_bytes(content[:at] + junk + content[at + cut :])
            try:
                read_annotations(damaged, kind, schema=schema, film_sizes=film_sizes, spacing=(0.1, 0.2))
            except DataError as error:
                refused += 1
                assert "damaged" in str(error), error
    assert refused > 200
