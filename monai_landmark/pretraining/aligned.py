"""Conditional diffusion with multi-scale guidance alignment (CDPM-align, Di Via et al., arXiv 2606.04898).

The difference that knowing the source makes to the features of a film should point the same way at any noise level:

    D_l(t) = h_l(x_t, source) - h_l(x_t, null)              features h at level l, noise drawn anew for each t
    z_l(t) = normalized MLP_l(mean over the map of D_l(t))
    alignment = mean over levels and films of 1 - cos(z_l(t1), z_l(t2)),    t1, t2 from [T/4, 3T/4]
    loss = diffusion + weight * alignment

The term can vanish without a word, so: it refuses a network that is told no source (D = 0); it starts late, when there
is a difference to align (from step 0 the projection collapses); t1 and t2 differ, and so does their noise; the
projection has no bias, so that no difference at all gives 1 and not 0; and the diffusion term keeps drawing from all
timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import DiffusionUNet, FeatureTaps
from monai_landmark.pretraining.ddpm import ConditionalObjective
from monai_landmark.pretraining.diffusion import NULL
from monai_landmark.processes import drawn_for, share_of_all

__all__ = ["AlignedObjective"]

LEVELS = ("encoder_4", "encoder_8", "bottleneck", "decoder_8")


class AlignedObjective(ConditionalObjective):
    """Conditional diffusion, then alignment for the last part of the training.

    Args:
        network: a :class:`monai_landmark.networks.DiffusionUNet` with ``num_class_embeds``.
        levels: whose features are aligned, see :class:`monai_landmark.networks.FeatureTaps`.
        alignment_weight: of the term in the loss.
        alignment_start: share of the training after which the term is added.
        projection: hidden and last width of the projections.
        **options: of :class:`ConditionalObjective`.

    Raises:
        ConfigurationError: if the network is told no source, or the term would be on from the first step or never.
    """

    network: DiffusionUNet

    def __init__(
        self,
        network: DiffusionUNet,
        levels: Sequence[str] = LEVELS,
        alignment_weight: float = 5.0,
        alignment_start: float = 0.9,
        projection: tuple[int, int] = (512, 256),
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        if not 0 < alignment_start < 1:
            raise ConfigurationError(
                "alignment needs a network that has learned the sources, and steps of its own",
                field="alignment_start",
                value=alignment_start,
                expected="more than 0 (where its projections collapse) and less than 1 (where it never starts)",
            )
        self.levels, self.alignment_weight, self.alignment_start = tuple(levels), alignment_weight, alignment_start
        hidden, last = projection
        self.projections = nn.ModuleDict(
            {
                level: nn.Sequential(
                    nn.Linear(channels, hidden, bias=False), nn.GELU(), nn.Linear(hidden, last, bias=False)
                )
                for level, channels in FeatureTaps.channels_of(network, self.levels).items()
            }
        )

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Diffusion over all timesteps, and alignment once its part of the training has come.

        Args:
            image: ``(B, C, H, W)`` clean films.
            source: ``(B,)``; films of unknown source (0) have nothing to align.

        Returns:
            ``loss``, ``diffusion``; while aligning also ``alignment`` in [0, 2], ``difference_norm`` (0: the source
            makes no difference) and ``projection_spread`` (0: all films project to one point).
        """
        diffusion = super().forward(image, source)["loss"]
        if self.progress < self.alignment_start:
            # every parameter takes part in every step, which distributed training asks for
            idle = sum((0.0 * weight.sum() for weight in self.projections.parameters()), torch.zeros_like(diffusion))
            return {"loss": diffusion + idle, "diffusion": diffusion.detach()}
        terms = self.alignment(image, self.checked(source, image))
        loss = diffusion + self.alignment_weight * terms["alignment"]
        return {"loss": loss, "diffusion": diffusion.detach(), **terms}

    def alignment(self, image: torch.Tensor, source: torch.Tensor) -> dict[str, torch.Tensor]:
        """The alignment term of a batch, with what shows whether it is alive.

        Args:
            image: ``(B, C, H, W)`` clean films.
            source: ``(B,)``.

        Returns:
            ``alignment``, ``difference_norm``, ``projection_spread``.

        Raises:
            ConfigurationError: if no film of the batch has a source.
        """
        known = source != NULL
        if not known.any():
            raise ConfigurationError(
                "no film of the batch has a source, so there is nothing to align",
                field="source",
                value=source.tolist(),
                action="give the films of the pool sources, or leave those without one out",
            )
        first, second = drawn_for(image, self.draw_pair)[known].unbind(1)
        noise = [drawn_for(image, torch.randn_like)[known] for _ in range(2)]
        image, source, share = image[known], source[known], share_of_all(known.sum())
        noisy = [self.noisy(image, *each) for each in zip(noise, (first, second), strict=True)]
        differences = self.differences(torch.cat(noisy), torch.cat([first, second]), source.repeat(2))
        losses, norms, spreads = [], [], []
        for level, difference in differences.items():
            projected = functional.normalize(self.projections[level](difference), dim=1)
            at_first, at_second = projected.chunk(2)
            losses.append((1 - (at_first * at_second).sum(dim=1)).sum() / share)
            norms.append(difference.detach().norm(dim=1).mean())
            spreads.append(projected.detach().std(dim=0, correction=0).square().sum().sqrt())
        return {
            "alignment": torch.stack(losses).mean(),
            "difference_norm": torch.stack(norms).mean(),
            "projection_spread": torch.stack(spreads).mean(),
        }

    def draw_pair(self, image: torch.Tensor) -> torch.Tensor:
        """Two different timesteps for each film, from the middle half of the schedule.

        Args:
            image: ``(B, C, H, W)``.

        Returns:
            ``(B, 2)``.
        """
        low, high = self.timesteps // 4, 3 * self.timesteps // 4
        first = torch.randint(low, high, image.shape[:1], device=image.device)
        apart = torch.randint(1, high - low, image.shape[:1], device=image.device)
        return torch.stack([first, low + (first - low + apart) % (high - low)], dim=1)

    def differences(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, source: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What knowing the source changes in the features, averaged over the map.

        Args:
            noisy: ``(B, C, H, W)``.
            timesteps: ``(B,)``.
            source: ``(B,)``.

        Returns:
            Level -> ``(B, channels)``.
        """
        both = torch.cat([source, torch.full_like(source, NULL)])
        with FeatureTaps(self.network, self.levels) as taps:
            self.predict(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), both)
        differences = {}
        for level, features in taps.features.items():
            exact = torch.promote_types(features.dtype, torch.float32)  # a small difference of large means
            informed, uninformed = features.to(exact).mean(dim=(2, 3)).chunk(2)
            differences[level] = informed - uninformed
        return differences

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``.

        Returns:
            Those of the conditional objective, and the alignment's.
        """
        return {
            **super().describe(),
            "objective": "aligned",
            "levels": list(self.levels),
            "alignment_weight": self.alignment_weight,
            "alignment_start": self.alignment_start,
        }
