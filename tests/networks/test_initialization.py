"""One function from a name and an initialization to a network; weights of a finished training."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from ignite.engine import Engine
from safetensors.torch import load_file, save_file

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import (
    DiffusionUNet,
    EncoderLandmarkUNet,
    FeatureProbe,
    LandmarkUNet,
    TrainedWeights,
    landmark_network,
    trained,
    trained_network,
    transfer_settings,
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


CARD = {"objective": "ddpm", "architecture": "diffusion-tiny", "timesteps": 500, "schedule": "linear_beta"}


def pretrained(folder, card=CARD):
    """A file of pre-training with what is known about it; no weight is zero, as in a network that was trained."""
    torch.manual_seed(0)
    source = DiffusionUNet(size="tiny", **SMALL)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    folder.mkdir(exist_ok=True)
    save_file(source.state_dict(), folder / "model.safetensors")
    if card is not None:
        (folder / "model.json").write_text(json.dumps(card))
    return folder / "model.safetensors"


class TestTransfer:
    IMAGE = torch.linspace(-1, 1, 256).view(1, 1, 16, 16)

    def test_the_card_names_the_architecture(self, tmp_path):
        network = landmark_network(3, "auto", pretrained(tmp_path), **SMALL)
        assert type(network) is LandmarkUNet and len(network.transfer_report.reinitialized) == 2

    def test_of_an_encoder_too(self, tmp_path):
        torch.save(timm.create_model("test_efficientnet", in_chans=1).state_dict(), tmp_path / "model.pt")
        (tmp_path / "model.json").write_text(json.dumps({"architecture": "test_efficientnet"}))
        assert isinstance(landmark_network(3, initialization=tmp_path / "model.pt", **ENCODER), EncoderLandmarkUNet)

    @pytest.mark.parametrize("initialization", ["random", "imagenet"])
    def test_auto_needs_a_file(self, initialization):
        with pytest.raises(ConfigurationError, match="name the architecture"):
            landmark_network(3, "auto", initialization)

    @pytest.mark.parametrize("card", [None, {}, {"architecture": None}])
    def test_auto_needs_the_card(self, tmp_path, card):
        with pytest.raises(WeightsError, match="architecture"):
            landmark_network(3, "auto", pretrained(tmp_path, card), **SMALL)

    def test_a_timestep_is_told_and_the_film_left_clean(self, tmp_path):
        network = landmark_network(3, "auto", pretrained(tmp_path), timesteps=(50,), **SMALL).eval()
        with torch.no_grad():
            expected = network.diffusion(self.IMAGE, torch.tensor([50]))
            torch.testing.assert_close(network(self.IMAGE), expected)

    def test_noise_is_that_of_the_card(self, tmp_path):
        file = pretrained(tmp_path, {**CARD, "beta_end": 0.05})
        network = landmark_network(3, "auto", file, timesteps=(200,), noise=True, **SMALL).eval()
        told = landmark_network(3, "auto", file, timesteps=(200,), noise=True, schedule=CARD, **SMALL).eval()
        betas = torch.linspace(1e-4, 0.05, 500, dtype=torch.float64)
        assert network.levels.scheduler.alphas_cumprod[200] == pytest.approx(float((1 - betas)[:201].prod()), rel=1e-4)
        assert told.levels.scheduler.alphas_cumprod[200] > network.levels.scheduler.alphas_cumprod[200]

    def test_several_noise_levels_are_averaged(self, tmp_path):
        network = landmark_network(3, "auto", pretrained(tmp_path), timesteps=(0, 100), **SMALL).eval()
        with torch.no_grad():
            clean, told = (network.diffusion(self.IMAGE, torch.tensor([t])) for t in (0, 100))
            torch.testing.assert_close(network(self.IMAGE), (clean + told) / 2)

    @pytest.mark.parametrize("noise", [False, True])
    def test_frozen_everything_but_the_head_comes_from_the_file_and_stays(self, tmp_path, noise):
        file = pretrained(tmp_path)
        network = landmark_network(3, "auto", file, frozen=True, timesteps=(50, 100), noise=noise, **SMALL).train()
        assert isinstance(network, FeatureProbe) and not network.features.training and network.head.training
        body, source = network.features.network.diffusion.state_dict(), load_file(file)
        assert all(torch.equal(body[name], source[name]) for name in network.transfer_report.loaded)
        assert len(network.transfer_report.reinitialized) == 2
        assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {"head"}
        assert network(self.IMAGE).shape == (1, 3, 16, 16)
        assert network.features.noise.timesteps == (50, 100) and (network.features.noise.schedule is not None) == noise

    def test_frozen_with_the_levels_asked_for(self):
        probe = {"levels": ["encoder_4", "decoder_2"], "combine": "mean", "width": 16}
        network = landmark_network(3, "diffusion-tiny", frozen=True, timesteps=(0, 9), probe=probe, **SMALL)
        assert network.features.channels == {"encoder_4": 8, "decoder_2": 8} and network.head.width == 16

    def test_frozen_encoder(self):
        network = landmark_network(3, "test_efficientnet", frozen=True, **ENCODER)
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 3, 64, 64)
        assert not any(p.requires_grad for p in network.features.parameters())

    @pytest.mark.parametrize(
        ("architecture", "options", "field"),
        [
            ("test_efficientnet", {"timesteps": (5,)}, "timesteps"),
            ("test_efficientnet", {"timesteps": (5,), "frozen": True}, "timesteps"),
            ("diffusion-tiny", {"noise": True}, "schedule"),
            ("diffusion-tiny", {"probe": {"width": 8}}, "probe"),
            ("diffusion-tiny", {"timesteps": ()}, "timesteps"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, architecture, options, field):
        with pytest.raises(ConfigurationError, match=f"field: {field}"):
            landmark_network(3, architecture, **options)

    def test_noise_needs_a_card_that_tells_it(self, tmp_path):
        with pytest.raises(WeightsError, match="which noise"):
            landmark_network(3, "diffusion-tiny", pretrained(tmp_path, None), timesteps=(5,), noise=True, **SMALL)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"timesteps": (50,)},
            {"timesteps": (0, 50)},
            {"timesteps": (100,), "noise": True},
            {"frozen": True, "timesteps": (50, 100), "noise": True, "probe": {"levels": ["bottleneck"], "width": 16}},
            {"frozen": True},
        ],
    )
    def test_the_card_of_a_trained_network_builds_it_once_more(self, tmp_path, options):
        network = landmark_network(3, "auto", pretrained(tmp_path), **options, **SMALL).eval()
        told = json.loads(json.dumps(transfer_settings(network)))
        again = landmark_network(3, "diffusion-tiny", **told, **SMALL).eval()
        again.load_state_dict(network.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(again(self.IMAGE), network(self.IMAGE))

    def test_dropout_is_on_the_card(self):
        network = landmark_network(2, "tf_efficientnet_lite0", dropout=0.2)
        again = landmark_network(2, "tf_efficientnet_lite0", **transfer_settings(network))
        assert again.dropout.p == 0.2 and again.state_dict().keys() == network.state_dict().keys()

    def test_the_card_of_an_encoder_too(self):
        network = landmark_network(3, "test_efficientnet", **ENCODER)
        assert isinstance(landmark_network(3, "test_efficientnet", **transfer_settings(network)), EncoderLandmarkUNet)

    @pytest.mark.parametrize("card", [None, {"architecture": "diffusion-tiny"}])
    def test_before_there_was_a_choice_the_whole_network_saw_the_clean_film(self, tmp_path, card):
        if card is not None:
            (tmp_path / "model.json").write_text(json.dumps(card))
        network = trained_network(3, "diffusion-tiny", tmp_path)
        assert isinstance(network, LandmarkUNet) and network.timestep == 0

    def test_the_network_of_a_folder_is_the_one_that_was_trained(self, tmp_path):
        settings = {"frozen": True, "timesteps": [7], "noise": False, "schedule": None, "probe": {"width": 16}}
        (tmp_path / "model.json").write_text(json.dumps({"transfer": settings}))
        network = trained_network(3, "diffusion-tiny", tmp_path)
        assert isinstance(network, FeatureProbe) and network.head.width == 16
        assert network.features.noise.timesteps == (7,)


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
