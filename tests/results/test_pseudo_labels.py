"""Another detector's landmarks as labels: only of films that may be learned from, and only where they are believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.engines import DrawSampler
from monai_landmark.errors import AnnotationError, ConfigurationError
from monai_landmark.results.files import save_results
from monai_landmark.results.pseudo_labels import draw_weights, pseudo_labeled_films
from monai_landmark.results.result import LandmarkResult

NAMES = LandmarkSchema.load("chest6").landmarks


@pytest.fixture()
def datalist(tmp_path: Path) -> Path:
    def item(name: str) -> dict[str, object]:
        facts = {"image": f"{name}.png", "id": name, "patient": name, "size": [80, 60], "spacing": None}
        return facts | {"spacing_source": "none", "sha256": "0" * 64}

    annotated = {"landmarks": [[1.0, 2.0]] * 6, "visibility": [2] * 6, "readers": {"one": [[1.0, 2.0]] * 6}}
    training = [item(f"a{index}") | annotated for index in range(5)]
    content = {"name": "toy", "schema": "chest6", "root": ".", "training": training}
    content |= {"test": [item("t") | annotated], "unlabelled": [item("u")]}
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def predicted(film: str, confidence: float | None = None, **more: Any) -> LandmarkResult:
    points = np.arange(12.0).reshape(6, 2) + len(film)
    facts: dict[str, Any] = {"film": film, "original_size": (80, 60), "names": NAMES, "points_px": points}
    return LandmarkResult(**(facts | more), confidence=None if confidence is None else np.full(6, confidence))


def test_predictions_take_the_readers_place(datalist: Path, tmp_path: Path) -> None:
    save_results([predicted("a3"), predicted("u"), predicted("a0")], tmp_path / "predictions.json")
    found = pseudo_labeled_films(datalist, tmp_path, leave_out=["a0"])
    assert [film["id"] for film in found] == ["a3", "u"]
    assert found[0]["landmarks"] == predicted("a3").points_px.tolist()
    assert Path(found[1]["image"]) == tmp_path / "u.png" and not {"readers", "visibility"} & set(found[0])


def test_test_films_are_never_learned_from_and_it_is_said(
    datalist: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_results([predicted("a3"), predicted("t")], tmp_path / "predictions.json")
    assert [film["id"] for film in pseudo_labeled_films(datalist, tmp_path)] == ["a3"]
    assert "1 test films" in caplog.text


def test_only_the_most_confident_of_each_landmark_are_believed(datalist: Path, tmp_path: Path) -> None:
    results = [predicted(f"a{index}", 0.1 + 0.2 * index) for index in range(5)]
    lost = results[4].points_px.copy()
    lost[2] = np.nan
    results[4] = predicted("a4", 0.9, points_px=lost)
    save_results(results, tmp_path / "predictions.json")
    found = np.array([film["landmarks"] for film in pseudo_labeled_films(datalist, tmp_path, trust=0.6)])
    believed = np.isfinite(found[..., 0])
    assert not believed[:2].any() and believed[2:4].all()
    assert believed[4].tolist() == [True, True, False, True, True, True]  # not found stays not annotated


def test_without_predictions_there_are_no_films(datalist: Path) -> None:
    assert pseudo_labeled_films(datalist, None) == []


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (predicted("stranger"), "no film of the datalist"),
        (predicted("a1", original_size=(60, 80)), "another film of the same id"),
        (predicted("a1", names=tuple(reversed(NAMES))), "other landmarks"),
    ],
)
def test_what_is_not_of_these_films_is_refused(
    datalist: Path, tmp_path: Path, result: LandmarkResult, problem: str
) -> None:
    save_results([result], tmp_path / "predictions.json")
    with pytest.raises(AnnotationError, match=problem) as caught:
        pseudo_labeled_films(datalist, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_shares_that_are_none_are_refused(datalist: Path) -> None:
    with pytest.raises(ConfigurationError, match="pseudo_trust"):
        pseudo_labeled_films(datalist, None, trust=0)
    with pytest.raises(ConfigurationError, match="pseudo_share"):
        draw_weights(2, 2, share=1)


def test_the_films_with_a_readers_landmarks_keep_their_share_of_the_draws() -> None:
    assert draw_weights(3, 0, share=0.5) is None
    sampler = DrawSampler(40, 400, weights=draw_weights(1, 39, share=0.75))
    assert sum(draw.item == 0 for draw in sampler) == pytest.approx(100, abs=2)
