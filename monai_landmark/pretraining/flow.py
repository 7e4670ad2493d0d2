"""Rectified flow (Liu et al., ICLR 2023): straight lines from noise to films.

    x_s = (1 - s) x + s e,    e ~ N(0, I),    s in [0, 1];    the network answers the velocity v = x - e

s = t / T, so t = 0 is a clean film here as in DDPM.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.schedulers import RFlowScheduler
from torch import nn

from monai_landmark.pretraining.diffusion import DiffusionObjective

__all__ = ["FlowObjective"]


class FlowObjective(DiffusionObjective):
    """Predict the velocity from noise to film.

    Args:
        network: see :class:`DiffusionObjective`.
        timesteps: T; the network is told t = s T, any real number up to it.
        timestep_sampling: ``uniform``, or ``logit-normal`` for more of the middle (Esser et al., ICML 2024).
        source_dropout: see :class:`DiffusionObjective`.
    """

    scheduler: RFlowScheduler

    def __init__(
        self,
        network: nn.Module,
        timesteps: int = 1000,
        timestep_sampling: str = "uniform",
        source_dropout: float = 0.0,
    ) -> None:
        self._settings: dict[str, Any] = {"num_train_timesteps": timesteps, "use_discrete_timesteps": False}
        scheduler = RFlowScheduler(**self._settings, sample_method=timestep_sampling)
        super().__init__(network, scheduler, source_dropout)

    def draw_timesteps(self, image: torch.Tensor) -> torch.Tensor:
        """As the scheduler was told.

        Args:
            image: ``(B, C, H, W)``.

        Returns:
            ``(B,)`` real numbers.
        """
        drawn: torch.Tensor = self.scheduler.sample_timesteps(image)
        return drawn

    def target(self, image: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """X - e.

        Args:
            image: ``(B, C, H, W)``.
            noise: of the same shape.
            timesteps: unused: a straight line has one velocity.

        Returns:
            Of the same shape.
        """
        return image - noise

    def clean(self, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """X = x_s + s v.

        Args:
            noisy: ``(B, C, H, W)``.
            prediction: of the same shape.
            timesteps: ``(B,)``.

        Returns:
            Of the same shape.
        """
        return noisy + (timesteps.float() / self.timesteps).view(-1, 1, 1, 1) * prediction

    def sampling_scheduler(self, steps: int) -> RFlowScheduler:
        """Euler steps along the flow.

        Args:
            steps: how many it takes.

        Returns:
            The scheduler with its timesteps set.
        """
        scheduler = RFlowScheduler(**self._settings)
        scheduler.set_timesteps(steps)
        scheduler.timesteps = scheduler.timesteps.float()  # MONAI's are float16, which autocast on a CPU does not join
        return scheduler

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``.

        Returns:
            Timesteps and how they were drawn.
        """
        return {"objective": "flow", **super().describe(), "timestep_sampling": self.scheduler.sample_method}
