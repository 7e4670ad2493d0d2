"""DDPM, flow and conditional diffusion: formulas against independent ones, and that each learns four films by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import DiffusionUNet, EncoderLandmarkUNet
from monai_landmark.pretraining import objective_views, pretraining_objective
from monai_landmark.pretraining.ddpm import DDPMObjective
from monai_landmark.pretraining.diffusion import DiffusionObjective
from monai_landmark.pretraining.factory import OBJECTIVES

TINY = {"channels": (8, 16), "num_res_blocks": 1, "norm_num_groups": 4, "num_head_channels": 8}


def tiny(classes: int | None = None) -> DiffusionUNet:
    """A network of a few thousand parameters."""
    torch.manual_seed(0)
    return DiffusionUNet(num_class_embeds=classes, **TINY)


def films(count: int = 4, edge: int = 32) -> torch.Tensor:
    """Smooth blobs, one a film, in [-1, 1]."""
    rows, columns = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    centers = [(edge * (0.3 + 0.1 * index), edge * (0.7 - 0.12 * index)) for index in range(count)]
    blobs = [torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 5.0**2)) for y, x in centers]
    return 2 * torch.stack(blobs)[:, None] - 1


def reference_kept(schedule: str, timesteps: int) -> np.ndarray:
    """The share of the film's variance left, by the papers' formulas."""
    if schedule == "cosine":  # Nichol and Dhariwal, ICML 2021, equation 17
        t = np.linspace(0, timesteps, timesteps + 1) / timesteps
        f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.cumprod(1 - np.clip(1 - f[1:] / f[:-1], 0, 0.999))
    low, high = 1e-4, 2e-2
    if schedule == "scaled_linear_beta":
        betas = np.linspace(low**0.5, high**0.5, timesteps) ** 2
    else:
        betas = np.linspace(low, high, timesteps)
    return np.cumprod(1 - betas)


class Answer(torch.nn.Module):
    """Stands in for a network that knows the answer."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """The answer, whatever the question."""
        return self.value


@pytest.mark.parametrize("schedule", ["linear_beta", "scaled_linear_beta", "cosine"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
class TestDDPM:
    def test_noisy_target_and_way_back(self, schedule: str, prediction: str) -> None:
        objective = DDPMObjective(tiny(), 100, schedule, prediction)
        image, noise, t = films().double(), torch.randn(4, 1, 32, 32, dtype=torch.double), torch.tensor([0, 30, 60, 95])
        kept = torch.from_numpy(reference_kept(schedule, 100))[t].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * image + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * image
        target = {"epsilon": noise, "v_prediction": velocity, "sample": image}[prediction]
        torch.testing.assert_close(objective.noisy(image, noise, t), noisy, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(objective.target(image, noise, t), target, atol=2e-3, rtol=2e-3)
        seen = objective.noisy(image, noise, t)
        torch.testing.assert_close(
            objective.clean(seen, objective.target(image, noise, t), t)[:3], image[:3], atol=1e-3, rtol=1e-3
        )

    def test_min_snr_weight_is_the_one_on_the_film(self, schedule: str, prediction: str) -> None:
        """Weights on noise or velocity errors are those that weigh the film's error by min(SNR, gamma)."""
        objective = DDPMObjective(tiny(), 100, schedule, prediction, min_snr_gamma=5.0)
        image, noise, t = films().double(), torch.randn(4, 1, 32, 32, dtype=torch.double), torch.tensor([3, 30, 60, 80])
        noisy, target = objective.noisy(image, noise, t), objective.target(image, noise, t)
        wrong = target + 0.1 * torch.randn_like(target)
        film_error = (objective.clean(noisy, wrong, t) - image).square().mean(dim=(1, 2, 3))
        error = (wrong - target).square().mean(dim=(1, 2, 3))
        kept = torch.from_numpy(reference_kept(schedule, 100))[t]
        expected = film_error * (kept / (1 - kept)).clamp(max=5.0)
        torch.testing.assert_close(error * objective.weight(t), expected, rtol=5e-3, atol=1e-6)


def test_film_loss_is_the_weighted_mean_square_of_each_film() -> None:
    image, noise, t = films(), torch.randn(4, 1, 32, 32), torch.tensor([5, 5, 200, 400])
    objective = DDPMObjective(Answer(noise + torch.tensor([0.0, 1.0, 2.0, 3.0]).view(-1, 1, 1, 1)))
    torch.testing.assert_close(objective.film_loss(image, t, noise), torch.tensor([0.0, 1.0, 4.0, 9.0]))


def test_flow_is_a_straight_line() -> None:
    objective = pretraining_objective("flow", timesteps=1000)
    assert isinstance(objective, DiffusionObjective)
    image, noise, t = films(), torch.randn(4, 1, 32, 32), torch.tensor([0.0, 250.0, 500.0, 1000.0])
    noisy = objective.noisy(image, noise, t)
    torch.testing.assert_close(noisy[0], image[0])
    torch.testing.assert_close(noisy[1], 0.75 * image[1] + 0.25 * noise[1])
    torch.testing.assert_close(noisy[3], noise[3])
    torch.testing.assert_close(objective.clean(noisy, objective.target(image, noise, t), t), image)


@pytest.mark.parametrize("name", ["ddpm", "flow"])
def test_sampler_arrives_at_the_only_film_there_is(name: str) -> None:
    """With the best answer for a single film, sampling from noise must end at that film."""
    objective = pretraining_objective(name)
    assert isinstance(objective, DiffusionObjective)
    image = films(1).clamp(-0.9, 0.9)
    scheduler, x = objective.sampling_scheduler(25), torch.randn(1, 1, 32, 32)
    for index, t in enumerate(scheduler.timesteps):
        level = t.reshape(1).float() if name == "flow" else t.reshape(1)
        if name == "flow":
            answer = (image - x) / (level / objective.timesteps)
            following = scheduler.timesteps[index + 1] if index < 24 else torch.tensor(0.0)
            x, _ = scheduler.step(answer, t, x, following)
        else:
            kept = objective.scheduler.alphas_cumprod[t]
            x, _ = scheduler.step((x - kept.sqrt() * image) / (1 - kept).sqrt(), t, x)
    torch.testing.assert_close(x, image, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["ddpm", "flow", "conditional", "aligned"])
def test_overfits_four_films(name: str) -> None:
    """After 150 steps on four films less than a third of the first loss is left."""
    torch.manual_seed(0)
    kind = type(pretraining_objective(name, sources=2))
    objective = kind(
        tiny(None if name in ("ddpm", "flow") else 3), **({"levels": ("bottleneck",)} if name == "aligned" else {})
    )
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    image, source = films(), torch.tensor([1, 1, 2, 2])
    history = []
    for step in range(150):
        objective.progress = step / 150
        torch.manual_seed(step % 10)  # ten draws of noise and timesteps, over and over
        terms = objective(image, source)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        history.append(float(terms.get("diffusion", terms["loss"]).detach()))
    assert np.mean(history[-10:]) < np.mean(history[:10]) / 3


class TestConditional:
    def test_source_is_withheld_as_often_as_told(self) -> None:
        objective = pretraining_objective("conditional", sources=3, source_dropout=0.25)
        torch.manual_seed(1)
        told = objective.withhold(torch.full((20_000,), 2))
        assert set(told.tolist()) == {0, 2}
        assert (told == 0).float().mean() == pytest.approx(0.25, abs=0.015)

    def test_null_is_what_no_source_means(self) -> None:
        objective = pretraining_objective("conditional", sources=2)
        _awake(objective.network)
        image, t = films(), torch.tensor([9, 9, 9, 9])
        null = objective.predict(image, t)
        assert torch.equal(null, objective.predict(image, t, torch.zeros(4, dtype=torch.long)))
        assert not torch.allclose(null, objective.predict(image, t, torch.ones(4, dtype=torch.long)))

    @pytest.mark.parametrize(
        "source", [None, torch.tensor([1, 1]), torch.tensor([1, 1, 1, 3]), torch.tensor([-1, 1, 1, 1])]
    )
    def test_refuses_sources_that_cannot_be(self, source: torch.Tensor | None) -> None:
        with pytest.raises(ConfigurationError, match="source"):
            pretraining_objective("conditional", sources=2)(films(), source)

    def test_refuses_to_be_told_nothing(self) -> None:
        with pytest.raises(ConfigurationError, match="no source"):
            pretraining_objective("conditional", sources=0)


class TestFactory:
    @pytest.mark.parametrize(
        ("words", "field"),
        [
            ({"name": "ddmp"}, "objective"),
            ({"name": "ddpm", "temperature": 0.1}, "temperature"),
            ({"name": "flow", "schedule": "cosine"}, "schedule"),
            ({"name": "ddpm", "architecture": "diffusion-huge"}, "architecture"),
            ({"name": "ddpm", "architecture": "diffusion-tiny", "initialization": "imagenet"}, "initialization"),
            ({"name": "conditional", "architecture": "tf_efficientnet_lite0", "sources": 2}, "architecture"),
            ({"name": "ddpm", "schedule": "linear"}, "schedule"),
            ({"name": "ddpm", "prediction": "noise"}, "prediction"),
            ({"name": "ddpm", "schedule": "cosine", "beta_end": 0.03}, "beta_end"),
            ({"name": "ddpm", "timestep_range": (0.5, 0.5)}, "timestep_range"),
        ],
    )
    def test_refusals_name_the_field(self, words: dict[str, Any], field: str) -> None:
        with pytest.raises(ConfigurationError, match=field):
            pretraining_objective(**words)

    def test_every_objective_has_its_views(self) -> None:
        assert {name: objective_views(name) for name in OBJECTIVES} == {
            **dict.fromkeys(("ddpm", "flow", "conditional", "aligned", "masked"), 1),
            **dict.fromkeys(("simclr", "mocov3", "dino"), 2),
        }

    def test_none_leaves_the_default(self) -> None:
        objective = pretraining_objective("ddpm", timesteps=None, prediction=None)
        assert objective.describe()["timesteps"] == 500

    def test_timesteps_stay_in_their_range(self) -> None:
        objective = pretraining_objective("ddpm", timestep_range=(0.2, 0.4))
        drawn = objective.draw_timesteps(torch.zeros(5000, 1, 1, 1))
        assert (int(drawn.min()), int(drawn.max())) == (100, 199)

    def test_blind_denoiser_is_the_whole_landmark_network(self) -> None:
        objective = pretraining_objective("ddpm", "tf_efficientnet_lite0")
        assert isinstance(objective.network, EncoderLandmarkUNet)
        assert torch.isfinite(objective(films())["loss"])


def _awake(network: torch.nn.Module) -> None:
    """MONAI starts the last layer of every block at zero, where a network answers nothing."""
    torch.manual_seed(3)
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
