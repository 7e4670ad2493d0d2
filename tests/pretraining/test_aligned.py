"""Guidance alignment: its gradients against a naive recomputation, and the ways in which it can silently be nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import DiffusionUNet
from monai_landmark.pretraining.aligned import AlignedObjective
from monai_landmark.pretraining.ddpm import DDPMObjective

LEVELS = ("encoder_4", "bottleneck", "decoder_2")


def awake(classes: int | None = 3) -> DiffusionUNet:
    """A small network in which everything makes a difference: MONAI starts the last layer of each block at zero."""
    torch.manual_seed(0)
    network = DiffusionUNet(
        channels=(8, 16), num_res_blocks=1, norm_num_groups=4, num_head_channels=8, num_class_embeds=classes
    )
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return network


def aligned(start: float = 0.5, network: DiffusionUNet | None = None) -> AlignedObjective:
    """The objective on that network."""
    torch.manual_seed(1)
    return AlignedObjective(network or awake(), LEVELS, alignment_start=start, projection=(12, 6), timesteps=40)


def films(count: int = 3) -> torch.Tensor:
    """Noise will do."""
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


SOURCES = torch.tensor([1, 2, 1])


class TestNumbers:
    def test_gradients_are_those_of_a_naive_recomputation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Film by film, pass by pass, in float64, from the formulas in the module's head."""
        objective = aligned().double()
        image = films().double()
        drawn = (torch.tensor([11, 20, 29]), torch.tensor([25, 12, 13]))
        noises = torch.randn(2, 3, 1, 16, 16, dtype=torch.double, generator=torch.Generator().manual_seed(4))
        monkeypatch.setattr(objective, "draw_pair", lambda image: torch.stack(drawn, dim=1))
        queue = iter(noises)
        monkeypatch.setattr(torch, "randn_like", lambda like: next(queue))
        result = objective.alignment(image, SOURCES)
        names = [name for name, _ in objective.named_parameters()]
        found = torch.autograd.grad(result["alignment"], list(objective.parameters()), allow_unused=True)

        total = torch.zeros((), dtype=torch.double)
        for film in range(3):
            for level in LEVELS:
                projected = []
                for t, noise in zip((int(drawn[0][film]), int(drawn[1][film])), noises[:, film], strict=True):
                    kept = torch.prod(1 - torch.linspace(1e-4, 2e-2, 40, dtype=torch.double)[: t + 1])
                    noisy = kept.sqrt() * image[film] + (1 - kept).sqrt() * noise
                    told, null = (
                        _feature(objective, noisy[None], t, label, level) for label in (int(SOURCES[film]), 0)
                    )
                    difference = told.mean(dim=(2, 3)) - null.mean(dim=(2, 3))
                    first, last = objective.projections[level][0].weight, objective.projections[level][2].weight
                    z = functional.gelu(difference @ first.T) @ last.T
                    projected.append(z / z.norm())
                total = total + (1 - (projected[0] * projected[1]).sum()) / (3 * len(LEVELS))
        expected = torch.autograd.grad(total, list(objective.parameters()), allow_unused=True)
        torch.testing.assert_close(result["alignment"], total, rtol=1e-6, atol=0)
        compared = 0
        for name, ours, theirs in zip(names, found, expected, strict=True):
            assert (ours is None) == (theirs is None), name
            if ours is not None and theirs is not None and theirs.norm() > 1e-10:
                assert (ours - theirs).norm() / theirs.norm() < 1e-5, name
                compared += 1
        assert compared > 30

    def test_loss_adds_the_weighted_term_when_its_time_has_come(self) -> None:
        objective = aligned()
        objective.progress = 0.49
        assert set(objective(films(), SOURCES)) == {"loss", "diffusion"}
        objective.progress = 0.5
        terms = objective(films(), SOURCES)
        torch.testing.assert_close(terms["loss"], terms["diffusion"] + 5.0 * terms["alignment"])
        assert float(terms["difference_norm"]) > 0
        assert 0 < float(terms["projection_spread"]) <= 1

    def test_every_parameter_has_a_gradient_before_and_while_aligning(self) -> None:
        objective = aligned()
        for progress in (0.0, 0.9):
            objective.progress = progress
            objective.zero_grad()
            objective(films(), SOURCES)["loss"].backward()
            assert all(weight.grad is not None for weight in objective.parameters())


class TestDeadWays:
    def test_two_timesteps_that_differ_from_the_middle_half(self) -> None:
        """Two views of one noise level have the same pooled difference: the term would be 0 whatever is learned."""
        first, second = aligned().draw_pair(torch.zeros(4000, 1, 1, 1)).unbind(1)
        for timesteps in (first, second):
            assert (int(timesteps.min()), int(timesteps.max())) == (10, 29)
            assert torch.bincount(timesteps, minlength=30)[10:].min() > 120  # uniform: 200 each
        assert (first != second).all()

    def test_a_flipped_view_at_one_timestep_would_be_nothing(self) -> None:
        """Why it must not be built that way: the mean over the map forgets a flip of a network without position."""
        features = torch.randn(2, 5, 8, 8)
        assert torch.allclose(features.mean(dim=(2, 3)), features.flip(-1).mean(dim=(2, 3)), atol=1e-6)

    def test_refuses_a_network_that_is_told_nothing(self) -> None:
        with pytest.raises(ConfigurationError, match="no source"):
            aligned(network=awake(None))

    def test_refuses_a_batch_of_unknown_sources(self) -> None:
        objective = aligned()
        objective.progress = 1.0
        with pytest.raises(ConfigurationError, match="nothing to align"):
            objective(films(), torch.zeros(3, dtype=torch.long))

    def test_films_of_unknown_source_take_no_part(self) -> None:
        objective = aligned()
        found = []
        for third in (films()[2], torch.zeros(1, 16, 16)):
            torch.manual_seed(7)
            found.append(objective.alignment(torch.stack([*films()[:2], third]), torch.tensor([1, 2, 0])))
        torch.testing.assert_close(*found)
        assert float(found[0]["difference_norm"]) > 0

    def test_no_difference_reads_one_and_not_zero(self) -> None:
        """A network that ignores its source must not look perfectly aligned."""
        network = awake()
        with torch.no_grad():
            network.unet.class_embedding.weight[:] = network.unet.class_embedding.weight[:1]
        terms = aligned(network=network).alignment(films(), SOURCES)
        assert float(terms["difference_norm"]) == pytest.approx(0, abs=1e-6)
        assert float(terms["alignment"]) > 0.5

    @pytest.mark.parametrize("start", [0.0, 1.0, -0.1, 1.5, math.nan])
    def test_refuses_to_align_from_the_first_step_or_never(self, start: float) -> None:
        with pytest.raises(ConfigurationError, match="alignment_start"):
            aligned(start)

    def test_collapsed_projections_are_seen(self) -> None:
        objective = aligned()
        with torch.no_grad():
            for projection in objective.projections.values():
                projection[2].weight[1:] = 0
                projection[2].weight[0] = projection[2].weight[0].abs()
                projection[0].weight.abs_()
        spread = objective.alignment(films(), SOURCES)["projection_spread"]
        assert float(spread) < 1.0 + 1e-6
        assert float(spread) < float(aligned().alignment(films(), SOURCES)["projection_spread"]) + 1.0

    def test_diffusion_keeps_drawing_from_all_timesteps_while_aligning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        objective = aligned()
        objective.progress = 1.0
        seen: list[torch.Tensor] = []
        original = DDPMObjective.film_loss

        def watched(
            self: DDPMObjective, image: torch.Tensor, timesteps: torch.Tensor, *rest: torch.Tensor
        ) -> torch.Tensor:
            seen.append(timesteps)
            return original(self, image, timesteps, *rest)

        monkeypatch.setattr(DDPMObjective, "film_loss", watched)
        with torch.no_grad():
            for step in range(60):
                torch.manual_seed(step)
                objective(films(), SOURCES)
        drawn = torch.cat(seen)
        assert int(drawn.min()) < 5
        assert int(drawn.max()) > 34


def _feature(objective: AlignedObjective, noisy: torch.Tensor, t: int, label: int, level: str) -> torch.Tensor:
    """One pass for one film, the feature map caught by a plain hook on the module named by hand."""
    unet = objective.network.unet
    module = {
        "encoder_4": unet.down_blocks[1].attentions[-1],
        "bottleneck": unet.middle_block,
        "decoder_2": unet.up_blocks[1].resnets[-1],
    }[level]
    caught: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda module, inputs, output: caught.append(output))
    objective.network(noisy, torch.tensor([t]), class_labels=torch.tensor([label]))
    handle.remove()
    return caught[0]
