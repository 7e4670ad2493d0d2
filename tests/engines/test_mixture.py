"""Ensembles and Monte Carlo dropout against the mean of probabilities written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_landmark.data.geometry import film_affine
from monai_landmark.engines import MixtureInferer, PrecisionInferer, ViewInferer
from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import landmark_network
from monai_landmark.uncertainty import expected_radial_error

FILM = torch.linspace(-1, 1, 32 * 24).reshape(1, 1, 32, 24).sin()


class Peak(nn.Module):
    """A network that is sure of one pixel, whatever the film."""

    def __init__(self, row: int, col: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 1, 32, 24))
        with torch.no_grad():
            self.logits[0, 0, row, col] = 12.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(image), -1, -1, -1)


@torch.inference_mode()
def test_an_ensemble_is_the_mean_of_its_members_probabilities() -> None:
    peaks = [Peak(4, 4), Peak(4, 16), Peak(20, 4)]
    found = MixtureInferer(members=peaks[1:])(FILM, peaks[0])
    by_hand = torch.stack([peak(FILM).flatten().double().softmax(0) for peak in peaks]).mean(0)
    assert torch.allclose(found.flatten().double().exp(), by_hand, atol=1e-6)


@torch.inference_mode()
def test_members_that_disagree_widen_the_expected_error() -> None:
    affine, points = film_affine((1.0, 1.0)), torch.tensor([[4.0, 4.0]])
    same, other = (
        expected_radial_error(MixtureInferer(members=[member])(FILM, Peak(4, 4))[0], affine, points).item()
        for member in (Peak(4, 4), Peak(4, 16))
    )
    assert same < 0.01 and other == pytest.approx(6.0, abs=0.1)  # half the mass is 12 mm away


@torch.inference_mode()
def test_a_single_network_gives_its_own_logits() -> None:
    peak = Peak(3, 3)
    assert torch.equal(MixtureInferer(ViewInferer([(0, 1)]))(FILM, peak), peak(FILM))


@torch.inference_mode()
def test_dropout_draws_are_those_of_the_layer_and_leave_no_trace() -> None:
    torch.manual_seed(0)
    network = landmark_network(2, "tf_efficientnet_lite0", dropout=0.5).eval()
    network.head.weight.normal_()
    before, state = network(FILM), torch.random.get_rng_state()
    inferer = MixtureInferer(ViewInferer(inferer=PrecisionInferer(dtype="float32")), samples=3, seed=5)
    found = inferer(FILM, network)
    assert torch.equal(torch.random.get_rng_state(), state) and torch.equal(network(FILM), before)
    *_, deep = network.maps(FILM)
    torch.manual_seed(5)
    maps = [network.head(nn.functional.dropout2d(deep, 0.5)).flatten(2).softmax(-1) for _ in range(3)]
    assert torch.allclose(found.flatten(2).exp(), torch.stack(maps).mean(0), atol=1e-6)
    assert torch.equal(found, inferer(FILM, network))  # the same film, the same answer


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="number of draws"):
        MixtureInferer(samples=0)
    with pytest.raises(ConfigurationError, match="without dropout"):
        MixtureInferer(samples=2)(FILM, landmark_network(2, "tf_efficientnet_lite0"))
    with pytest.raises(ConfigurationError, match="dropout"):
        landmark_network(2, "diffusion-tiny", dropout=0.1)
    with pytest.raises(ConfigurationError, match="dropout"):
        landmark_network(2, "tf_efficientnet_lite0", dropout=1.0)
