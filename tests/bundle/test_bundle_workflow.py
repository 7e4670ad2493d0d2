"""MONAI's own checks of a bundle: properties, network shapes, exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow, verify_net_in_out

from monai_landmark.engines import save_model
from monai_landmark.networks import landmark_network

MonaiBundle = Callable[..., None]


@pytest.fixture(params=["diffusion-tiny", "tf_efficientnet_lite0"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Folder with untrained weights and their card, as ``train`` writes it."""
    torch.manual_seed(0)
    network = landmark_network(22, request.param)
    card = {"architecture": request.param, "schema": "synthetic", "spatial_size": [64, 64], "shape": None}
    save_model(network, tmp_path, card)
    return tmp_path


def eager(folder: Path, image: torch.Tensor) -> torch.Tensor:
    network = landmark_network(22, json.loads((folder / "model.json").read_text())["architecture"]).eval()
    network.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    with torch.inference_mode():
        logits: torch.Tensor = network(image)
    return logits


@pytest.mark.parametrize(
    ("file", "kind", "validation"),
    [
        ("train", "train", 0),
        ("train", "train", 1),
        ("pretrain", "train", 0),
        ("inference", "infer", 0),
        ("evaluate", "evaluation", 0),
    ],
)
def test_properties_are_complete(
    bundle: Path, films: Path, model: Path, tmp_path: Path, file: str, kind: str, validation: int
) -> None:
    overrides: dict[str, Any] = {"dataset_dir": str(films), "output_dir": str(tmp_path)}
    overrides |= {"model_dir": str(model)} if kind != "train" else {"spatial_size": [64, 64]}
    overrides |= {"validation_films": validation, "architecture": "diffusion-tiny"} if file == "train" else {}
    config = str(bundle / "configs" / f"{file}.yaml")
    workflow = ConfigWorkflow(config_file=config, workflow_type=kind, logging_file=False, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    if validation:
        assert workflow.val_interval == 1 and len(workflow.val_dataset) == 1 and len(workflow.train_dataset) == 4


def test_wrong_property_is_noticed(bundle: Path, films: Path, model: Path) -> None:
    """The check above can fail."""
    config = str(bundle / "configs" / "inference.yaml")
    overrides = {"dataset_dir": str(films), "model_dir": str(model), "dataset#transform": "@postprocessing"}
    workflow = ConfigWorkflow(config_file=config, workflow_type="infer", logging_file=False, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == ["preprocessing"]


def test_create_workflow_pretrains(bundle: Path, films: Path, tmp_path: Path) -> None:
    workflow = create_workflow(
        config_file=str(bundle / "configs" / "pretrain.yaml"),
        workflow_type="train",
        run_id="pretrain",
        logging_file=False,
        dataset_dir=str(films),
        output_dir=str(tmp_path),
        spatial_size=[64, 64],
        epochs=1,
        steps_per_epoch=1,
        batch_size=1,
        precision="float32",
    )
    workflow.run()
    workflow.finalize()
    assert workflow.trainer.state.iteration == 1 and (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "diffusion-tiny"])
def test_landmark_network_has_the_shapes_of_the_metadata(
    monai_bundle: MonaiBundle, bundle: Path, tmp_path: Path, architecture: str
) -> None:
    configs = bundle / "configs"
    words = ["--meta_file", configs / "metadata.json", "--config_file", configs / "inference.yaml"]
    words += ["--model_dir", tmp_path, "--architecture", architecture, "--device", "cpu"]
    monai_bundle("verify_net_in_out", "network_def", *words)
    with pytest.raises(ValueError, match="channel number"):
        monai_bundle("verify_net_in_out", "network_def", *words, "--schema", "isbi19")


def test_diffusion_network_has_the_shapes_of_the_metadata(bundle: Path, films: Path) -> None:
    meta = bundle / "configs" / "metadata.json"
    shapes = {"_meta_#network_data_format": json.loads(meta.read_text())["diffusion_data_format"]}
    verify_net_in_out(
        "kept",
        meta_file=str(meta),
        config_file=str(bundle / "configs" / "pretrain.yaml"),
        device="cpu",
        dataset_dir=str(films),
        extra_forward_args={"timesteps": torch.tensor([1])},
        **shapes,
    )


def test_traced_export_gives_what_the_network_gives(monai_bundle: MonaiBundle, bundle: Path, weights: Path) -> None:
    configs = bundle / "configs"
    words = ["--filepath", weights / "model.ts", "--ckpt_file", weights / "model.pt", "--model_dir", weights]
    words += ["--meta_file", configs / "metadata.json", "--config_file", configs / "inference.yaml"]
    monai_bundle("ckpt_export", "network_def", *words, "--use_trace", "True", "--input_shape", "[1,1,64,64]")
    files = {"inference.json": "", "metadata.json": ""}
    exported = torch.jit.load(str(weights / "model.ts"), map_location="cpu", _extra_files=files).eval()
    image = torch.rand(2, 1, 64, 96) * 2 - 1  # another batch and grid than it was traced with
    with torch.inference_mode():
        torch.testing.assert_close(exported(image), eager(weights, image), rtol=1e-4, atol=1e-4)
    assert json.loads(files["inference.json"])["network_def"]["architecture"] == "@architecture"


@pytest.mark.slow
def test_onnx_export_gives_what_the_network_gives(monai_bundle: MonaiBundle, bundle: Path, weights: Path) -> None:
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    configs = bundle / "configs"
    words = ["--filepath", weights / "model.onnx", "--ckpt_file", weights / "model.pt", "--model_dir", weights]
    words += ["--meta_file", configs / "metadata.json", "--config_file", configs / "inference.yaml"]
    monai_bundle("onnx_export", "network_def", *words, "--use_trace", "True", "--input_shape", "[1,1,64,64]")
    image = torch.rand(1, 1, 64, 64) * 2 - 1
    session = reference.ReferenceEvaluator(str(weights / "model.onnx"))
    (logits,) = session.run(None, {session.input_names[0]: image.numpy()})
    np.testing.assert_allclose(logits, eager(weights, image).numpy(), rtol=1e-3, atol=1e-3)
