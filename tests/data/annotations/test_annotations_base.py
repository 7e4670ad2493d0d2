"""The annotation type, the parsing helpers and the checks that every format shares."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation
from monai_landmark.data.annotations.base import check_annotations, find_film, from_listed, from_named, from_rows
from monai_landmark.data.annotations.parsing import (
    annotation_files,
    json_entry,
    json_point,
    number_text,
    parse_number,
    parse_point,
    read_json,
    read_text,
)
from monai_landmark.errors import AnnotationError

FILE = Path("some.csv")
NAN = math.nan


def _annotation(points: list[tuple[float, float]], film: str = "f", reader: str | None = None) -> Annotation:
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    return Annotation(film, array, np.where(np.isnan(array[:, 0]), 0, 2).astype(np.int8), None, reader)


@pytest.mark.parametrize(
    ("points", "visibility", "names"),
    [
        ([[1, NAN]], [2], None),
        ([[1, 2]], [0], None),
        ([[NAN, NAN]], [2], None),
        ([[1, 2]], [3], None),
        ([[1, math.inf]], [2], None),
        ([[math.inf, math.inf]], [0], None),
        ([[1, 2]], [2, 2], None),
        ([[1, 2, 3]], [2], None),
        ([[1, 2]], [2], ("a", "b")),
    ],
)
def test_an_annotation_cannot_contradict_itself(points: list, visibility: list, names: tuple | None) -> None:
    with pytest.raises(AnnotationError):
        Annotation("f", np.array(points, dtype=np.float64), np.array(visibility, dtype=np.int8), names)


def test_equality_sees_every_part_and_takes_nan_as_equal() -> None:
    one = _annotation([(1, 2), (NAN, NAN)])
    assert one == _annotation([(1, 2), (NAN, NAN)])
    assert one != _annotation([(1, 2), (3, 4)])
    assert one != _annotation([(1, 2.0000001), (NAN, NAN)])
    assert one != _annotation([(1, 2), (NAN, NAN)], reader="b")
    assert one != "f"
    assert one.points()[0] == (1, 2, 2) and one.points()[1][2] == 0
    assert one.annotated.tolist() == [True, False]


def test_named_points_are_put_in_order_and_absent_ones_are_missing() -> None:
    annotation = from_named("f", {"b": (3, 4, 1)}, ("a", "b"), file=FILE)
    np.testing.assert_array_equal(annotation.landmarks, [[NAN, NAN], [3, 4]])
    assert annotation.visibility.tolist() == [0, 1]


def test_unknown_names_are_refused_and_a_near_one_suggested() -> None:
    with pytest.raises(AnnotationError, match=r"some\.csv.*'sela'.*what to do: rename it to 'sella'"):
        from_named("f", {"sela": (3, 4, 1)}, ("sella", "nasion"), file=FILE)


def test_listed_names_are_reordered_and_must_be_those_of_the_schema() -> None:
    annotation = from_listed("f", [(1, 2, 2), (3, 4, 2)], ["b", "a"], ["a", "b"], file=FILE)
    assert annotation.names == ("a", "b") and annotation.landmarks.tolist() == [[3, 4], [1, 2]]
    with pytest.raises(AnnotationError, match=r"does not know all landmarks.*'c'"):
        from_listed("f", [(1, 2, 2), (3, 4, 2)], ["b", "a"], ["a", "b", "c"], file=FILE)
    with pytest.raises(AnnotationError, match=r"wrong number of landmarks.*found: 1.*2 landmarks"):
        from_rows("f", [(1, 2, 2)], ["a", "b"], file=FILE)


def test_landmarks_outside_the_film_are_refused() -> None:
    sizes = {"f": (100, 50)}
    check_annotations([_annotation([(-0.5, -0.5), (50, 100), (NAN, NAN)])], sizes, FILE)
    for point in ((50.1, 10), (10, 100.1), (-0.6, 10), (10, -0.6)):
        with pytest.raises(AnnotationError, match=r"outside the film.*film f, landmark 2.*width 50 and height 100"):
            check_annotations([_annotation([(1, 1), point])], sizes, FILE)


def test_exchanged_axes_are_suspected_only_when_they_explain_everything() -> None:
    sizes = {"f": (100, 50)}
    with pytest.raises(AnnotationError, match="seem to be exchanged"):
        check_annotations([_annotation([(1, 1), (90, 10)])], sizes, FILE)
    with pytest.raises(AnnotationError, match="check that these are pixels"):
        check_annotations([_annotation([(10, 90), (90, 10)])], sizes, FILE)


def test_negative_coordinates_are_outside_any_film() -> None:
    with pytest.raises(AnnotationError, match=r"\(-1\.0, -1\.0\).*not annotated empty"):
        check_annotations([_annotation([(1, 1), (-1, -1)])], None, FILE)


def test_a_film_may_come_once_for_each_reader() -> None:
    check_annotations([_annotation([(1, 1)], reader="a"), _annotation([(1, 1)], reader="b")], None, FILE)
    with pytest.raises(AnnotationError, match=r"film comes more than once.*'f'"):
        check_annotations([_annotation([(1, 1)]), _annotation([(1, 2)])], None, FILE)


def test_films_are_found_by_full_name_then_bare_name() -> None:
    assert find_film({"a/1.png": 1, "1": 2}, "a/1.png", file=None, what="size") == 1
    assert find_film({"1.png": 1}, "a/1.png", file=None, what="size") == 1
    assert find_film({"1": 2}, "a/1.png", file=None, what="size") == 2
    with pytest.raises(AnnotationError, match=r"size of the film unknown.*film 3"):
        find_film({"1": 2}, "3", file=FILE, what="size")


@pytest.mark.parametrize("value", [0.0, -0.0, 835.0, 0.1 + 0.2, 1e-300, 1e22, -7.25, 2**53 + 1.0])
def test_numbers_come_back_exactly_from_their_text(value: float) -> None:
    back = parse_number(number_text(value), file=FILE, field="x")
    assert back == value and math.copysign(1, back) == math.copysign(1, value)


@pytest.mark.parametrize("text", ["", "a", "nan", "inf", "1e999", "1_000", "1 2", "0x10", "1.2.3"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(AnnotationError, match=r"some\.csv: not a number; field: line 3"):
        parse_number(text, file=FILE, field="line 3")


def test_a_decimal_comma_is_named() -> None:
    with pytest.raises(AnnotationError, match=r"'12,5'.*decimal point"):
        parse_number("12,5", file=FILE, field="line 3")


def test_texts_of_a_point() -> None:
    assert parse_point("1", "2", file=FILE, field="x") == (1, 2, 2)
    assert parse_point("1", "2", "1", file=FILE, field="x") == (1, 2, 1)
    for x, y, seen in (("", "", ""), (" NaN", "nan", "0"), ("NA", "", "")):
        assert parse_point(x, y, seen, file=FILE, field="x")[2] == 0
    for x, y, seen in (
        ("1", "", ""),
        ("", "2", ""),
        ("1", "2", "0"),
        ("", "", "2"),
        ("1", "2", "3"),
        ("1", "2", "yes"),
    ):
        with pytest.raises(AnnotationError, match="half a landmark"):
            parse_point(x, y, seen, file=FILE, field="x")


def test_json_of_a_point() -> None:
    assert json_point([1, 2.5], file=FILE, field="x") == (1, 2.5, 2)
    assert json_point([1, 2.5], 1, file=FILE, field="x") == (1, 2.5, 1)
    assert json_point(None, 0, file=FILE, field="x")[2] == 0
    wrong = ([1], [1, "2"], [True, 1], [1, NAN], [1, 10**400], [1, math.inf], "12", {"x": 1})
    for value in wrong:
        with pytest.raises(AnnotationError, match="not a landmark"):
            json_point(value, file=FILE, field="x")
    for value, seen in (([1, 2], 0), (None, 2), ([1, 2], 3), ([1, 2], "2")):
        with pytest.raises(AnnotationError, match="not a landmark"):
            json_point(value, seen, file=FILE, field="x")


def test_json_entries_are_of_the_wanted_kind() -> None:
    assert json_entry({"a": [1]}, "a", list, file=FILE, where="") == [1]
    for container in ({"a": 1}, {}, None, [1], {"a": None}):
        with pytest.raises(AnnotationError, match=r"field: top\.a.*expected: a list"):
            json_entry(container, "a", list, file=FILE, where="top")
    with pytest.raises(AnnotationError, match="a whole number or text"):
        json_entry({"a": True}, "a", (int, str), file=FILE, where="top")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="cannot read the file"):
        read_text(tmp_path / "absent.csv")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"f\xe4rbung\n")
    with pytest.raises(AnnotationError, match=r"latin\.csv: not text in UTF-8"):
        read_text(latin)
    broken = tmp_path / "broken.json"
    for text in ('{"a": 1,\n "b": }', "[" * 100_000, "1" * 5000):
        broken.write_text(text)
        with pytest.raises(AnnotationError, match=r"broken\.json: not valid JSON"):
            read_json(broken)
    with pytest.raises(AnnotationError, match="no annotation file"):
        annotation_files(tmp_path, ".fcsv")
    with pytest.raises(AnnotationError, match="no annotation file"):
        annotation_files(tmp_path / "absent.txt", ".txt")
