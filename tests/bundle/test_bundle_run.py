"""The bundle's four commands, one after another, as a user types them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import BundleWorkflow, create_workflow
from safetensors.torch import load_file

from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.engines import file_sha256
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import transfer_settings
from monai_landmark.study.measure import main as measure

MonaiBundle = Callable[..., None]
TINY = ["--architecture", "diffusion-tiny", "--epochs", "1", "--steps_per_epoch", "1", "--batch_size", "1"]
TINY += ["--precision", "float32", "--spatial_size", "[64,64]"]


@pytest.fixture(scope="module")
def configs(bundle: Path) -> Path:
    return bundle / "configs"


def test_pretrain_leaves_a_network_and_says_what_it_is(pretrained: Path) -> None:
    card = json.loads((pretrained / "model.json").read_text())
    assert card["architecture"] == "diffusion-tiny" and card["objective"] == "ddpm" and card["steps"] == 2
    assert card["films"] == 6  # 5 annotated ones without their landmarks, 1 unlabelled, none of the 2 test films
    assert card["sha256"] == file_sha256(pretrained / "model.safetensors")


def test_train_starts_from_the_pretrained_network(pretrained: Path, model: Path) -> None:
    before, after = load_file(pretrained / "model.safetensors"), load_file(model / "model.safetensors")
    body = [name for name in before if not name.startswith("unet.out.2.conv.")]
    moved = [float((after[f"diffusion.{name}"] - before[name]).abs().max()) for name in body]
    # two steps of AdamW at the start of a one-cycle schedule, averaged: a random start would differ by far more
    assert 0 < max(moved) < 1e-3


def test_train_keeps_to_the_budget_and_says_what_it_used(films: Path, model: Path) -> None:
    card = json.loads((model / "model.json").read_text())
    annotated = {item["sha256"] for item in json.loads((films / "datalist.json").read_text())["training"]}
    assert card["label_budget"] == 4 and len(card["films"]) == 3 and set(card["films"]) < annotated
    assert card["architecture"] == "diffusion-tiny" and card["spatial_size"] == [64, 64]
    assert card["sha256"] == file_sha256(model / "model.safetensors")
    assert set(torch.load(model / "model.pt", weights_only=True)) == set(load_file(model / "model.safetensors"))


def one_step(configs: Path, films: Path, output: Path, **keys: object) -> BundleWorkflow:
    """A training of one step, not yet run."""
    return create_workflow(
        config_file=str(configs / "train.yaml"),
        workflow_type="train",
        run_id="train",
        logging_file=False,
        dataset_dir=str(films),
        output_dir=str(output),
        architecture="diffusion-tiny",
        spatial_size=[64, 64],
        epochs=1,
        steps_per_epoch=1,
        batch_size=1,
        precision="float32",
        **keys,
    )


def test_train_learns_from_another_detectors_predictions_too(configs: Path, films: Path, tmp_path: Path) -> None:
    datalist = ["--datalist", str(films / "datalist.json"), "--section", "training", "--labels", "2"]
    measure(["mean_shape", *datalist, "--output_dir", str(tmp_path / "teacher")])
    workflow = one_step(configs, films, tmp_path, label_budget=2, pseudo_labels=str(tmp_path / "teacher"))
    workflow.run()
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["label_budget"] == 2 and len(card["films"]) == 2 and len(card["pseudo_films"]) == 3
    assert not set(card["films"]) & set(card["pseudo_films"]) and len(workflow.train_dataset) == 5


@pytest.mark.parametrize("validation", [1, 0])
def test_validation_runs_on_the_films_kept_for_it(configs: Path, films: Path, tmp_path: Path, validation: int) -> None:
    workflow = one_step(configs, films, tmp_path, label_budget=3, validation_films=validation)
    workflow.run()
    assert len(workflow.train_dataset) == 3 - validation and workflow.trainer.state.iteration == 1
    if validation:
        state = workflow.evaluator.state
        assert state.iteration == 1 and 0 < state.best_metric < 500 and state.best_metric == state.metrics["mre_mm"]


@pytest.mark.parametrize(("word", "trains_again"), [("true", False), ("false", True)])
def test_resume_is_what_the_word_says(
    monai_bundle: MonaiBundle, configs: Path, films: Path, model: Path, tmp_path: Path, word: str, trains_again: bool
) -> None:
    shutil.copytree(model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    folders = ["--dataset_dir", films, "--output_dir", tmp_path / "model"]
    monai_bundle("run", "train", "--config_file", configs / "train.yaml", *folders, *TINY, "--resume", word)
    assert (weights.stat().st_mtime_ns > before) == trains_again


def test_resume_refuses_a_word_that_is_neither(
    monai_bundle: MonaiBundle, configs: Path, films: Path, tmp_path: Path
) -> None:
    words = ["--config_file", configs / "train.yaml", "--dataset_dir", films, "--output_dir", tmp_path, *TINY]
    with pytest.raises(RuntimeError) as caught:
        monai_bundle("run", "train", *words, "--resume", "maybe")
    assert "maybe" in str(_cause(caught.value, ValueError))


def test_budget_larger_than_the_datalist_is_refused(
    monai_bundle: MonaiBundle, configs: Path, films: Path, tmp_path: Path
) -> None:
    words = ["--config_file", configs / "train.yaml", "--dataset_dir", films, "--output_dir", tmp_path, *TINY]
    with pytest.raises(RuntimeError) as caught:
        monai_bundle("run", "train", *words, "--label_budget", "50")
    assert "label budget does not fit" in str(_cause(caught.value, ConfigurationError))


def test_a_frozen_network_learns_its_head_alone_and_predicts_as_it_was_trained(
    monai_bundle: MonaiBundle, configs: Path, films: Path, pretrained: Path, tmp_path: Path
) -> None:
    words = ["--dataset_dir", films, "--output_dir", tmp_path, *TINY, "--initialization"]
    transfer = ["--frozen", "true", "--noise", "true", "--timesteps", "[0,40]", "--probe", "{'combine':'mean'}"]
    start = pretrained / "model.safetensors"
    monai_bundle("run", "train", "--config_file", configs / "train.yaml", *words, start, *transfer)
    before, after = load_file(start), load_file(tmp_path / "model.safetensors")
    body = [name for name in before if not name.startswith("unet.out.2.conv.")]
    for name in body:  # averaging equal weights rounds them; a step of training moves them by more
        kept = after[f"features.network.diffusion.{name}"]
        torch.testing.assert_close(kept, before[name], rtol=1e-6, atol=1e-8)
    stated = json.loads((tmp_path / "model.json").read_text())["transfer"]
    assert stated["frozen"] and stated["noise"] and stated["timesteps"] == [0, 40]
    network = LandmarkPredictor(configs.parent, tmp_path).network
    assert transfer_settings(network) == stated and stated["probe"]["combine"] == "mean"
    assert all(torch.equal(tensor, after[name]) for name, tensor in network.state_dict().items())


def test_evaluate_writes_the_report(
    monai_bundle: MonaiBundle, configs: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    folders = ["--dataset_dir", films, "--model_dir", model, "--output_dir", tmp_path]
    monai_bundle("run", "evaluate", "--config_file", configs / "evaluate.yaml", *folders)
    assert {"report.html", "metrics.json", "errors.csv", "predictions.json"} <= {p.name for p in tmp_path.iterdir()}
    test_ids = {item["id"] for item in json.loads((films / "datalist.json").read_text())["test"]}
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    predictions = predictions if isinstance(predictions, list) else predictions["results"]
    assert {result["film"] for result in predictions} == test_ids
    assert 0 < json.loads((tmp_path / "metrics.json").read_text())["all_films"]["mre_mm"] < 500


def test_infer_writes_four_kinds_of_files(
    monai_bundle: MonaiBundle, configs: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 6):
        shutil.copy(films / "films" / f"synthetic-000{number}.png", folder)
    folders = ["--dataset_dir", folder, "--model_dir", model, "--output_dir", tmp_path / "out"]
    monai_bundle("run", "infer", "--config_file", configs / "inference.yaml", *folders, "--views", "[[0,1]]")
    kinds = (".json", ".mrk.json", ".png")
    expected = {f"synthetic-000{number}{kind}" for number in (1, 6) for kind in kinds}
    expected |= {"landmarks.csv", "measurements.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    with open(tmp_path / "out" / "landmarks.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 2 * 22 and {row["x_mm"] for row in rows} == {""}  # a PNG has no spacing
    result = json.loads((tmp_path / "out" / "synthetic-0001.json").read_text())
    assert result["model"]["sha256"] == file_sha256(model / "model.safetensors")


@pytest.mark.parametrize(("command", "file"), [("evaluate", "evaluate"), ("infer", "inference")])
def test_no_weights_is_said_clearly(
    monai_bundle: MonaiBundle, configs: Path, films: Path, tmp_path: Path, command: str, file: str
) -> None:
    words = ["--dataset_dir", films, "--model_dir", tmp_path, "--architecture", "diffusion-tiny"]
    with pytest.raises(RuntimeError) as caught:
        monai_bundle("run", command, "--config_file", configs / f"{file}.yaml", *words)
    assert "no such weights file" in str(_cause(caught.value, WeightsError))
    assert [path.name for path in tmp_path.iterdir()] == []


def test_weights_of_another_schema_are_refused(
    monai_bundle: MonaiBundle, configs: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    words = ["--dataset_dir", films, "--model_dir", model, "--output_dir", tmp_path, "--schema", "chest6"]
    with pytest.raises(RuntimeError) as caught:
        monai_bundle("run", "infer", "--config_file", configs / "inference.yaml", *words)
    assert "weights of another network" in str(_cause(caught.value, WeightsError))


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The error of this kind at the root; MONAI's parser wraps what a config's objects raise."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
