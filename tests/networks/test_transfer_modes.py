"""What is trained of a network: a linear classifier, the decoder, or all; and MONAI's own networks beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from monai_landmark.engines import save_model
from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import TrainedWeights, landmark_network, trained_network, transfer_settings
from monai_landmark.networks.feature_probe import FeatureProbe, LinearHead
from monai_landmark.networks.plain import PLAIN, PlainNetwork

NETWORKS = ["diffusion-tiny", "mobilenetv3_small_050"]
ENCODER = ("diffusion.unet.conv_in", "diffusion.unet.time", "diffusion.unet.down", "diffusion.unet.middle", "encoder.")


def test_linear_head_is_one_linear_classifier_of_joined_features() -> None:
    torch.manual_seed(0)
    channels = {"fine": 3, "coarse": 5}
    head = LinearHead(channels, landmarks=4, reduction=2).eval()
    features = {"fine": torch.randn(2, 3, 8, 8), "coarse": torch.randn(2, 5, 4, 4)}
    joined = torch.cat(
        [functional.interpolate(maps, size=(16, 16), mode="bilinear") for maps in features.values()], dim=1
    )
    weight = torch.cat([head.classify[level][1].weight for level in channels], dim=1)
    bias = sum(head.classify[level][1].bias for level in channels)
    expected = functional.conv2d(joined / (1 + 1e-5) ** 0.5, weight, bias)  # fresh normalization: mean 0, variance 1
    torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_linear_probe_trains_a_1x1_convolution_a_level_and_is_built_again(architecture: str, tmp_path: Path) -> None:
    network = landmark_network(5, architecture, frozen=True, probe={"head": "linear"})
    assert isinstance(network, FeatureProbe)
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * len(network.features.levels)
    assert all(name.startswith("head.classify.") for name in trained)
    assert {tuple(weight.shape[2:]) for weight in trained.values() if weight.ndim == 4} == {(1, 1)}
    save_model(network, tmp_path, {"architecture": architecture, "transfer": transfer_settings(network)})
    again = trained_network(5, architecture, tmp_path)
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(again.eval()(image), network.eval()(image))


@pytest.mark.parametrize("architecture", NETWORKS)
def test_frozen_encoder_stays_and_the_decoder_learns(architecture: str) -> None:
    torch.manual_seed(0)
    network = landmark_network(3, architecture, frozen="encoder").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(2):  # a diffusion network's last layer begins at zero and lets no gradient through
        (network(torch.randn(2, 1, 64, 64)) - 1).square().mean().backward()
        optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert len(moved) > 10 and not any(name.startswith(ENCODER) for name in moved)
    assert transfer_settings(network)["frozen"] == "encoder"


def test_frozen_encoder_keeps_its_running_statistics_and_gives_what_it_gave() -> None:
    network = landmark_network(3, "mobilenetv3_small_050", frozen="encoder")
    assert not any(part.training for part in network.train().encoder.modules())  # type: ignore[union-attr]
    assert network.decoder.training  # type: ignore[union-attr]


@pytest.mark.parametrize("architecture", sorted(PLAIN))
def test_plain_networks_have_the_same_interface(architecture: str) -> None:
    network = landmark_network(6, architecture)
    assert isinstance(network, PlainNetwork) and network.transfer_report is None
    assert network(torch.zeros(2, 1, 64, 96)).shape == (2, 6, 64, 96)
    assert transfer_settings(network)["frozen"] is False


@pytest.mark.parametrize("architecture", sorted(PLAIN))
def test_plain_networks_are_saved_and_read_again(architecture: str, tmp_path: Path) -> None:
    """DynUNet holds its layers under two names each, which safetensors refuses as they are."""
    network, image = landmark_network(2, architecture).eval(), torch.randn(1, 1, 32, 32)
    save_model(network, tmp_path, {"architecture": architecture})
    again = trained_network(2, architecture, tmp_path).eval()
    TrainedWeights(again, tmp_path / "model.safetensors")()
    torch.testing.assert_close(again(image), network(image), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frozen": True}, "no pre-trained part"),
        ({"frozen": "encoder"}, "no pre-trained part"),
        ({"initialization": "imagenet"}, "starts from random weights"),
        ({"timesteps": (3,)}, "knows no timesteps"),
        ({"dropout": 0.1}, "starts from random weights"),
    ],
)
def test_plain_networks_only_start_from_random_weights(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        landmark_network(6, "monai-segresnet", **settings)  # type: ignore[arg-type]


def test_impossible_modes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be frozen so"):
        landmark_network(3, "diffusion-tiny", frozen="decoder")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="has no probe"):
        landmark_network(3, "diffusion-tiny", frozen="encoder", probe={"head": "linear"})
    with pytest.raises(ConfigurationError, match="no such head"):
        landmark_network(3, "diffusion-tiny", frozen=True, probe={"head": "round"})
