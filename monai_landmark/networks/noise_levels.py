"""At which noise levels a pre-trained diffusion U-Net sees a film: clean, noised to one timestep, or to several.

Fixed-timestep features: Baranchuk et al., Label-efficient semantic segmentation with diffusion models, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks.landmark_unet import LandmarkUNet
from monai_landmark.processes import drawn_for

__all__ = ["NoiseLevels", "NoisyLandmarkUNet", "logits_at", "noise_scheduler"]

_FLOW = "flow"  # the objective whose noise is a rectified flow's; all the others' is a DDPM's
_BETAS = ("beta_start", "beta_end")


def noise_scheduler(card: Mapping[str, Any]) -> DDPMScheduler | RFlowScheduler:
    """The noise that a network was pre-trained with.

    Args:
        card: facts of the pre-training (``model.json``): ``objective``, ``timesteps`` and, unless the objective is
            ``flow``, ``schedule``, with ``beta_start`` and ``beta_end`` where they are not MONAI's own.

    Returns:
        MONAI's scheduler, for its ``add_noise``.

    Raises:
        WeightsError: if the card does not say with which noise.
    """
    flow = card.get("objective") == _FLOW
    if missing := [fact for fact in ("timesteps", *(() if flow else ("schedule",))) if card.get(fact) is None]:
        raise WeightsError(
            "the pre-training does not say which noise it used",
            field="model.json",
            value=sorted(card),
            expected=", ".join(missing),
            action="keep model.json beside the weights, or leave the films clean (noise=False)",
        )
    if flow:
        return RFlowScheduler(num_train_timesteps=card["timesteps"])
    betas = {name: card[name] for name in _BETAS if card.get(name) is not None}
    return DDPMScheduler(num_train_timesteps=card["timesteps"], schedule=card["schedule"], **betas)


class NoiseLevels:
    """Versions of a film to look at, each with the timestep that the network is told.

    Fixed noise is keyed by ``seed`` and the number of the pass alone: every film gets the same noise map, so a
    prediction can be repeated and does not depend on the other films of its batch. A timestep that is named twice is
    looked at under two noise maps.

    Args:
        timesteps: one pass each; 0 is (almost) clean.
        schedule: facts about the noise, see :func:`noise_scheduler`; None: the film stays clean and only the timestep
            is told.
        seed: of the fixed noise.

    Raises:
        ConfigurationError: if there is no timestep, or one that the schedule does not have.
        WeightsError: if the facts are not enough.
    """

    def __init__(
        self, timesteps: Sequence[int] = (0,), schedule: Mapping[str, Any] | None = None, seed: int = 0
    ) -> None:
        self.timesteps, self.seed = tuple(timesteps), seed
        self.scheduler = None if schedule is None else noise_scheduler(schedule)
        facts = ("objective", "timesteps", "schedule", *_BETAS)
        self.schedule = None if schedule is None else {k: schedule[k] for k in facts if schedule.get(k) is not None}
        end = float("inf") if self.scheduler is None else self.scheduler.num_train_timesteps
        if not self.timesteps or not all(int(t) == t and 0 <= t < end for t in self.timesteps):
            raise ConfigurationError(
                "no such timesteps",
                field="timesteps",
                value=self.timesteps,
                expected=f"one or more integers from 0 to {end - 1:g}",
            )

    @property
    def clean(self) -> bool:
        """Whether the film is seen once, without noise, and called clean."""
        return self.scheduler is None and self.timesteps == (0,)

    def __len__(self) -> int:
        return len(self.timesteps)

    def describe(self) -> dict[str, Any]:
        """What a cache or a card must know.

        Returns:
            JSON facts: ``timesteps`` of the passes, and ``schedule``, None for a clean film.
        """
        noise = None if self.schedule is None else {**self.schedule, "seed": self.seed}
        return {"timesteps": [int(t) for t in self.timesteps], "schedule": noise}

    def __call__(self, image: torch.Tensor, random: bool = False) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Go through the passes.

        Args:
            image: ``(B, C, H, W)``, intensities in [-1, 1].
            random: draw the noise anew from torch's own generator, as training does, instead of the fixed noise.

        Yields:
            The film of this pass ``(B, C, H, W)``, and its timesteps ``(B,)``.
        """
        for number, timestep in enumerate(self.timesteps):
            told = torch.full((image.shape[0],), int(timestep), device=image.device, dtype=torch.long)
            if self.scheduler is None:
                yield image, told
                continue
            noise = drawn_for(image, torch.randn_like) if random else self._fixed_noise(number, image)
            yield self.scheduler.add_noise(original_samples=image, noise=noise, timesteps=told), told

    def _fixed_noise(self, number: int, image: torch.Tensor) -> torch.Tensor:
        """Drawn by numpy: the same on every device, and a constant in a traced network."""
        drawn = np.random.default_rng([self.seed, number]).standard_normal(tuple(image.shape[1:]), dtype=np.float32)
        return torch.from_numpy(drawn).to(image).expand_as(image)


def logits_at(network: LandmarkUNet, image: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What a landmark U-Net makes of a film when it is told other timesteps than its own.

    Args:
        network: the network.
        image: ``(B, C, H, W)``.
        timesteps: ``(B,)``.

    Returns:
        ``(B, K, H, W)`` logits.
    """
    nothing = None if network.context_width is None else image.new_zeros(len(image), 1, network.context_width)
    logits: torch.Tensor = network.diffusion(image, timesteps, nothing)
    return logits


class NoisyLandmarkUNet(LandmarkUNet):
    """:class:`LandmarkUNet` that sees the film at the noise levels of its pre-training.

    The logits of several levels are averaged. The last layer is linear, so this is the same as averaging the features
    before it. Noise is drawn anew in training and fixed in evaluation.

    Args:
        landmarks: number of landmarks K.
        levels: the noise levels.
        **options: as for :class:`LandmarkUNet`.
    """

    def __init__(self, landmarks: int, levels: NoiseLevels, **options: Any) -> None:
        super().__init__(landmarks, **options)
        self.levels = levels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Heatmap logits of a film.

        Args:
            image: ``(B, C, H, W)``, intensities in [-1, 1].

        Returns:
            ``(B, K, H, W)`` logits.
        """
        passes = [logits_at(self, noisy, told) for noisy, told in self.levels(image, random=self.training)]
        return torch.stack(passes).mean(dim=0)
