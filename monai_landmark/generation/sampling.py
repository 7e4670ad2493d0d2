"""Films from noise, or from a noised film, in a few steps."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import DiffusionInferer

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.diffusion import GenerationObjective
from monai_landmark.pretraining.samples import GuidedNetwork

__all__ = ["draw_films"]


@torch.no_grad()
def draw_films(
    objective: GenerationObjective,
    tokens: torch.Tensor,
    noise: torch.Tensor,
    steps: int = 50,
    guidance: float = 2.0,
    start: torch.Tensor | None = None,
    strength: float = 1.0,
) -> torch.Tensor:
    """Draw films by DDIM (Song et al., ICLR 2021), or by Euler steps along the flow.

    Args:
        objective: with a trained network.
        tokens: ``(B, N, D)`` of the embeddings that the films are drawn from.
        noise: ``(B, C, h, w)`` standard normal, of the shape of what is noised.
        steps: from noise to film.
        guidance: 1: as the network says; above it what the embedding adds is overdrawn, 0: it is not told.
        start: ``(B, 1, H, W)`` films to start from (SDEdit, Meng et al., ICLR 2022), as far as ``strength`` goes.
        strength: share of the way to pure noise that they are taken back; 1: nothing of them is left.

    Returns:
        ``(B, 1, H, W)`` in [-1, 1], on the device of the noise.

    Raises:
        ConfigurationError: if the strength is not above 0 and at most 1.
    """
    scheduler = objective.sampling_scheduler(steps)
    if start is not None:
        noise = _started(objective, scheduler, noise, objective.encode(start), strength)
    told = None if guidance == 0 else tokens.to(noise)
    guided = GuidedNetwork(objective, told, guidance)
    latent: Any = DiffusionInferer(scheduler).sample(noise, guided, scheduler, verbose=False)
    films: torch.Tensor = objective.decode(latent).clamp(-1, 1)
    return films


def _started(
    objective: GenerationObjective, scheduler: Any, noise: torch.Tensor, start: torch.Tensor, strength: float
) -> torch.Tensor:
    """Films noised to the timestep of their strength, the steps above which the scheduler forgets."""
    if not 0 < strength <= 1:
        raise ConfigurationError("no such strength", field="strength", value=strength, expected="above 0, at most 1")
    count = len(scheduler.timesteps)
    scheduler.timesteps = scheduler.timesteps[count - max(1, round(strength * count)) :]
    first = scheduler.timesteps[0].to(noise.device).expand(len(noise))
    return objective.noisy(start, noise, first)
