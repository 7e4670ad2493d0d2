"""Denoising diffusion probabilistic models (Ho et al., NeurIPS 2020), and the same told the source of the film.

    x_t = sqrt(a_t) x + sqrt(1 - a_t) e,    e ~ N(0, I),    a_t = (1 - b_1) ... (1 - b_t)

The network answers ``e``, ``x`` (sample), or ``v = sqrt(a_t) e - sqrt(1 - a_t) x`` (Salimans and Ho, ICLR 2022).
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.pretraining.diffusion import DiffusionObjective

__all__ = ["ConditionalObjective", "DDPMObjective"]

PREDICTIONS = ("epsilon", "v_prediction", "sample")
SCHEDULES = ("linear_beta", "scaled_linear_beta", "cosine")


class DDPMObjective(DiffusionObjective):
    """Predict the noise, the film, or the velocity between them.

    Args:
        network: see :class:`DiffusionObjective`.
        timesteps: number of timesteps T.
        schedule: ``linear_beta``, ``scaled_linear_beta`` or ``cosine``, of MONAI's schedulers.
        prediction: ``epsilon``, ``v_prediction`` or ``sample``.
        beta_end: largest beta of the linear schedules; MONAI's 0.02 where None.
        min_snr_gamma: weight the loss by min(SNR, gamma) instead of SNR, in terms of the film (Hang et al., "Efficient
            Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023; they take 5); None: unweighted.
        timestep_range: shares of T between which timesteps are drawn; a narrow range suits a network that is not told
            the timestep.
        source_dropout: see :class:`DiffusionObjective`.

    Raises:
        ConfigurationError: if schedule or prediction is unknown.
    """

    scheduler: DDPMScheduler

    def __init__(
        self,
        network: nn.Module,
        timesteps: int = 500,
        schedule: str = "linear_beta",
        prediction: str = "epsilon",
        beta_end: float | None = None,
        min_snr_gamma: float | None = None,
        timestep_range: tuple[float, float] = (0.0, 1.0),
        source_dropout: float = 0.0,
    ) -> None:
        for field, value, known in (("schedule", schedule, SCHEDULES), ("prediction", prediction, PREDICTIONS)):
            if value not in known:
                raise ConfigurationError(f"unknown {field}", field=field, value=value, expected=" | ".join(known))
        self._settings: dict[str, Any] = {"num_train_timesteps": timesteps, "schedule": schedule}
        if beta_end is not None:
            if schedule == "cosine":
                problem = "the cosine schedule has no beta_end"
                raise ConfigurationError(problem, field="beta_end", value=beta_end, expected="null")
            self._settings["beta_end"] = beta_end
        super().__init__(network, DDPMScheduler(**self._settings, prediction_type=prediction), source_dropout)
        self.prediction, self.min_snr_gamma = prediction, min_snr_gamma
        self.first, self.last = (round(share * timesteps) for share in timestep_range)
        if not 0 <= self.first < self.last <= timesteps:
            problem = "no timestep in this range"
            raise ConfigurationError(
                problem, field="timestep_range", value=timestep_range, expected="0 <= low < high <= 1"
            )

    def draw_timesteps(self, image: torch.Tensor) -> torch.Tensor:
        """Uniform over all timesteps, or over those of ``timestep_range``.

        Args:
            image: ``(B, C, H, W)``.

        Returns:
            ``(B,)`` integers.
        """
        return torch.randint(self.first, self.last, image.shape[:1], device=image.device)

    def target(self, image: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Noise, velocity or film.

        Args:
            image: ``(B, C, H, W)``.
            noise: of the same shape.
            timesteps: ``(B,)``.

        Returns:
            Of the same shape.
        """
        if self.prediction == "v_prediction":
            velocity: torch.Tensor = self.scheduler.get_velocity(image, noise, timesteps)
            return velocity
        return noise if self.prediction == "epsilon" else image

    def weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """min(SNR, gamma) / SNR for noise, / (SNR + 1) for velocity, / 1 for the film; ones without gamma.

        Args:
            timesteps: ``(B,)``.

        Returns:
            ``(B,)``.
        """
        if self.min_snr_gamma is None:
            return super().weight(timesteps)
        kept = self._kept(timesteps)
        snr = kept / (1 - kept)
        per = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[self.prediction]
        return snr.clamp(max=self.min_snr_gamma) / per

    def clean(self, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The equation above, solved for the film.

        Args:
            noisy: ``(B, C, H, W)``.
            prediction: of the same shape.
            timesteps: ``(B,)``.

        Returns:
            Of the same shape.
        """
        kept = self._kept(timesteps).view(-1, 1, 1, 1)
        if self.prediction == "epsilon":
            return (noisy - (1 - kept).sqrt() * prediction) / kept.sqrt()
        if self.prediction == "v_prediction":
            return kept.sqrt() * noisy - (1 - kept).sqrt() * prediction
        return prediction

    def _kept(self, timesteps: torch.Tensor) -> torch.Tensor:
        """a_t: the share of the film's variance that is left."""
        kept: torch.Tensor = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return kept

    def sampling_scheduler(self, steps: int) -> DDIMScheduler:
        """Deterministic sampler (Song et al., "Denoising Diffusion Implicit Models", ICLR 2021).

        Args:
            steps: how many it takes.

        Returns:
            The scheduler with its timesteps set.
        """
        scheduler = DDIMScheduler(**self._settings, prediction_type=self.prediction, clip_sample=True)
        scheduler.set_timesteps(steps)
        return scheduler

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``.

        Returns:
            Schedule, prediction and weighting.
        """
        facts = {"schedule": self._settings["schedule"], "prediction": self.prediction}
        return {
            "objective": "conditional" if self.sources else "ddpm",
            **super().describe(),
            **facts,
            "beta_end": self._settings.get("beta_end"),
            "min_snr_gamma": self.min_snr_gamma,
            "timestep_range": [self.first / self.timesteps, self.last / self.timesteps],
        }


class ConditionalObjective(DDPMObjective):
    """DDPM on a network that is told the source of the film, and now and then is not.

    Args:
        network: a diffusion U-Net with ``num_class_embeds``.
        source_dropout: share of the films whose source is withheld.
        **options: of :class:`DDPMObjective`.

    Raises:
        ConfigurationError: if the network is told no source.
    """

    def __init__(self, network: nn.Module, source_dropout: float = 0.1, **options: Any) -> None:
        super().__init__(network, source_dropout=source_dropout, **options)
        if self.sources < 2:
            raise ConfigurationError(
                "there is no source to tell the network",
                field="sources",
                value=self.sources,
                expected="the null condition and one source at least",
                action="name the sources of the pool, or a field of the datalist, in condition_on",
            )
