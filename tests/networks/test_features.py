"""Feature maps by side and resolution."""

from __future__ import annotations

import pytest
import torch

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import DiffusionUNet, FeatureTaps

SMALL = {"channels": (8, 16, 24), "norm_num_groups": 8, "num_head_channels": 8, "num_res_blocks": 2}


@pytest.fixture(scope="module")
def network() -> DiffusionUNet:
    """Three levels on patches of 2."""
    torch.manual_seed(0)
    return DiffusionUNet(**SMALL).eval()


def test_every_level_has_the_size_and_width_that_its_name_says(network: DiffusionUNet) -> None:
    levels = FeatureTaps.levels_of(network)
    assert levels == ("encoder_2", "encoder_4", "encoder_8", "bottleneck", "decoder_8", "decoder_4", "decoder_2")
    with FeatureTaps(network, levels) as taps, torch.no_grad():
        network(torch.randn(2, 1, 64, 48), torch.tensor([1, 2]))
    for level, channels in FeatureTaps.channels_of(network, levels).items():
        by = 8 if level == "bottleneck" else int(level.split("_")[1])
        assert taps.features[level].shape == (2, channels, 64 // by, 48 // by)


def test_the_last_map_is_what_the_network_answers_from(network: DiffusionUNet) -> None:
    image, times = torch.randn(1, 1, 32, 32), torch.tensor([5])
    with FeatureTaps(network, ["decoder_2"]) as taps, torch.no_grad():
        answer = network(image, times)
        again = torch.nn.functional.pixel_shuffle(network.unet.out(taps.features["decoder_2"]), 2)
    torch.testing.assert_close(again, answer)


def test_nothing_is_kept_after_the_context(network: DiffusionUNet) -> None:
    with FeatureTaps(network, ["bottleneck"]) as taps:
        pass
    network(torch.randn(1, 1, 32, 32), torch.tensor([5]))
    assert taps.features == {}


def test_an_unknown_level_is_refused(network: DiffusionUNet) -> None:
    for ask in (FeatureTaps, FeatureTaps.channels_of):
        with pytest.raises(ConfigurationError, match="encoder_16"):
            ask(network, ["encoder_16"])
