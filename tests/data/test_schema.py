"""Landmark schemas: what is shipped, what is refused, and the measures against textbook geometry."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_landmark.data.schema import LandmarkSchema, shipped_schemas
from monai_landmark.errors import AnnotationError

SHAPE = LandmarkSchema(
    name="square",
    title="A square",
    landmarks=("a", "b", "left", "right"),
    pairs=(("left", "right"),),
    lines={"ab": ("a", "b"), "lr": ("left", "right")},
    angles={
        "corner": ("b", "a", "left"),
        "cross": ("ab", "lr"),
        "gap": ("corner", "cross"),
        "back": ("cross", "corner"),
    },
    distances={"ab_length": ("a", "b"), "sides": ("left", "right")},
    ratios={"share": ("ab_length", "sides")},
    groups={"all": ("a", "b", "left", "right")},
    descriptions={"a": "the first"},
)


@pytest.mark.parametrize(("name", "count"), [("isbi19", 19), ("dha37", 37), ("chest6", 6)])
def test_shipped_schemas_have_their_number_of_landmarks_and_groups_that_cover_them(name: str, count: int) -> None:
    schema = LandmarkSchema.load(name)
    assert (schema.name, schema.count, len(set(schema.landmarks))) == (name, count, count)
    grouped = [landmark for group in schema.groups.values() for landmark in group]
    assert sorted(grouped) == sorted(schema.landmarks)
    assert name in shipped_schemas()


@pytest.mark.parametrize("name", ["isbi19", "isbi-19", "ISBI19", "ISBI 19", "isbi_19"])
def test_load_takes_the_usual_spellings(name: str) -> None:
    assert LandmarkSchema.load(name).landmarks[0] == "sella"


def test_isbi_order_is_the_challenge_order() -> None:
    schema = LandmarkSchema.load("isbi19")
    known = {"sella": 1, "nasion": 2, "orbitale": 3, "porion": 4, "gonion": 10, "upper_lip": 13, "articulare": 19}
    assert {name: schema.index(name) + 1 for name in known} == known


def test_chest_flip_exchanges_the_lungs_and_a_second_flip_undoes_it() -> None:
    schema = LandmarkSchema.load("chest6")
    permutation = schema.flip_permutation()
    flipped = [schema.landmarks[i] for i in permutation]
    swap = {"right": "left", "left": "right"}
    assert flipped == [swap[n.split("_")[0]] + n[n.index("_") :] for n in schema.landmarks]
    assert [permutation[i] for i in permutation] == list(range(6))


def test_films_without_sides_keep_their_order_when_mirrored() -> None:
    assert LandmarkSchema.load("isbi19").flip_permutation() == list(range(19))


def test_measures_of_a_known_shape() -> None:
    points = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [1.0, 5.0]])
    measured = SHAPE.measure(points)
    assert measured["corner"] == pytest.approx(90)
    assert measured["cross"] == pytest.approx(45)
    assert measured["gap"] == pytest.approx(45)
    assert measured["back"] == pytest.approx(-45)
    assert measured["ab_length"] == pytest.approx(3)
    assert measured["sides"] == pytest.approx(math.sqrt(2))
    assert measured["share"] == pytest.approx(3 / math.sqrt(2))


def test_angles_agree_with_the_law_of_cosines() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (4, 2))
    b, c, a = (math.dist(points[i], points[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    expected = math.degrees(math.acos((b * b + c * c - a * a) / (2 * b * c)))
    assert SHAPE.measure(points)["corner"] == pytest.approx(expected, abs=1e-9)


def test_measures_do_not_care_where_the_film_lies_nor_how_it_is_turned() -> None:
    points = np.random.default_rng(1).uniform(0, 100, (4, 2))
    turn = np.array([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    assert SHAPE.measure(points @ turn.T + 7) == pytest.approx(SHAPE.measure(points))


def test_missing_and_coinciding_landmarks_give_no_number() -> None:
    points = np.array([[0.0, 0.0], [3.0, 0.0], [math.nan, math.nan], [1.0, 5.0]])
    measured = SHAPE.measure(points)
    assert measured["ab_length"] == 3
    assert all(math.isnan(measured[name]) for name in ("corner", "cross", "gap", "sides", "share"))
    assert math.isnan(SHAPE.measure(np.zeros((4, 2)))["corner"])
    assert math.isnan(SHAPE.measure(np.zeros((4, 2)))["share"])


def test_anb_is_negative_when_the_mandible_lies_in_front() -> None:
    schema = LandmarkSchema.load("isbi19")
    points = np.full((19, 2), np.nan)
    for name, xy in {"sella": (0, 0), "nasion": (70, 0), "subspinale": (66, 60), "supramentale": (70, 100)}.items():
        points[schema.index(name)] = xy
    measured = schema.measure(points)
    assert measured["SNB"] == pytest.approx(90)
    assert measured["SNA"] == pytest.approx(math.degrees(math.atan2(60, 4)))
    assert measured["ANB"] == pytest.approx(measured["SNA"] - 90) and measured["ANB"] < 0


def test_cephalometric_norms_hold_on_the_real_readings(shared_data: Path) -> None:
    """Population means of orthodontic textbooks, wide enough for a mixed clinical sample."""
    schema = LandmarkSchema.load("isbi19")
    files = sorted((shared_data / "isbi2015" / "400_senior").glob("*.txt"))
    films = [np.loadtxt(file, delimiter=",", max_rows=19) * 0.1 for file in files]
    measured = [schema.measure(film) for film in films]
    norms = {
        "SNA": 82,
        "SNB": 80,
        "FMA": 27,
        "SN_GoGn": 33,
        "facial_angle": 88,
        "y_axis_angle": 61,
        "gonial_angle": 126,
    }
    for name, norm in norms.items():
        assert np.mean([film[name] for film in measured]) == pytest.approx(norm, abs=6), name
    assert np.mean([film["face_height_index"] for film in measured]) == pytest.approx(0.65, abs=0.05)


def test_hand_schema_matches_the_hands(shared_data: Path) -> None:
    """Fingertips lie beyond their bases, the thumb away from the ulna, and the middle finger reaches highest."""
    rows = np.loadtxt(shared_data / "hand" / "all_910_annotations.csv", delimiter=",")[:, 1:].reshape(-1, 37, 2)
    schema = LandmarkSchema.load("dha37")

    def at(name: str) -> np.ndarray:
        return rows[:, schema.index(name)]

    for finger in ("index", "middle", "ring", "little"):
        ys = [at(f"{finger}_{part}")[:, 1] for part in ("proximal_base", "middle_base", "distal_base", "tip")]
        assert np.mean(np.all(np.diff(ys, axis=0) < 0, axis=0)) > 0.99, finger
    tips = np.stack([at(f"{finger}_tip")[:, 0] for finger in ("little", "ring", "middle", "index", "thumb")])
    assert np.mean(np.all(np.diff(tips, axis=0) > 0, axis=0)) > 0.95
    assert np.mean(at("ulna_ulnar_corner")[:, 0] < at("radius_radial_corner")[:, 0]) > 0.99
    heights = np.stack([at(f"{finger}_tip")[:, 1] for finger in ("middle", "index", "ring", "little", "thumb")])
    assert np.mean(heights.argmin(0) == 0) > 0.95


def test_yaml_round_trip_is_equal(tmp_path: Path) -> None:
    SHAPE.to_yaml(tmp_path / "square.yaml")
    assert LandmarkSchema.from_yaml(tmp_path / "square.yaml") == SHAPE
    for name in ("isbi19", "dha37", "chest6"):
        schema = LandmarkSchema.load(name)
        schema.to_yaml(tmp_path / "copy.yaml")
        assert LandmarkSchema.load(tmp_path / "copy.yaml") == schema


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"landmarks": ("a", "b", "a", "left", "right")}, "landmarks.*more than once|more than once.*landmarks"),
        ({"landmarks": ()}, "must be text"),
        ({"landmarks": ("a ", "b", "left", "right")}, "must be text"),
        ({"landmarks": (False, "b", "left", "right")}, "must be text"),
        ({"pairs": (("left", "wrong"),)}, "unknown name.*pairs 0.*'wrong'"),
        ({"pairs": (("left", "left"),)}, "more than once"),
        ({"pairs": (("left", "right"), ("a", "left"))}, "more than once.*pairs.*'left'"),
        ({"lines": {"ab": ("a", "c"), "lr": ("left", "right")}}, "unknown name.*lines ab.*'c'"),
        ({"lines": {"ab": ("a", "b", "left"), "lr": ("left", "right")}}, "wrong number of names.*lines ab"),
        ({"angles": {"x": ("a", "b", "z")}}, "unknown name.*angles x.*'z'"),
        ({"angles": {"x": ("ab", "zz")}}, "unknown name.*angles x.*'zz'"),
        ({"angles": {"x": ("y", "z"), "y": ("ab", "lr"), "z": ("lr", "ab")}}, "unknown name.*angles x.*'y'"),
        ({"angles": {"x": ("x", "x")}}, "unknown name"),
        ({"angles": {"ab": ("ab", "lr")}}, "lines and angles"),
        ({"distances": {"corner": ("a", "b")}, "ratios": {}}, "angles, distances and ratios"),
        ({"ratios": {"share": ("ab_length", "nothing")}}, "unknown name.*ratios share.*'nothing'"),
        ({"groups": {"all": ("a", "q")}}, "unknown name.*groups all.*'q'"),
        ({"groups": {"all": "a"}}, "wrong number of names.*groups all"),
        ({"descriptions": {"q": "nowhere"}}, "unknown name.*descriptions.*'q'"),
        ({"name": 19}, "name and title must be text"),
    ],
)
def test_contradictions_are_refused_with_the_place(change: dict[str, object], words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        replace(SHAPE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\ntitle: y\n", "not a landmark schema"),
        ("- a\n- b\n", "not a landmark schema"),
        ("name: x\ntitle: y\nlandmarks: [a]\ncolour: red\n", "not a landmark schema"),
        ("name: x\ntitle: y\nlandmarks: a\n", "wrong kind of value.*a list"),
        ("name: x\ntitle: y\nlandmarks: [a]\nlines: [a]\n", "wrong kind of value.*a mapping"),
        ("name: x\ntitle: y\nlandmarks: [a, a]\n", "more than once"),
        ("name: [x\n", "cannot read the landmark schema"),
        ("!!python/object/apply:os.getcwd []\n", "cannot read the landmark schema"),
    ],
)
def test_bad_yaml_is_refused_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(AnnotationError, match=words) as caught:
        LandmarkSchema.from_yaml(file)
    assert str(file) in str(caught.value)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="isbi19"):
        LandmarkSchema.load("isbi20")
    with pytest.raises(AnnotationError, match="cannot read"):
        LandmarkSchema.load(tmp_path / "absent.yaml")
    with pytest.raises(AnnotationError, match=r"unknown landmark.*'Sella'"):
        LandmarkSchema.load("isbi19").index("Sella")
    with pytest.raises(AnnotationError, match="do not fit"):
        SHAPE.measure(np.zeros((3, 2)))
