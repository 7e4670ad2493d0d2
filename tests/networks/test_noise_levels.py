"""Noise in front of a pre-trained network: by its own schedule, repeatable, the same whatever else is in the batch."""

from __future__ import annotations

import copy

import pytest
import torch

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import LandmarkUNet
from monai_landmark.networks.noise_levels import NoiseLevels, NoisyLandmarkUNet, noise_scheduler

SMALL = {"channels": (8, 8, 16), "norm_num_groups": 8, "num_head_channels": 8}
DDPM = {"objective": "ddpm", "timesteps": 500, "schedule": "linear_beta", "beta_end": None}
FLOW = {"objective": "flow", "timesteps": 1000}


def scrambled(network):
    """All weights drawn anew, for the last layers start at zero and would hide differences."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def kept_share(card, timestep):
    """Product of (1 - beta) over a linear schedule, computed by hand."""
    total, end = card["timesteps"], card.get("beta_end") or 0.02
    product = 1.0
    for step in range(timestep + 1):
        product *= 1 - (1e-4 + (end - 1e-4) * step / (total - 1))
    return product


class TestSchedules:
    @pytest.mark.parametrize("card", [DDPM, {**DDPM, "beta_end": 0.028}, {**DDPM, "timesteps": 1000}])
    @pytest.mark.parametrize("timestep", [0, 50, 200])
    def test_ddpm_keeps_the_share_that_its_betas_say(self, card, timestep):
        image = torch.full((2, 1, 64, 64), 3.0)
        (noisy, told), *more = NoiseLevels((timestep,), card)(image)
        kept = kept_share(card, timestep)
        noise = (noisy - kept**0.5 * 3.0) / (1 - kept) ** 0.5
        assert not more and told.tolist() == [timestep] * 2
        assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05  # of 4096 standard normal numbers

    @pytest.mark.parametrize("timestep", [0, 100, 999])
    def test_flow_is_a_straight_line(self, timestep):
        clean = torch.randn(1, 1, 64, 64)
        (noisy, _), (pure, _) = NoiseLevels((timestep, timestep), FLOW)(clean)
        share = timestep / 1000
        assert abs(((noisy - (1 - share) * clean).std()) - share) < 0.05
        assert torch.equal(noisy, clean) == (timestep == 0)
        assert torch.equal(noisy, pure) == (timestep == 0), "a timestep named twice has two noise maps"

    @pytest.mark.parametrize("card", [{}, {"timesteps": 500}, {"objective": "flow"}, {"schedule": "cosine"}])
    def test_a_card_that_does_not_tell_the_noise_is_refused(self, card):
        with pytest.raises(WeightsError, match="which noise"):
            noise_scheduler(card)


class TestNoiseLevels:
    def test_by_default_the_film_is_clean(self):
        image, levels = torch.randn(2, 1, 8, 8), NoiseLevels()
        ((seen, told),) = levels(image)
        assert levels.clean and seen is image and told.tolist() == [0, 0]

    def test_without_a_schedule_only_the_timestep_is_told(self):
        image, levels = torch.randn(2, 1, 8, 8), NoiseLevels((50, 7))
        assert [(seen is image, told.tolist()) for seen, told in levels(image)] == [(True, [50, 50]), (True, [7, 7])]
        assert not levels.clean

    def test_fixed_noise_depends_on_nothing_but_its_key(self):
        images = torch.randn(3, 1, 16, 24)
        levels = NoiseLevels((100,), DDPM)
        ((batch, _),) = levels(images)
        torch.rand(7)  # torch's own generator plays no part
        ((alone, _),) = NoiseLevels((100,), DDPM)(images[1:2])
        assert torch.equal(batch[1:2], alone)
        ((other, _),) = NoiseLevels((100,), DDPM, seed=1)(images[1:2])
        assert not torch.equal(other, alone)

    def test_random_noise_follows_torch(self):
        image, levels = torch.zeros(2, 1, 16, 16), NoiseLevels((100,), DDPM)
        torch.manual_seed(3)
        ((first, _),) = levels(image, random=True)
        ((second, _),) = levels(image, random=True)
        torch.manual_seed(3)
        ((again, _),) = levels(image, random=True)
        assert torch.equal(first, again) and not torch.equal(first, second) and not torch.equal(first[0], first[1])

    @pytest.mark.parametrize(("timesteps", "card"), [((), None), ((-1,), None), ((500,), DDPM), ((1.5,), DDPM)])
    def test_impossible_timesteps_are_refused(self, timesteps, card):
        with pytest.raises(ConfigurationError, match="timesteps"):
            NoiseLevels(timesteps, card)


class TestNoisyLandmarkUNet:
    def test_logits_of_several_levels_are_averaged(self):
        torch.manual_seed(0)
        network = scrambled(NoisyLandmarkUNet(3, NoiseLevels((20, 200), DDPM), **SMALL))
        image = torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            each = [network.diffusion(noisy, told) for noisy, told in NoiseLevels((20, 200), DDPM)(image)]
            torch.testing.assert_close(network(image), (each[0] + each[1]) / 2)
            assert not torch.allclose(each[0], each[1])

    def test_the_average_of_the_logits_is_that_of_the_last_features(self):
        torch.manual_seed(0)
        network = scrambled(NoisyLandmarkUNet(3, NoiseLevels((20, 200), DDPM), patch_size=1, **SMALL))
        image, last, features = torch.randn(1, 1, 16, 16), network.diffusion.unet.out[2], []
        hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        with torch.no_grad():
            logits = network(image)
            hook.remove()
            torch.testing.assert_close(last((features[0] + features[1]) / 2), logits)

    def test_a_prediction_repeats_and_training_does_not(self):
        network = scrambled(NoisyLandmarkUNet(2, NoiseLevels((200,), DDPM), **SMALL))
        twin, image = copy.deepcopy(network), torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            first = network(image)
            assert torch.equal(first, network(image)) and torch.equal(first, twin(image))
            torch.testing.assert_close(network(image[:1]), first[:1])
            network.train()
            assert not torch.allclose(network(image), network(image))

    def test_weights_are_those_of_the_plain_network(self):
        plain = scrambled(LandmarkUNet(2, **SMALL))
        network = NoisyLandmarkUNet(2, NoiseLevels((0, 1)), **SMALL)
        assert network.state_dict().keys() == plain.state_dict().keys()

    def test_flow_survives_a_copy(self):
        network = copy.deepcopy(NoisyLandmarkUNet(2, NoiseLevels((200,), FLOW), **SMALL)).eval()
        with torch.no_grad():
            assert network(torch.randn(1, 1, 16, 16)).shape == (1, 2, 16, 16)

    def test_trace_equals_eager(self):
        network, image = scrambled(NoisyLandmarkUNet(2, NoiseLevels((200,), DDPM), **SMALL)), torch.randn(1, 1, 16, 16)
        with torch.no_grad(), torch.jit.optimized_execution(False):
            traced = torch.jit.trace(network, image, check_trace=False)
            torch.testing.assert_close(traced(image), network(image), rtol=0, atol=1e-6)
