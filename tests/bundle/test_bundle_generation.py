"""The generation's road in its short form: embed, autoencode, pretrain, generate; and that a stop changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from safetensors.torch import load_file

from monai_landmark.data.budget import labeled_films
from monai_landmark.data.datalist import load_datalist
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.engines import TrainingStateSaver
from monai_landmark.errors import AnnotationError, WeightsError
from monai_landmark.files import file_sha256
from monai_landmark.generation.carried import carry_landmarks
from monai_landmark.generation.model import trained_generator

MonaiBundle = Callable[..., None]
Step = Callable[..., Path]
SHORT = ["--epochs", "1", "--steps_per_epoch", "2", "--batch_size", "4", "--precision", "float32"]
SIDES = ("before", "after")
SMALL = ["--spatial_size", "[32,32]"]
UNET = "{'channels': [8, 16], 'norm_num_groups': 8, 'width': 16}"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen small films, eight of them to test."""
    folder = tmp_path_factory.mktemp("pool")
    write_synthetic_dataset(folder, training=2, test=8, unlabelled=8, size=(200, 216))
    return folder


@pytest.fixture(scope="module")
def step(bundle: Path, pool: Path, tmp_path_factory: pytest.TempPathFactory, monai_bundle: MonaiBundle) -> Step:
    """Run one command of the generation's bundle into a folder."""
    configs = bundle.with_name("xray_generation") / "configs"

    def run(name: str, *words: str | Path, output: Path | None = None) -> Path:
        folder = output or tmp_path_factory.mktemp(name)
        given = ["--config_file", str(configs / f"{name}.yaml"), "--dataset_dir", pool, "--output_dir", folder]
        monai_bundle("run", name, *given, *words)
        return folder

    return run


@pytest.fixture(scope="module")
def embedding(step: Step) -> Path:
    return step("embed", *SHORT, *SMALL, "--architecture", "mobilenetv3_small_050")


@pytest.fixture(scope="module")
def autoencoder(step: Step, embedding: Path) -> Path:
    options = [
        "--cover",
        "true",
        "--downsampling",
        "2",
        "--width",
        "8",
        "--adversarial_start",
        "0.4",
        "--perceptual",
        embedding,
    ]
    return step("autoencode", *SHORT, *SMALL, *options)


@pytest.fixture(scope="module")
def train(step: Step, embedding: Path) -> Step:
    def run(*words: str | Path, output: Path | None = None) -> Path:
        options = ["--embedding", embedding, "--unet", UNET, "--samples", "2", "--val_interval", "1"]
        return step("pretrain", *SHORT, *SMALL, *options, *words, output=output)

    return run


@pytest.fixture(scope="module")
def latent_model(train: Step, autoencoder: Path) -> Path:
    return train("--cover", "true", "--autoencoder", autoencoder, "--objective", "ddpm", "--prediction", "v_prediction")


@pytest.fixture(scope="module")
def pixel_model(train: Step) -> Path:
    return train("--patches", "2")


def test_the_autoencoder_is_measured_and_shown(autoencoder: Path) -> None:
    record = json.loads((autoencoder / "reconstruction.json").read_text())["history"][-1]
    assert record["step"] == 2 and -1 <= record["ssim"] <= 1 and record["psnr_db"] > 0
    assert (autoencoder / "samples" / "step_0000002_reconstructed.png").is_file()


def test_the_round_trip_keeps_landmarks_where_they_were(
    bundle: Path, pool: Path, autoencoder: Path, monai_bundle: MonaiBundle
) -> None:
    config = bundle.with_name("xray_generation") / "configs" / "autoencode.yaml"
    given = ["--config_file", str(config), "--dataset_dir", pool, "--output_dir", autoencoder]
    monai_bundle("run", "round_trip", *given)
    films = load_datalist(pool / "datalist.json", "test")
    before, after = (load_datalist(autoencoder / "round_trip" / side / "datalist.json", "test") for side in SIDES)
    for film, first, second in zip(films, before, after, strict=True):
        assert np.array_equal(first["landmarks"], second["landmarks"], equal_nan=True) and first["size"] == [32, 32]
        assert first["sha256"] != second["sha256"]
        extents = [np.nanmax(item["landmarks"], 0) - np.nanmin(item["landmarks"], 0) for item in (film, first)]
        scale = extents[0] / extents[1]
        step = [float(each) for each in np.array(film["spacing"])[::-1]]  # both axes of the grid are equally fine in mm
        assert scale[0] * step[0] == pytest.approx(scale[1] * step[1], rel=0.04)  # a whole number of pixels


def test_a_model_folder_holds_all_that_drawing_needs(latent_model: Path, pixel_model: Path) -> None:
    assert not (pixel_model / "autoencoder").exists()
    pixels, latents = trained_generator(pixel_model), trained_generator(latent_model)
    assert pixels.latent_shape == (1, 32, 32) and latents.latent_shape == (4, 16, 16)
    assert pixels.embedder.tokens == 5 and latents.embedder.tokens == 1
    assert latents.objective.prediction == "v_prediction"  # type: ignore[union-attr]
    stored = load_file(latent_model / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in latents.objective.network.state_dict().items())


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing was trained here"):
        trained_generator(tmp_path)


def test_what_one_looks_at_is_written(pixel_model: Path) -> None:
    shown = {file.name.split("_", 2)[-1] for file in (pixel_model / "samples").iterdir()}
    assert {"samples.png", "denoised.png", "nearest.png"} <= shown
    assert json.loads((pixel_model / "validation.json").read_text())["history"]


@pytest.mark.parametrize("strategy", ["films", "interpolate", "neighborhood", "start"])
def test_every_strategy_draws_films(step: Step, pixel_model: Path, pool: Path, strategy: str) -> None:
    folder = step("generate", "--model_dir", pixel_model, "--strategy", strategy, "--count", "3", "--steps", "2")
    manifest = json.loads((folder / "manifest.json").read_text())
    films = [np.asarray(Image.open(folder / film["image"])) for film in manifest["films"]]
    assert [film.shape for film in films] == [(32, 32)] * 3 and not np.array_equal(films[0], films[1])
    assert manifest["model_sha256"] == file_sha256(pixel_model / "model.safetensors")
    training = json.loads((pool / "datalist.json").read_text())["training"]
    known = {file_sha256(pool / film["image"]) for film in training}
    assert all(set(film["sources"]) <= known for film in manifest["films"])
    assert (folder / "contact_sheet.png").is_file() and "source_ids" not in manifest["films"][0]


def test_drawn_films_carry_landmarks_into_a_training(
    bundle: Path, pool: Path, step: Step, latent_model: Path, tmp_path: Path, monai_bundle: MonaiBundle
) -> None:
    words = ["--model_dir", latent_model, "--steps", "10", "--strategy", "start", "--strength", "0.1"]
    drawn = step("generate", *words, "--count", "3", "--label_budget", "1")
    (film,) = labeled_films(pool / "datalist.json", 1)
    items = load_datalist(drawn / "datalist.json", "training")
    assert [item["source"] for item in items] == [film["sha256"]] * 3
    assert film["id"] not in (drawn / "datalist.json").read_text()
    height, width = film["size"]  # the grid is square, and filled: what stands out is cut off evenly
    row_mm, col_mm = film["spacing"]
    step_mm, points = min(height * row_mm, width * col_mm) / 32, np.array(film["landmarks"], dtype=float)
    expected = (points - [(width - 1) / 2, (height - 1) / 2]) * [col_mm, row_mm] / step_mm + 15.5
    inside = ((expected > -0.4) & (expected < 31.4)).all(axis=1)
    for item in items:
        found = np.array(item["landmarks"], dtype=float)
        assert inside.sum() > 5 and np.abs(found - expected)[inside].max() < 0.75  # whole pixels are cut off
    given = ["--config_file", str(bundle / "configs" / "train.yaml"), "--dataset_dir", pool, *SHORT, *SMALL]
    given += ["--drawn_films", drawn / "datalist.json", "--architecture", "diffusion-tiny"]
    monai_bundle("run", "train", *given, "--output_dir", tmp_path / "ok", "--label_budget", "1")
    card = json.loads((tmp_path / "ok" / "model.json").read_text())
    assert card["label_budget"] == 1 and card["drawn_films"] == [item["sha256"] for item in items]
    (other,) = (each for each in labeled_films(pool / "datalist.json") if each["id"] != film["id"])
    path = drawn / "datalist.json"
    path.write_text(path.read_text().replace(film["sha256"], other["sha256"]))
    with pytest.raises(Exception, match="drawn_films") as refused:
        monai_bundle("run", "train", *given, "--output_dir", tmp_path / "refused", "--label_budget", "1")
    assert isinstance(refused.value.__cause__, AnnotationError)
    manifest = drawn / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"strategy": "start"', '"strategy": "films"'))
    assert carry_landmarks(pool / "datalist.json", drawn) is None
    assert not path.exists()  # of films that another run drew into the same folder


def test_what_was_drawn_is_measured(step: Step, pixel_model: Path) -> None:
    drawn = step("generate", "--model_dir", pixel_model, "--count", "8", "--steps", "2", "--guidance", "1")
    folder = step("evaluate", "--drawn_dir", drawn, "--judge", pixel_model / "embedding")
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["fidelity"]["n"] == 8 and found["fidelity"]["fid"]["drawn"] > 0
    assert found["fidelity"]["network"].startswith("mobilenetv3_small_050 ")
    for kind in ("structure", "features"):
        assert 0 <= found["copies"][kind]["copies"] <= found["copies"][kind]["drawn"] == 8
        assert found["membership"][kind]["n"] == [10, 8]
        assert (folder / f"nearest_{kind}.png").is_file()


def test_a_film_depends_on_its_number_alone_and_says_what_it_is(step: Step, latent_model: Path) -> None:
    words = ["--model_dir", latent_model, "--steps", "2", "--file_format", "dicom"]
    whole = step("generate", *words, "--count", "3")
    part = step("generate", *words, "--count", "1", "--first", "2")
    name = "films/synthetic_000002.dcm"
    assert (whole / name).read_bytes() == (part / name).read_bytes()
    film: Any = pydicom.dcmread(whole / name)
    assert film.SyntheticData == "YES" and film.ConversionType == "SYN" and film.ImageType[0] == "DERIVED"
    assert not film.PatientName and not film.PatientID and not film.StudyDate
    assert film.pixel_array.shape == (32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoencode", "pretrain"])
def test_two_processes_train_one_network(bundle: Path, pool: Path, embedding: Path, tmp_path: Path, name: str) -> None:
    configs = bundle.with_name("xray_generation") / "configs"
    witness = tmp_path / "witness.yaml"
    left = f"$torch.save(@network_def.state_dict(), '{tmp_path}/rank' + str(@rank) + '.pt')"
    witness.write_text(json.dumps({"finalize": [left, "$torch.distributed.destroy_process_group()"]}))
    files = str([str(configs / f"{each}.yaml") for each in (name, "multi_gpu")] + [str(witness)])
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run", name]
    own = {
        "autoencode": ["--width", "8", "--adversarial_start", "0.4"],
        "pretrain": [
            "--embedding",
            str(embedding),
            "--unet",
            UNET,
            "--samples",
            "0",
            "--embeddings",
            str(tmp_path / "e.safetensors"),
        ],
    }
    words += ["--config_file", files, "--dataset_dir", str(pool), "--output_dir", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *words, *SHORT, *SMALL, *own[name]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first and all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    assert json.loads((tmp_path / "out" / "model.json").read_text())["steps"] == 2


def test_metadata_is_verified(bundle: Path, monai_bundle: MonaiBundle) -> None:
    file = bundle.with_name("xray_generation") / "configs" / "metadata.json"
    schema = Path(__file__).with_name("bundle_metadata.schema.json")
    monai_bundle("verify_metadata", "--meta_file", file, "--filepath", schema)


@pytest.mark.parametrize("name", ["embed", "autoencode", "pretrain", "generate", "evaluate"])
def test_values_are_explained_and_hold_no_code(bundle: Path, name: str) -> None:
    text = (bundle.with_name("xray_generation") / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    block = text.split("command line ---")[1].split("\n# ----")[0].splitlines()[1:]
    silent = [line.split(":")[0] for line in block if line and " # " not in line]
    assert len(block) > 8 and set(silent) <= {"batch_size", "steps_per_epoch", "rotation_deg", "num_workers"}
    assert not re.search(r"\blambda\b|\bscripts\b|strftime|datetime|__import__|\bexec\(|\beval\(", text)


def test_a_stopped_run_goes_on_bit_for_bit(train: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[bytes] = []
    original = TrainingStateSaver.__call__

    def watched(self: TrainingStateSaver, engine: Engine) -> None:
        original(self, engine)
        saved.append(self.path.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStateSaver, "__call__", watched)
        whole = train("--epochs", "2", "--samples", "0", output=tmp_path / "whole")
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "checkpoint.pt").write_bytes(saved[0])
    resumed = train("--epochs", "2", "--samples", "0", output=tmp_path / "stopped")
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
