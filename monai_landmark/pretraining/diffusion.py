"""What all diffusion objectives share: a film is noised, the network is told how much, and learns to undo it."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import DiffusionUNet
from monai_landmark.pretraining.objective import Objective
from monai_landmark.processes import drawn_for

__all__ = ["DiffusionObjective"]

NULL = 0  # index of the null condition


class DiffusionObjective(Objective):
    """Base of the diffusion objectives.

    Args:
        network: the diffusion U-Net; with ``num_class_embeds`` it is told the source of the film. Any other network
            ``(B, C, H, W) -> (B, C, H, W)`` is told neither timestep nor source (blind denoising, as Brempong et al.,
            "Denoising Pretraining for Semantic Segmentation", CVPR Workshops 2022, pre-train a decoder).
        scheduler: adds the noise.
        source_dropout: share of the films whose source is withheld, so that the network also learns the unconditional
            distribution (classifier-free guidance, Ho and Salimans 2022).
    """

    scheduler: DDPMScheduler | RFlowScheduler

    def __init__(
        self, network: nn.Module, scheduler: DDPMScheduler | RFlowScheduler, source_dropout: float = 0.0
    ) -> None:
        super().__init__(network)
        # no submodule: MONAI 1.6.1's RFlowScheduler never calls nn.Module's constructor, and a schedule has no state
        self.__dict__["scheduler"] = scheduler
        self.source_dropout = source_dropout
        self.told = isinstance(network, DiffusionUNet)
        self.sources: int = network.unet.num_class_embeds or 0 if isinstance(network, DiffusionUNet) else 0

    @property
    def timesteps(self) -> int:
        """Number of timesteps T; 0 is a clean film."""
        return int(self.scheduler.num_train_timesteps)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """What of a film is noised: the film itself, unless an objective works in the latent space of an autoencoder.

        Args:
            image: ``(B, C, H, W)``.

        Returns:
            ``image``.
        """
        return image

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """The film of what :meth:`encode` makes.

        Args:
            latent: as :meth:`encode` returns it.

        Returns:
            ``latent``.
        """
        return latent

    def draw_timesteps(self, image: torch.Tensor) -> torch.Tensor:
        """Timesteps to train on.

        Args:
            image: ``(B, C, H, W)``.

        Returns:
            ``(B,)``.
        """
        raise NotImplementedError

    def target(self, image: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network should answer.

        Args:
            image: ``(B, C, H, W)`` clean films.
            noise: of the same shape.
            timesteps: ``(B,)``.

        Returns:
            Of the same shape.
        """
        raise NotImplementedError

    def weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Weight of a timestep in the loss.

        Args:
            timesteps: ``(B,)``.

        Returns:
            ``(B,)``, ones unless an objective says otherwise.
        """
        return torch.ones(timesteps.shape, device=timesteps.device)

    def clean(self, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The film that a prediction amounts to.

        Args:
            noisy: ``(B, C, H, W)`` what the network saw.
            prediction: what it answered.
            timesteps: ``(B,)``.

        Returns:
            Of the same shape.
        """
        raise NotImplementedError

    def sampling_scheduler(self, steps: int) -> Any:
        """Scheduler that turns noise into films.

        Args:
            steps: how many it takes.

        Returns:
            A MONAI scheduler with its timesteps set.
        """
        raise NotImplementedError

    def noisy(self, image: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Add noise.

        Args:
            image: ``(B, C, H, W)`` clean films.
            noise: of the same shape.
            timesteps: ``(B,)``.

        Returns:
            Of the same shape.
        """
        noised: torch.Tensor = self.scheduler.add_noise(original_samples=image, noise=noise, timesteps=timesteps)
        return noised

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        """Ask the network.

        Args:
            noisy: ``(B, C, H, W)``.
            timesteps: ``(B,)``.
            source: ``(B,)``, None for the null condition.

        Returns:
            Its answer, float32, of the same shape.
        """
        if not self.told:
            answer: torch.Tensor = self.network(noisy)
            return answer.float()
        labels = None
        if self.sources:
            labels = torch.full_like(timesteps, NULL, dtype=torch.long) if source is None else source
        answer = self.network(noisy, timesteps, class_labels=labels)
        return answer.float()

    def film_loss(
        self, image: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of every film at given timesteps and noise.

        Args:
            image: ``(B, C, H, W)`` clean films.
            timesteps: ``(B,)``.
            noise: ``(B, C, H, W)``.
            source: ``(B,)``, None for the null condition.

        Returns:
            ``(B,)`` mean squared errors, weighted.
        """
        prediction = self.predict(self.noisy(image, noise, timesteps), timesteps, source)
        error = (prediction - self.target(image, noise, timesteps)).square().flatten(1).mean(dim=1)
        return error * self.weight(timesteps)

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Mean loss of a batch at timesteps and noise drawn for it.

        Args:
            image: ``(B, C, H, W)`` clean films.
            source: ``(B,)``; needed by a network that is told the source.

        Returns:
            ``loss``.
        """
        timesteps, noise = drawn_for(image, self.draw_timesteps), drawn_for(image, torch.randn_like)
        told = self.withhold(self.checked(source, image)) if self.sources else None
        return {"loss": self.film_loss(image, timesteps, noise, told).mean()}

    def checked(self, source: torch.Tensor | None, image: torch.Tensor) -> torch.Tensor:
        """The sources of a batch, refused where they cannot be right.

        Args:
            source: ``(B,)``.
            image: the films.

        Returns:
            ``source``.

        Raises:
            ConfigurationError: if there are none, or one is out of range.
        """
        fits = source is not None and source.shape == image.shape[:1] and 0 <= int(source.min())
        if source is None or not fits or int(source.max()) >= self.sources:
            raise ConfigurationError(
                "a network that is told the source of a film needs it for every film",
                field="source",
                value=None if source is None else source.tolist(),
                expected=f"{image.shape[0]} integers from 0 (unknown) to {self.sources - 1}",
            )
        return source

    def withhold(self, source: torch.Tensor) -> torch.Tensor:
        """Withhold the source of some films.

        Args:
            source: ``(B,)``.

        Returns:
            ``(B,)``, 0 where it is withheld.
        """
        drawn = drawn_for(source, lambda films: torch.rand(films.shape, device=films.device))
        return source.masked_fill(drawn < self.source_dropout, NULL)

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``.

        Returns:
            Architecture, timesteps and share of withheld sources.
        """
        facts = {"architecture": getattr(self.network, "architecture", None), "timesteps": self.timesteps}
        return facts | ({"source_dropout": self.source_dropout} if self.sources else {})
