"""SimCLR: two views of a film are drawn together, views of different films apart (Chen et al., ICML 2020).

z = g(f(view)) / |g(f(view))|
l_ij = - log exp(z_i z_j / tau) / sum_{k != i} exp(z_i z_k / tau)    over the 2B positives (i, j)

f is the encoder with its deepest map pooled, g a projector that is thrown away.
"""

from __future__ import annotations

from os import PathLike
from typing import ClassVar

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.utils.debug import std_of_l2_normalized

from monai_landmark.pretraining.encoder_objective import (
    EncoderObjective,
    in_full_precision,
    pooled_features,
    require_negatives,
)

__all__ = ["SimCLRObjective"]


class SimCLRObjective(EncoderObjective):
    """NT-Xent over the 2B views of the films of a step (section 2.1 of the paper).

    Every other film of the step is a negative. Among 4 films a view has 6 negatives and the loss starts near log 7 and
    soon has nothing more to tell apart: a smaller temperature and stronger augmentation help, a larger batch helps
    more. With several processes the negatives come from all of them.
    lightly's memory bank is left out: it is no part of the saved state, so a run could not be resumed exactly.

    Args:
        encoder: name of a timm model that supports ``features_only``.
        in_channels: channels of one view of a film.
        initialization: ``random``; ``imagenet``; or a weights file.
        temperature: tau.
        projection: width of the projections z.
        hidden: width of the hidden layer of g.
        batch_norm: normalize over the batch in g. Statistics over a few films are noise, and hide a collapse of the
            projections, so it is off; the paper's large batches have it.

    Raises:
        ConfigurationError: if timm has no such model.
        WeightsError: if the file does not fit the encoder.
    """

    name: ClassVar[str] = "simclr"
    views: ClassVar[int] = 2

    def __init__(
        self,
        encoder: str = "tf_efficientnet_lite0",
        in_channels: int = 1,
        initialization: str | PathLike[str] = "random",
        temperature: float = 0.1,
        projection: int = 128,
        hidden: int = 512,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(encoder, in_channels, initialization)
        self.projector = SimCLRProjectionHead(self.width, hidden, projection, num_layers=2, batch_norm=batch_norm)
        # without a process group this gathers from the one process there is
        self.contrast = NTXentLoss(temperature, gather_distributed=torch.distributed.is_available())
        self.hyperparameters = {
            "temperature": temperature,
            "projection": projection,
            "hidden": hidden,
            "batch_norm": batch_norm,
        }

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Compare the films of a step.

        Args:
            image: ``(B, 2 * C, H, W)``, two views of each film in [-1, 1].
            source: unused.

        Returns:
            ``loss`` and ``projection_spread``: the standard deviation of the normalized projections, about
            1 / sqrt(projection) when they fill their sphere and 0 when they have collapsed to a point.

        Raises:
            ConfigurationError: if there is a single film, which has no negatives, or not two views of each.
        """
        require_negatives(image)
        projections = self.projector(pooled_features(self.network, self.stacked_views(image)))
        loss = in_full_precision(self.contrast, *projections.chunk(2))
        return {"loss": loss, "projection_spread": std_of_l2_normalized(projections.detach().float())}
