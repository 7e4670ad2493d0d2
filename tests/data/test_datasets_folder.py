"""One's own folder of films becomes a datalist: by patient, from any format, without copies across sections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from film_folder import annotation, ids, item, must_save, points, save_film
from PIL import Image

from monai_landmark.data.annotations import write_csv, write_fcsv, write_mrk_json, write_ratio
from monai_landmark.data.datalist import Datalist, landmarks_array
from monai_landmark.data.datasets import prepare_folder
from monai_landmark.data.datasets.split import Fractions
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError, DataError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Six patients with two films each, the first annotated; p6 is not annotated at all."""
    folder = tmp_path / "films"
    rows = []
    for patient in range(1, 7):
        for view in "ab":
            save_film(folder / f"p{patient}" / f"{view}{patient}.png", 10 * patient + ord(view))
        if patient < 6:
            rows.append(annotation(f"a{patient}.png", points(patient, 3), names=("tip", "base", "heel")))
    write_csv(tmp_path / "marks.csv", rows)
    return folder


def prepare_own(own: Path, **changes: Any) -> Datalist:
    options: dict[str, Any] = {"annotations": own.parent / "marks.csv", "schema_out": own.parent / "own.schema.yaml"}
    return prepare_folder(own, **{**options, **changes})


def test_folder_by_patient(own: Path, tmp_path: Path) -> None:
    found = prepare_own(own, patient_pattern=r"^(p\d)/", fractions=Fractions(0.2, 0.2))
    assert [len(ids(found, section)) for section in ("training", "validation", "test")] == [3, 1, 1]
    scored = {found.sections[section][0]["patient"] for section in ("validation", "test")}
    unlabelled = {entry["patient"] for entry in found.sections["unlabelled"]}
    assert unlabelled == {f"p{n}" for n in range(1, 7)} - scored and len(ids(found, "unlabelled")) == 5
    assert {(Path(e.film).parent.name, e.by) for e in found.left_out} == {(p, "rule") for p in scored}
    np.testing.assert_allclose(landmarks_array(item(found, "p1/a1")), points(1, 3))
    assert LandmarkSchema.load(found.schema).landmarks == ("tip", "base", "heel")
    must_save(found, tmp_path)


def test_folder_patients_from_a_table(own: Path) -> None:
    (own.parent / "who.csv").write_text(
        "film,patient\n" + "".join(f"{v}{n}.png,{'same' if n < 3 else n}\n" for n in range(1, 6) for v in "ab")
    )
    found = prepare_own(own, patients=own.parent / "who.csv")
    assert {item(found, f"p{n}/a{n}")["patient"] for n in (1, 2)} == {"same"}
    faults = {entry.film for entry in found.left_out if entry.by == "fault"}
    assert faults == {"p6/a6.png", "p6/b6.png"}


def test_folder_patient_rules_that_fail(own: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"regular expression"):
        prepare_own(own, patient_pattern="(")
    with pytest.raises(ConfigurationError, match="two rules"):
        prepare_own(own, patient_pattern="p", patients=own.parent / "who.csv")
    with pytest.raises(AnnotationError, match="columns are missing"):
        prepare_own(own, patients=own.parent / "marks.csv")


def test_folder_broken_films_and_unknown_annotations_are_reported(own: Path) -> None:
    (own / "p1" / "a1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    text = (own.parent / "marks.csv").read_text() + "zz.png,1,1,2,2,3,3\n"
    (own.parent / "marks.csv").write_text(text.replace("a2.png", "p2/a2"))
    found = prepare_own(own)
    assert {entry.film for entry in found.left_out if entry.by == "fault"} == {"p1/a1.png", "zz.png"}
    assert "p2/a2" in ids(found, "training") + ids(found, "test")


def test_folder_landmark_outside_its_film(own: Path) -> None:
    outside = [annotation(f"a{n}.png", points(n, 3) + (500 if n == 2 else 0), names=("x", "y", "z")) for n in (1, 2, 3)]
    write_csv(own.parent / "marks.csv", outside)
    found = prepare_own(own)
    (fault,) = (entry for entry in found.left_out if entry.by == "fault")
    assert fault.film == "p2/a2.png" and "outside the film" in fault.reason


@pytest.mark.parametrize("name", [r"p1\b1.png", r"C:\films\p1\b1.png", r"p1\b1"])
def test_folder_names_as_windows_writes_them(own: Path, name: str) -> None:
    marks = [annotation(film, points(1, 3), names=("tip", "base", "heel")) for film in (name, "a2.png")]
    write_csv(own.parent / "marks.csv", marks)
    found = prepare_own(own)
    assert item(found, "p1/b1")["landmarks"] == points(1, 3).tolist() and found.left_out == []


def test_folder_ambiguous_names_are_refused(own: Path) -> None:
    save_film(own / "p9" / "a1.png", 99)
    with pytest.raises(AnnotationError, match="several films have this name"):
        prepare_own(own)


@pytest.mark.parametrize("policy", ["mark", "drop", "refuse"])
def test_folder_copies_across_sections(own: Path, policy: str) -> None:
    test_film = item(prepare_own(own), ids(prepare_own(own), "test")[0])
    pixels = np.asarray(Image.open(own / test_film["image"]))
    copy = own / "copy.png"
    Image.fromarray((pixels * 0.9).astype(np.uint8)).save(copy)
    if policy == "refuse":
        with pytest.raises(AnnotationError, match=f"copy = {test_film['id']}|{test_film['id']} = copy"):
            prepare_own(own)
        return
    found = prepare_own(own, duplicates=policy)
    assert test_film["id"] in ids(found, "test")
    if policy == "mark":
        assert item(found, "copy")["near_duplicates"] == [test_film["id"]]
        assert item(found, test_film["id"])["near_duplicates"] == ["copy"]
        assert len(found.duplicates) == 1
    else:
        assert "copy" not in ids(found, "unlabelled")
        assert [(e.film, e.by) for e in found.left_out] == [("copy.png", "rule")]
        assert "near_duplicates" not in item(found, test_film["id"])


def test_folder_several_readers(own: Path) -> None:
    names = ("tip", "base", "heel")
    rows = [
        annotation(f"a{n}.png", points(n, 3) + shift, reader, names)
        for n in range(1, 4)
        for reader, shift in (("kim", 0), ("lee", 1))
        if (n, reader) != (3, "lee")
    ]
    write_csv(own.parent / "marks.csv", rows)
    with pytest.raises(ConfigurationError, match="kim, lee, or mean"):
        prepare_own(own)
    found = prepare_own(own, reader="mean")
    np.testing.assert_allclose(landmarks_array(item(found, "p1/a1")), points(1, 3) + 0.5)
    np.testing.assert_allclose(landmarks_array(item(found, "p1/a1"), "lee"), points(1, 3) + 1)
    assert [entry.film for entry in found.left_out if "not annotated by" in entry.reason] == ["p3/a3.png"]
    assert not prepare_own(own, reader="kim").left_out


@pytest.mark.parametrize("kind", ["ratio", "mrk.json", "fcsv"])
def test_folder_formats_that_need_the_films(own: Path, kind: str) -> None:
    schema = LandmarkSchema("own", "Own", ("tip", "base", "heel"))
    schema.to_yaml(own.parent / "own.yaml")
    marks = own.parent / "marks"
    marks.mkdir()
    for n in range(1, 4):
        one = annotation(f"a{n}", points(n, 3), names=schema.landmarks)
        if kind == "ratio":
            write_ratio(marks, [one], film_sizes={f"a{n}": (60, 48)})
        elif kind == "fcsv":
            write_fcsv(marks / f"a{n}.fcsv", one, spacing=(0.2, 0.1))
        else:
            write_mrk_json(marks / f"a{n}.mrk.json", one, spacing=(0.2, 0.1))
    broken = marks / ("a9.txt" if kind == "ratio" else f"a9.{kind}")
    broken.write_text("{")
    found = prepare_folder(own, annotations=marks, schema=str(own.parent / "own.yaml"), spacing_mm=(0.2, 0.1))
    np.testing.assert_allclose(landmarks_array(item(found, "p2/a2")), points(2, 3), atol=1e-3)
    assert [entry.film for entry in found.left_out] == [broken.name]


def test_folder_schema_that_a_user_extended_is_kept(own: Path) -> None:
    names = ("tip", "base", "heel")
    LandmarkSchema("own", "Own", names, pairs=(("base", "heel"),)).to_yaml(own.parent / "own.schema.yaml")
    assert LandmarkSchema.load(prepare_own(own).schema).pairs == (("base", "heel"),)
    LandmarkSchema("own", "Own", ("else",)).to_yaml(own.parent / "own.schema.yaml")
    with pytest.raises(AnnotationError, match="in the way"):
        prepare_own(own)


def test_folder_without_annotations_is_all_unlabelled(own: Path, tmp_path: Path) -> None:
    found = prepare_folder(own)
    assert list(found.sections) == ["unlabelled"] and found.schema is None and len(ids(found, "unlabelled")) == 12
    must_save(found, tmp_path)


@pytest.mark.parametrize("make", [lambda p: p / "nothing", lambda p: (p / "empty").mkdir() or p / "empty"])
def test_folder_that_holds_no_film(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(DataError, match=r"no such folder|no film can be used"):
        prepare_folder(make(tmp_path))
