"""One function from a name and an initialization to a network; weights of a finished training."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from ignite.engine import Engine
from safetensors.torch import save_file

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import (
    DiffusionUNet,
    EncoderLandmarkUNet,
    LandmarkUNet,
    TrainedWeights,
    landmark_network,
    trained,
)

SMALL = {"channels": (8, 8, 16), "norm_num_groups": 8, "num_head_channels": 8}
ENCODER = {"decoder_channels": (16, 16, 16, 8, 8)}


def test_names_choose_the_network():
    assert isinstance(landmark_network(2, "diffusion-tiny", **SMALL), LandmarkUNet)
    assert isinstance(landmark_network(2, "test_efficientnet", **ENCODER), EncoderLandmarkUNet)


@pytest.mark.parametrize("architecture", ["diffusion-huge", "diffusion-", "resnet5000", "tiny"])
def test_an_unknown_architecture_is_refused(architecture):
    with pytest.raises(ConfigurationError, match="unknown architecture") as caught:
        landmark_network(2, architecture)
    assert "diffusion-small" in str(caught.value) and architecture in str(caught.value)


def test_imagenet_does_not_go_with_the_diffusion_network():
    with pytest.raises(ConfigurationError, match="ImageNet"):
        landmark_network(2, "diffusion-tiny", "imagenet", **SMALL)


def test_imagenet_asks_timm(monkeypatch):
    create, asked = timm.create_model, []

    def spy(name, **arguments):
        asked.append(arguments["pretrained"])
        return create(name, **{**arguments, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", spy)
    landmark_network(2, "test_efficientnet", "imagenet", **ENCODER)
    landmark_network(2, "test_efficientnet", "random", **ENCODER)
    assert asked == [True, False]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_pretraining_fills_the_diffusion_network(tmp_path, suffix):
    torch.manual_seed(0)
    source, file = DiffusionUNet(size="tiny", **SMALL), tmp_path / f"model{suffix}"
    save_file(source.state_dict(), file) if suffix == ".safetensors" else torch.save(source.state_dict(), file)
    network = landmark_network(4, "diffusion-tiny", file, **SMALL)
    assert len(network.transfer_report.reinitialized) == 2
    moved = network.diffusion.state_dict()
    assert all(torch.equal(moved[name], source.state_dict()[name]) for name in network.transfer_report.loaded)


def test_an_encoders_file_fills_the_encoder(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "encoder.pt")
    network = landmark_network(4, "test_efficientnet", tmp_path / "encoder.pt", **ENCODER)
    assert network.transfer_report.reinitialized == ()


class TestTrained:
    def test_before_training_the_default_holds(self, tmp_path):
        assert trained(tmp_path, "schema", "synthetic") == "synthetic"

    def test_after_training_the_card_speaks(self, tmp_path):
        (tmp_path / "model.json").write_text(json.dumps({"schema": "isbi19"}))
        assert trained(tmp_path, "schema", "synthetic") == "isbi19"

    @pytest.mark.parametrize("card", ['{"schema": "isbi19"}', "{", "[]"])
    def test_a_card_without_the_fact_is_no_default(self, tmp_path, card):
        (tmp_path / "model.json").write_text(card)
        with pytest.raises(WeightsError, match="architecture"):
            trained(tmp_path, "architecture", "default")


class TestTrainedWeights:
    def test_every_tensor_is_loaded_when_the_engine_starts(self, tmp_path):
        source, network = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        evaluator = Engine(lambda engine, batch: None)
        TrainedWeights(network, tmp_path / "model.safetensors").attach(evaluator)
        assert not torch.equal(network.weight, source.weight)
        evaluator.run([0])
        assert torch.equal(network.weight, source.weight) and torch.equal(network.bias, source.bias)

    @pytest.mark.parametrize("source", [torch.nn.Linear(2, 4), torch.nn.Linear(2, 3, bias=False)])
    def test_weights_of_another_network_are_refused(self, tmp_path, source):
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match="another network"):
            TrainedWeights(torch.nn.Linear(2, 3), tmp_path / "model.safetensors")()

    def test_an_absent_file_is_refused(self, tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            TrainedWeights(torch.nn.Linear(2, 3), tmp_path / "model.safetensors")()
