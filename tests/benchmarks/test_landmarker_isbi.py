"""The comparison with landmarker: points find their way back to the film, times are kept, the table says what it is.

What needs landmarker itself is skipped where it is not installed; everything else does without.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from monai_landmark.data.datalist import load_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.errors import AnnotationError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIZES = [(2400, 1935), (1935, 2400), (512, 512), (731, 700)]
PARTS = ("landmarker_grid", "landmarker_table", "landmarker_isbi", "landmarker_recipe", "records")


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a file of the benchmarks' folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in PARTS:
        sys.modules.pop(name, None)


@pytest.fixture
def recipe(part: Any) -> ModuleType:
    """landmarker's recipe."""
    pytest.importorskip("landmarker", reason="landmarker is not installed: pip install landmarker==0.4.1")
    return part("landmarker_recipe")


def facts(**changes: Any) -> dict[str, Any]:
    """What a run left."""
    known = {"parameters": 6_181_030, "grids": [[512, 512]], "batch": 1, "steps": [300], "recipe_steps": [30_000]}
    known |= {"recipe_epochs": 200, "step_s": [12.0], "processor_s": 3700.0, "start": "random", "seed": 0}
    known |= {"command": "c", "commit": "abc", "date": "2026-01-02", "machine": "m", "minutes": 60.0}
    return {**known, **changes}


def metrics(mre: float) -> dict[str, Any]:
    """What an evaluation left."""
    rates = {"sdr2": 70.0, "sdr2.5": 80.0, "sdr3": 90.0, "sdr4": 95.0}
    every = {"films": 150, "mre_mm": mre, "mre_mm_interval": [mre - 0.1, mre + 0.1], "median_mm": 1.0, **rates}
    return {"all_films": every, "leak_free": {**every, "films": 130, "mre_mm": mre + 0.05}}


def runs() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Both runs."""
    stages = {"grids": [[320, 256], [448, 352]], "batch": 4, "steps": [1600, 500], "recipe_steps": [800, 250]}
    ours = facts(**stages, recipe_epochs=21, step_s=[1.0, 4.0], parameters=4_000_000, start="ImageNet")
    return {"landmarker": (facts(), metrics(3.0)), "ours": (ours, metrics(1.25))}


@pytest.mark.parametrize("size", SIZES)
def test_points_come_back_to_the_film(part: Any, size: tuple[int, int]) -> None:
    points = np.random.default_rng(0).uniform(0, min(size), (50, 2))  # (x, y)
    padding = np.array([0, 232]) if size[0] > size[1] else np.array([100, 0])
    padded = np.array(size) + 2 * padding
    on_grid = np.stack(
        [(points[:, 1] + padding[0]) * 512 / padded[0], (points[:, 0] + padding[1]) * 512 / padded[1]], 1
    )
    np.testing.assert_allclose(part("landmarker_grid").to_film(on_grid, size, padding), points, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_points_come_back_from_where_landmarker_puts_them(recipe: ModuleType, size: tuple[int, int]) -> None:
    points = np.random.default_rng(1).uniform(0, min(size), (50, 2))
    _, padding = recipe.fitted(film_of(np.zeros(size, np.float32)))
    on_grid = recipe.resize_landmarks(torch.tensor(points[:, ::-1].copy()), size, recipe.GRID, padding)
    np.testing.assert_allclose(recipe.to_film(on_grid.numpy(), size, padding.numpy()), points, atol=1e-3)


def film_of(pixels: np.ndarray) -> Any:
    """A film without spacing."""
    from monai_landmark.data.film import Film
    from monai_landmark.data.spacing import FilmSpacing

    return Film(pixels, FilmSpacing(None, None, "none"))


def test_picture_and_points_differ_by_the_same_half_pixel_everywhere(recipe: ModuleType) -> None:
    size = (1200, 967)
    where = np.array([[150.0, 200.0], [800.0, 300.0], [480.0, 1000.0]])  # (x, y)
    rows, columns = np.mgrid[: size[0], : size[1]]
    found = []
    for x, y in where:
        pixels = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 15**2)).astype(np.float32)
        image, padding = recipe.fitted(film_of(pixels))
        share = image[0].double() / image[0].double().sum()
        grid = torch.arange(512.0, dtype=torch.float64)
        center = np.array([float((share.sum(1) * grid).sum()), float((share.sum(0) * grid).sum())])
        found.append(recipe.to_film(center[None], size, padding.numpy())[0])
    shift = np.array(found) - where
    np.testing.assert_allclose(shift, shift[[0]].repeat(3, 0), atol=0.02)  # so that a network can learn it
    assert np.abs(shift).max() < 0.7  # half of (1200 / 512 - 1)


def test_network_is_that_of_the_example(recipe: ModuleType, tmp_path: Path) -> None:
    training = recipe.LandmarkerTraining(19, 0, tmp_path / "checkpoint.pt")
    assert sum(weight.numel() for weight in training.network.parameters()) == 6_181_030  # as its notebook prints
    decay = [(group["weight_decay"], group["lr"], group["momentum"]) for group in training.optimizer.param_groups]
    assert decay == [(1e-3, 1e-6, 0.99), (0, 1e-6, 0.99), (0, 1e-6, 0.99)]


def test_training_goes_on_where_it_was_stopped(recipe: ModuleType, tmp_path: Path) -> None:
    """Three steps in one go, and in a process each, give the same weights; time adds up."""
    write_synthetic_dataset(tmp_path, training=2, test=1, unlabelled=0, size=(200, 216))
    datalist = tmp_path / "datalist.json"
    schema = LandmarkSchema.load("synthetic")
    items = load_datalist(datalist, "training")
    with pytest.raises(AnnotationError, match="needs every landmark"):
        recipe.training_films(items, recipe.augmentation())
    for item in items:
        item["landmarks"] = np.nan_to_num(item["landmarks"], nan=100.0).tolist()
    films = recipe.training_films(items, recipe.augmentation())
    once = small(recipe, schema.count, tmp_path / "once.pt")
    films.transform = once.augmentation
    for _ in range(3):
        once.step(films)
    for _ in range(3):  # a process each
        again = small(recipe, schema.count, tmp_path / "again.pt")
        films.transform = again.augmentation
        again.step(films)
        spent = again._save()
    assert again.steps == 3 and again.schedule.last_epoch == 1 and len(again.losses) == 1
    assert spent > again.earlier_s > 0
    for mine, other in zip(once.network.parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    result = again.predict(load_datalist(datalist, "test")[0], schema)
    assert result.original_size == (200, 216) and np.isfinite(result.points_px).all()
    assert result.model_name.startswith("landmarker ")


def small(recipe: ModuleType, landmarks: int, checkpoint: Path) -> Any:
    """The recipe with few channels, which takes no time."""
    whole = recipe.OriginalSpatialConfigurationNet
    try:
        recipe.OriginalSpatialConfigurationNet = lambda **keys: whole(**keys, la_channels=2, sp_channels=2)
        return recipe.LandmarkerTraining(landmarks, 0, checkpoint)
    finally:
        recipe.OriginalSpatialConfigurationNet = whole


def test_speeds_of_both(part: Any) -> None:
    theirs, ours = (part("landmarker_table").speeds(run) for run, _ in runs().values())
    assert theirs["films_per_s"][0] == pytest.approx(1 / 12)
    assert theirs["recipe_share"][0] == pytest.approx(0.01)
    assert theirs["recipe_h"][0] == pytest.approx(100)
    assert ours["step_s"][0] == pytest.approx(3600 / 2100)
    assert ours["films_per_s"][0] == pytest.approx(8400 / 3600)
    assert ours["recipe_share"][0] == pytest.approx(2)


def test_table_says_what_share_of_the_recipe_it_is(part: Any) -> None:
    text = "\n".join(part("landmarker_table").table(runs()))
    assert "| MRE mm, 150 films, all | 3.00 | 1.25 |" in text
    assert "| MRE mm, 130 films, leak-free | 3.05 | 1.30 |" in text
    assert "| SDR 2 / 2.5 / 3 / 4 mm %, 150 films, all | 70.0 / 80.0 / 90.0 / 95.0 |" in text
    assert "| share of its recipe's steps | 1.0% | 200.0% |" in text
    assert "Equal processor time" in text and "200 epochs it had 2.0 (1.0%)" in text and "1.20 mm" in text


def test_records_have_every_field(part: Any) -> None:
    found = part("landmarker_table").records(runs())
    fields = "name value unit n interval seeds command commit date machine split reader labels near_duplicates notes"
    assert all(set(row) == set(fields.split()) for row in found)
    by = {row["name"]: row for row in found}
    assert len(by) == len(found)
    mre = by["isbi2015/test1/150/landmarker/equal_time/mre_mm"]
    assert (mre["value"], mre["n"], mre["interval"], mre["near_duplicates"]) == (3.0, 150, [2.9, 3.1], "kept")
    assert by["isbi2015/test1/150/best/equal_time/leakfree_mre_mm"]["value"] == 1.3
    assert not any("1.20" in json.dumps(row) for row in found)  # what others published is no record


def test_steps_fit_the_time(part: Any) -> None:
    planned = part("landmarker_isbi").planned_epoch_steps
    steps = planned(100.0, [30.0, 20.0], [800 * 1.5, 250 * 5.0], 50)
    spent = 50 + steps / 50 * (800 * 1.5 + 250 * 5.0)
    assert 0.95 * 6000 < spent <= 0.97 * 6000
    with pytest.raises(SystemExit, match=r"too short .* need 1\.7"):  # (50 + 2450 / 50) / 0.97 s
        planned(1.0, [30.0, 20.0], [800 * 1.5, 250 * 5.0], 50)


def test_stages_are_those_of_the_shipped_recipe(part: Any) -> None:
    args = argparse.Namespace(datalist=Path("d.json"), work=Path("w"), seed=3, weights="imagenet")
    coarse, fine = part("landmarker_isbi").stages(args)
    assert [keys["epochs"] * keys["steps_per_epoch"] for keys in (coarse, fine)] == [1200, 500]
    assert (coarse["spatial_size"], fine["spatial_size"]) == ([320, 256], [448, 352])
    assert coarse["initialization"] == "imagenet"
    assert fine["initialization"] == str(Path(coarse["output_dir"]) / "model.safetensors")
    assert "label_budget" not in coarse  # all there are


def test_processor_clock_goes_on(part: Any, tmp_path: Path) -> None:
    clock_type, seen = part("landmarker_isbi").ProcessorClock, []
    for _ in range(2):
        clock = clock_type(tmp_path / "processor.json")
        engine = Engine(lambda engine, batch: sum(index * index for index in range(200_000)))
        clock.attach(engine)
        engine.run([0, 1], max_epochs=2)
        seen.append((len(clock.step_s), clock.processor_s))
    assert [number for number, _ in seen] == [4, 8]
    assert seen[1][1] > seen[0][1] + sum(clock.step_s[4:]) > 0
    assert min(clock.step_s) > 0


def test_both_runs_must_be_there(part: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"run\.json is not there"):
        part("landmarker_isbi").show(argparse.Namespace(work=tmp_path, json=None))


def test_table_and_records_from_the_files(part: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (run, measured) in runs().items():
        (tmp_path / name / "evaluation").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps(run))
        (tmp_path / name / "evaluation" / "metrics.json").write_text(json.dumps(measured))
    part("landmarker_isbi").show(argparse.Namespace(work=tmp_path, json=tmp_path / "records.json"))
    assert "landmarker's recipe" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "records.json").read_text())) == 2 * (7 + 6 + 6)
