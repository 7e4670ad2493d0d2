"""The bundle for organs in CT: its YAML, MONAI's checks, and its four commands one after another on invented bodies."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow, create_workflow
from safetensors.torch import load_file

from monai_landmark.data.organs import FLARE2022
from monai_landmark.data.scan_list import ScanList
from monai_landmark.data.synthetic_bodies import write_synthetic_bodies
from monai_landmark.engines import file_sha256, save_model
from monai_landmark.networks import landmark_network
from monai_landmark.safety import verify

MonaiBundle = Callable[..., None]
BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "ct_organs"
CONFIGS = BUNDLE / "configs"
NAMES = ["train", "pretrain", "evaluate", "inference"]
SELF_EXPLAINING = {"datalist", "batch_size", "steps_per_epoch", "rotation_deg", "num_workers"}
TINY = {"spatial_size": [32, 32], "epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "precision": "float32"}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def run(name: str, kind: str, command: str, **keys: Any) -> ConfigWorkflow:
    """One of the bundle's commands in this process."""
    workflow = create_workflow(
        config_file=str(CONFIGS / f"{name}.yaml"),
        meta_file=str(CONFIGS / "metadata.json"),
        workflow_type=kind,
        run_id=command,
        logging_file=False,
        **{key: str(value) if isinstance(value, Path) else value for key, value in keys.items()},
    )
    workflow.run()
    workflow.finalize()
    return workflow


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_bodies(tmp_path_factory.mktemp("bodies"), 2, 1, 1, size=(32, 28, 12))


@pytest.fixture(scope="module")
def pretrained(bodies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    run("pretrain", "train", "pretrain", datalist=bodies, output_dir=folder, samples=0, **TINY)
    return folder


@pytest.fixture(scope="module")
def model(bodies: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    start = pretrained / "model.safetensors"
    keys = {"label_budget": "4 slices", "validation_slices": 1, "initialization": start, "frozen": "encoder"}
    workflow = run("train", "train", "train", datalist=bodies, output_dir=folder, **keys, **TINY)
    assert workflow.evaluator.state.iteration == 1 and 0 <= workflow.evaluator.state.metrics["dsc"] <= 1
    return folder


@pytest.mark.parametrize("name", [*NAMES, "sample", "multi_gpu"])
def test_holds_values_and_no_code(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    assert not re.search(r"\blambda\b|\bscripts\b|strftime|datetime|__import__|\bexec\(|\beval\(", text)


@pytest.mark.parametrize("name", [*NAMES, "sample"])
def test_every_key_of_the_command_line_is_explained(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    block = text.split("command line ---")[1].split("\n# ----")[0].splitlines()[1:]
    silent = [line.split(":")[0] for line in block if line and " # " not in line]
    assert len(block) > 8 and set(silent) <= SELF_EXPLAINING


def test_network_and_preparation_are_the_same_wherever_they_must_be() -> None:
    train, pretrain, evaluate, inference = map(read, NAMES)
    prepared = [each for each in train["validate"]["preprocessing"]["transforms"] if each["keys"] == "image"]
    for other in (evaluate, inference):
        assert other["network_def"] == {
            "_target_": "monai_landmark.networks.trained_network",
            "model_dir": "@model_dir",
            **{key: train["network_def"][key] for key in ("landmarks", "architecture")},
        }
        assert other["preprocessing"]["transforms"] == prepared
        assert other["classes"] == train["classes"]
    same = ["network_def", "weights", "dataset", "inferer", "organs", "spatial_size", "darkest_hu", "brightest_hu"]
    assert {key: inference[key] for key in same} == {key: evaluate[key] for key in same}
    assert pretrain["held_out_preprocessing"]["transforms"] == read("sample")["preprocessing"]["transforms"] == prepared
    for key in ("spatial_size", "darkest_hu", "brightest_hu"):
        assert pretrain[key] == train[key]


def test_nothing_in_it_is_refused_from_elsewhere() -> None:
    assert [str(finding) for finding in verify(BUNDLE).findings] == []


def test_metadata_is_verified_and_says_what_the_network_gives(monai_bundle: MonaiBundle) -> None:
    schema = Path(__file__).with_name("bundle_metadata.schema.json")
    monai_bundle("verify_metadata", "--meta_file", CONFIGS / "metadata.json", "--filepath", schema)
    content = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    output = content["network_data_format"]["outputs"]["pred"]
    assert list(output["channel_def"].values()) == ["background", *FLARE2022]
    assert output["num_channels"] == 1 + len(FLARE2022)


def test_network_has_the_shapes_of_the_metadata(monai_bundle: MonaiBundle, tmp_path: Path) -> None:
    words = ["--meta_file", CONFIGS / "metadata.json", "--config_file", CONFIGS / "inference.yaml"]
    words += ["--model_dir", tmp_path, "--architecture", "mobilenetv3_small_050", "--device", "cpu"]
    monai_bundle("verify_net_in_out", "network_def", *words)
    with pytest.raises(ValueError, match="channel number"):
        monai_bundle("verify_net_in_out", "network_def", *words, "--organs", "['liver']")


def test_traced_export_gives_what_the_network_gives(monai_bundle: MonaiBundle, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = landmark_network(3, "diffusion-tiny").eval()
    card = {"architecture": "diffusion-tiny", "organs": ["liver", "spleen"], "spatial_size": [32, 32]}
    save_model(network, tmp_path, {**card, "darkest_hu": -160, "brightest_hu": 240})
    words = ["--filepath", tmp_path / "model.ts", "--ckpt_file", tmp_path / "model.pt", "--model_dir", tmp_path]
    words += ["--meta_file", CONFIGS / "metadata.json", "--config_file", CONFIGS / "inference.yaml"]
    monai_bundle("ckpt_export", "network_def", *words, "--use_trace", "True", "--input_shape", "[1,1,32,32]")
    exported = torch.jit.load(str(tmp_path / "model.ts"), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    image = torch.rand(2, 1, 32, 48) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(exported(image), network(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("file", "kind"), [("train", "train"), ("pretrain", "train"), ("inference", "infer"), ("evaluate", "evaluation")]
)
def test_properties_are_complete(bodies: Path, model: Path, tmp_path: Path, file: str, kind: str) -> None:
    overrides: dict[str, Any] = {"output_dir": str(tmp_path)}
    scan = bodies.parent / "body-003.nii.gz"
    overrides |= {"dataset_dir": str(scan)} if file == "inference" else {"datalist": str(bodies)}
    overrides |= {"model_dir": str(model)} if kind != "train" else {"spatial_size": [32, 32]}
    overrides |= {"validation_slices": 1, "label_budget": 4} if file == "train" else {}
    config = str(CONFIGS / f"{file}.yaml")
    workflow = ConfigWorkflow(config_file=config, workflow_type=kind, logging_file=False, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_pretraining_says_what_it_saw(pretrained: Path) -> None:
    card = json.loads((pretrained / "model.json").read_text())
    assert card["slices"] == 36 and card["objective"] == "ddpm" and card["brightest_hu"] == 240
    assert card["sha256"] == file_sha256(pretrained / "model.safetensors")


def test_decoder_alone_learns_from_the_pretrained_network(pretrained: Path, model: Path, bodies: Path) -> None:
    card = json.loads((model / "model.json").read_text())
    assert card["label_budget"] == 4 and card["budget"] == "4 slices" and len(card["slices"]) == 3
    assert card["organs"] == list(ScanList.load(bodies).organs) and card["transfer"]["frozen"] == "encoder"
    before, after = load_file(pretrained / "model.safetensors"), load_file(model / "model.safetensors")
    for name, tensor in before.items():
        if name.startswith(("unet.down_blocks", "unet.conv_in")):  # averaging equal weights rounds them
            torch.testing.assert_close(after[f"diffusion.{name}"], tensor, rtol=1e-6, atol=1e-7)


def test_a_linear_classifier_learns_on_noised_slices(bodies: Path, pretrained: Path, tmp_path: Path) -> None:
    keys = {"initialization": pretrained / "model.safetensors", "frozen": True, "probe": {"head": "linear"}}
    keys |= {"noise": True, "timesteps": [0, 40], "label_budget": "10 %"}
    run("train", "train", "train", datalist=bodies, output_dir=tmp_path, **keys, **TINY)
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["transfer"]["probe"]["head"] == "linear" and card["transfer"]["timesteps"] == [0, 40]
    run("evaluate", "evaluation", "evaluate", datalist=bodies, model_dir=tmp_path, output_dir=tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()


def test_evaluate_writes_the_report(bodies: Path, model: Path, tmp_path: Path) -> None:
    run("evaluate", "evaluation", "evaluate", datalist=bodies, model_dir=model, output_dir=tmp_path)
    with open(tmp_path / "scores.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    organs = ScanList.load(bodies).organs
    assert [row["organ"] for row in rows] == list(organs) and {row["scan"] for row in rows} == {"body-002"}
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= document["mean"]["dsc"] <= 100 and document["info"]["reader"] == "by construction"
    assert document["info"]["labels"] == 4 and document["model"]["sha256"]


def test_infer_leaves_labels_on_the_scans_own_grid(bodies: Path, model: Path, tmp_path: Path) -> None:
    scan = nibabel.load(bodies.parent / "body-003.nii.gz")
    turned = scan.as_reoriented(
        nibabel.orientations.axcodes2ornt(("A", "S", "L"), (("L", "R"), ("P", "A"), ("I", "S")))
    )
    (tmp_path / "in" / "deep").mkdir(parents=True)
    nibabel.save(scan, tmp_path / "in" / "plain.nii.gz")
    nibabel.save(turned, tmp_path / "in" / "deep" / "turned.nii.gz")
    keys = {"neighbors": 1, "largest_component": "true", "output_dir": tmp_path / "out"}
    run("inference", "infer", "infer", dataset_dir=tmp_path / "in", model_dir=model, **keys)
    plain, other = (nibabel.load(tmp_path / "out" / name) for name in ("plain.nii.gz", "deep/turned.nii.gz"))
    np.testing.assert_allclose(other.affine, turned.affine)
    np.testing.assert_array_equal(
        nibabel.as_closest_canonical(other).dataobj, nibabel.as_closest_canonical(plain).dataobj
    )
    facts = json.loads((tmp_path / "out" / "plain.json").read_text())
    assert facts["model"]["sha256"] == file_sha256(model / "model.safetensors")
    assert list(facts["volumes_ml"]) == list(facts["labels"].values()) == list(ScanList.load(bodies).organs)


@pytest.mark.slow
def test_a_scan_of_a_thousand_slices_is_segmented_within_four_gigabytes(tmp_path: Path) -> None:
    """Another process does it, so that what this one has taken before does not count."""
    network = landmark_network(14, "diffusion-tiny")
    card = {"architecture": "diffusion-tiny", "organs": list(FLARE2022), "spatial_size": [32, 32]}
    save_model(network, tmp_path / "model", {**card, "darkest_hu": -160, "brightest_hu": 240})
    image = nibabel.Nifti1Image(np.full((512, 512, 1000), -1000, dtype=np.int16), np.diag([-0.7, -0.7, 0.6, 1]))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    del image
    code = (
        "import resource, sys; from monai.bundle import create_workflow;"
        "create_workflow(config_file=sys.argv[1], workflow_type='infer', run_id='infer', logging_file=False,"
        " dataset_dir=sys.argv[2], model_dir=sys.argv[3], output_dir=sys.argv[3]).run();"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    words = [str(CONFIGS / "inference.yaml"), str(tmp_path / "scan.nii.gz"), str(tmp_path / "model")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    peak_kilobytes = int(done.stdout.rsplit("peak", 1)[1])
    assert peak_kilobytes < 4 * 2**20
    assert nibabel.load(tmp_path / "model" / "scan.nii.gz").shape == (512, 512, 1000)
