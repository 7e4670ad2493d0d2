"""Drawn films beside real ones: their landmarks are labels of the films that they were drawn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_landmark.data.budget import labeled_films
from monai_landmark.data.datalist import Datalist, landmarks_json, load_datalist, save_datalist
from monai_landmark.data.drawn import drawn_films
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.errors import AnnotationError


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datalist of three annotated films and a test film."""
    folder = tmp_path_factory.mktemp("real")
    write_synthetic_dataset(folder, training=3, test=1, size=(200, 216))
    return folder / "datalist.json"


def draw(real: Path, folder: Path, films: list[dict[str, Any]]) -> Path:
    """A datalist as `generate` leaves it, the films themselves standing for the drawn ones."""
    known = Datalist.load(real)
    items = [
        {**film, "landmarks": landmarks_json(film["landmarks"]), "id": f"synthetic_{number}", "source": film["sha256"]}
        for number, film in enumerate(films)
    ]
    save_datalist(Datalist(known.name, known.schema, folder, {"training": items}), folder / "drawn.json")
    return folder / "drawn.json"


def test_none_is_none(real: Path) -> None:
    assert drawn_films(None, real, labeled_films(real)) == []


def test_films_drawn_from_those_trained_on(real: Path, tmp_path: Path) -> None:
    films = labeled_films(real, 2)
    found = drawn_films(draw(real, tmp_path, films), real, films)
    for drawn, film in zip(found, films, strict=True):
        assert landmarks_json(drawn["landmarks"]) == landmarks_json(film["landmarks"])


def test_a_label_that_nobody_counts_is_refused(real: Path, tmp_path: Path) -> None:
    drawn = draw(real, tmp_path, labeled_films(real, 3))
    with pytest.raises(AnnotationError, match=r"1 of 3 films were not drawn.*synthetic_2"):
        drawn_films(drawn, real, labeled_films(real, 2))


def test_what_validates_or_tests_is_refused(real: Path, tmp_path: Path) -> None:
    training = labeled_films(real, 3, validation=1)
    for other in (labeled_films(real, 3, validation=1, part="validation"), load_datalist(real, "test")):
        with pytest.raises(AnnotationError, match="1 of 1 films"):
            drawn_films(draw(real, tmp_path, other), real, training)


def test_other_landmarks_are_refused(real: Path, tmp_path: Path) -> None:
    films = labeled_films(real)
    drawn = draw(real, tmp_path, films)
    content = json.loads(drawn.read_text())
    content["schema"] = "dha37"
    for item in content["training"]:
        item["landmarks"] = [[1.0, 1.0]] * 37
        item["visibility"] = [2] * 37
    drawn.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match="other landmarks"):
        drawn_films(drawn, real, films)
