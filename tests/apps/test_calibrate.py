"""``calibrate`` and what follows from it, with a network trained for two steps on synthetic films."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_landmark.apps.calibrate import calibrate, calibration_films
from monai_landmark.apps.cli import main
from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.data.datalist import landmarks_array, load_datalist
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.results.evaluation import EvaluatedFilm
from monai_landmark.uncertainty import (
    PEAK_BINS,
    Calibration,
    expected_calibration_error,
    expected_radial_error,
    peak_probability,
)

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_landmarks"
ONE_VIEW = {"views": [[0, 1]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, train_two_steps: Callable[..., None]) -> Path:
    """Films, 3 of 17 annotated ones trained on, and the model."""
    folder = tmp_path_factory.mktemp("calibrate")
    write_synthetic_dataset(folder / "films", training=17, test=1, unlabelled=0, size=(200, 216))
    train_two_steps(folder / "films", folder / "model", label_budget=3)
    return folder


@pytest.fixture(scope="module")
def calibrated(folder: Path) -> Path:
    """The model folder once more, calibrated from the command line."""
    shutil.copytree(folder / "model", folder / "calibrated")
    assert command(folder / "calibrated", folder / "films" / "datalist.json", "--scale-share", "0.3") == 0
    return folder / "calibrated"


def command(model: Path, datalist: Path, *words: str) -> int:
    where = ["--model-dir", model, "--datalist", datalist, "--bundle", BUNDLE, "--device", "cpu"]
    return main(["calibrate", *map(str, where), *words])


def card_of(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "model" / "model.json").read_text())
    return card


def test_uses_every_annotated_film_once_and_none_that_was_trained_on(folder: Path, calibrated: Path) -> None:
    calibration = Calibration.load(calibrated / "uncertainty.json")
    annotated = {item["sha256"] for item in load_datalist(folder / "films" / "datalist.json", "training")}
    assert {*calibration.films, *calibration.scale_films} == annotated - set(card_of(folder)["films"])
    assert (len(calibration.films), len(calibration.scale_films)) == (10, 4)
    items = {item["sha256"]: item for item in load_datalist(folder / "films" / "datalist.json", "training")}
    shown = np.isfinite([landmarks_array(items[film])[:, 0] for film in calibration.films]).sum(axis=0)
    assert calibration.sections == ("training",)
    np.testing.assert_array_equal(np.isfinite(calibration.factors), shown >= 9)  # a few leave the film now and then
    assert calibration.model_sha256 == card_of(folder)["sha256"]
    assert (calibration.scales != 1.0).all()  # fitted


def test_predictions_carry_what_the_file_says(folder: Path, calibrated: Path) -> None:
    item = load_datalist(folder / "films" / "datalist.json", "test")[0]
    predictor = LandmarkPredictor(BUNDLE, calibrated, "cpu")
    plain = LandmarkPredictor(BUNDLE, folder / "model", "cpu")
    result, before = predictor(item), plain(item)
    calibration = Calibration.load(calibrated / "uncertainty.json")
    image, logits = predictor.maps(item)
    points = torch.as_tensor(result.points_mm)
    expected = calibration.scales * expected_radial_error(logits, image.affine, points).numpy()
    np.testing.assert_allclose(result.expected_error_mm, expected, rtol=1e-6)
    np.testing.assert_array_equal(result.region_radius_mm, calibration.region_radius_mm(result.expected_error_mm))
    np.testing.assert_array_equal(result.refer, calibration.refer(result.expected_error_mm))
    assert result.guarantee == (0.9, 4.0, 0.05)
    assert before.guarantee is before.refer is before.region_radius_mm is None
    np.testing.assert_array_equal(before.points_px, result.points_px)  # scales move no point
    np.testing.assert_allclose(before.expected_error_mm, expected_radial_error(logits, image.affine, points), rtol=1e-6)
    without = predictor({"image": item["image"], "id": "x"})
    assert without.spacing_mm is without.expected_error_mm is without.region_radius_mm is without.guarantee is None


def test_errors_are_those_of_the_predictions(folder: Path) -> None:
    datalist = folder / "films" / "datalist.json"
    predictor = LandmarkPredictor(BUNDLE, folder / "model", "cpu", calibration=None, **ONE_VIEW)
    done = calibrate(predictor, datalist, ("training",), scale_share=0.0)
    assert done.calibration.scale_films == () and set(done.calibration.scales) == {1.0}
    peaks, near = [], []
    for item in calibration_films(datalist, predictor.card)[0]:
        image, logits = predictor.maps(item)
        points = predictor.result(item["id"], image, logits).points_mm / item["spacing"][::-1]
        side_px = np.linalg.norm(np.asarray(image.affine)[:2, :1]) / item["spacing"][0]  # of a grid pixel, square
        distance = np.linalg.norm(points - landmarks_array(item), axis=1) / side_px
        near.append(np.where(np.isnan(distance), np.nan, distance < 1 / np.sqrt(np.pi)))
        peaks.append(peak_probability(logits).numpy())
    known = ~np.isnan(near)
    by_hand = expected_calibration_error(np.array(peaks)[known], np.array(near)[known], PEAK_BINS)
    assert done.calibration_error == pytest.approx(by_hand, abs=1e-9)
    items = {item["sha256"]: item for item in load_datalist(datalist, "training")}
    for film, errors in list(zip(done.calibration.films, done.errors_mm, strict=True))[:2]:
        film_errors = EvaluatedFilm(predictor(items[film]), landmarks_array(items[film])).errors("mm")
        np.testing.assert_allclose(errors, film_errors, rtol=1e-9)
    # of 9 to 14 scores the rank at 0.9 is the last: every region holds its landmark on the films it was fitted on
    known = ~np.isnan(done.errors_mm) & np.isfinite(done.calibration.factors)
    radii = done.calibration.region_radius_mm(done.expected_mm)
    assert known.sum() > 200 and (done.errors_mm[known] <= radii[known] * (1 + 1e-12)).all()


def test_refuses_the_test_section_and_too_few_films(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datalist = folder / "films" / "datalist.json"
    assert command(folder / "model", datalist, "--section", "test") == 1
    assert "not a section to calibrate on" in capsys.readouterr().err
    assert command(folder / "model", datalist, "--level", "0.99", "--scale-share", "0") == 1
    assert "at least 99" in capsys.readouterr().err
    assert not (folder / "model" / "uncertainty.json").exists()
    with pytest.raises(ConfigurationError, match="trained on"):
        calibration_films(datalist, {"films": 3})


def test_what_is_left_out_has_a_reason(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "films" / "datalist.json").read_text())
    hashes = card_of(folder)["films"]
    trained = {item["id"] for item in content["training"] if item["sha256"] in hashes}
    spare = [item for item in content["training"] if item["id"] not in trained]
    spare[0].update(spacing=None, spacing_source="none")
    spare[1]["near_duplicates"] = [content["test"][0]["id"]]
    content["root"] = str(folder / "films")
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    films, left_out = calibration_films(tmp_path / "datalist.json", card_of(folder))
    reasons = {entry.film: entry.reason for entry in left_out}
    assert "no pixel spacing" in reasons[spare[0]["id"]] and "test film" in reasons[spare[1]["id"]]
    assert set(reasons) == trained | {spare[0]["id"], spare[1]["id"]} and len(films) == 12


def test_the_calibration_of_other_weights_stops_a_prediction(calibrated: Path, tmp_path: Path) -> None:
    shutil.copytree(calibrated, tmp_path / "model")
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps(card | {"sha256": "0" * 64}))
    with pytest.raises(WeightsError, match="other weights"):
        LandmarkPredictor(BUNDLE, tmp_path / "model", "cpu")
    with pytest.raises(ConfigurationError, match="another way"):
        LandmarkPredictor(BUNDLE, calibrated, "cpu", **ONE_VIEW)
