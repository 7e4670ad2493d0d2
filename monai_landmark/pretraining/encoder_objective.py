"""What the objectives on a timm encoder share: the encoder, its pooled features, the momentum of teachers."""

from __future__ import annotations

import math
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from lightly.utils import dist
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks.weights import TransferReport, load_encoder_weights
from monai_landmark.pretraining.objective import Objective

__all__ = ["EncoderObjective", "in_full_precision", "momentum_at", "pooled_features", "require_negatives"]


class EncoderObjective(Objective):
    """An objective that trains a timm encoder, kept in the layout that :class:`EncoderLandmarkUNet` loads.

    Args:
        encoder: name of a timm model that supports ``features_only``.
        in_channels: channels C of one view of a film.
        initialization: ``random``; ``imagenet`` (timm's own weights); or a weights file.

    Raises:
        ConfigurationError: if timm has no such model.
        WeightsError: if the file does not fit the encoder.
    """

    name: ClassVar[str]
    transfer_report: TransferReport | None = None

    def __init__(
        self,
        encoder: str = "tf_efficientnet_lite0",
        in_channels: int = 1,
        initialization: str | PathLike[str] = "random",
    ) -> None:
        if not timm.is_model(encoder):
            raise ConfigurationError("unknown encoder", field="encoder", value=encoder, expected="a timm model")
        random, imagenet = str(initialization) == "random", str(initialization) == "imagenet"
        super().__init__(timm.create_model(encoder, features_only=True, in_chans=in_channels, pretrained=imagenet))
        if not random and not imagenet:
            self.transfer_report = load_encoder_weights(self.network, initialization)
        self.encoder, self.in_channels, self.initialization = encoder, in_channels, str(initialization)
        info: Any = self.network.feature_info
        self.width: int = info.channels()[-1]
        self.reduction: int = info.reduction()[-1]
        self.hyperparameters: dict[str, Any] = {}  # what the objective adds to the card

    def stacked_views(self, image: torch.Tensor) -> torch.Tensor:
        """Views from the channels into the batch: one pass of the encoder, one set of batch statistics for all.

        Args:
            image: ``(B, views * C, H, W)``.

        Returns:
            ``(views * B, C, H, W)``, the first views of all films, then the second ones.

        Raises:
            ConfigurationError: if the channels are not those of so many views.
        """
        if image.shape[1] != self.views * self.in_channels:
            raise ConfigurationError(
                "the films do not have as many views as the objective compares",
                field="image channels",
                value=int(image.shape[1]),
                expected=f"{self.views} views of {self.in_channels}",
                action="make the views with RandViewsd",
            )
        return torch.cat(image.chunk(self.views, dim=1))

    def describe(self) -> dict[str, Any]:
        """Facts for the model card.

        Returns:
            Objective, its hyper-parameters, the encoder and where it started (of a file the name without its folder).
        """
        start = self.initialization
        return {
            **super().describe(),
            "objective": self.name,
            "architecture": self.encoder,
            "in_channels": self.in_channels,
            "initialization": start if start in ("random", "imagenet") else Path(start).name,
            **self.hyperparameters,
        }


def pooled_features(encoder: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Mean over the encoder's deepest map.

    Args:
        encoder: a timm model made with ``features_only``.
        image: ``(B, C, H, W)``.

    Returns:
        ``(B, width)``.
    """
    deepest: torch.Tensor = encoder(image)[-1]
    return deepest.mean(dim=(-2, -1))


def require_negatives(image: torch.Tensor) -> None:
    """Refuse a step whose contrastive loss would be zero whatever the encoder does.

    Args:
        image: ``(B, ...)`` films of this process.

    Raises:
        ConfigurationError: if there is one film in all.
    """
    if len(image) * dist.world_size() < 2:
        raise ConfigurationError(
            "a single film has no negatives",
            field="batch_size",
            value=len(image),
            expected="2 films per step or more",
            action="raise the batch size, and leave out a last batch that is smaller",
        )


def momentum_at(progress: float, start: float) -> float:
    """Share of its own weights that a teacher keeps at a step: from the start value along a half cosine to 1.

    m = 1 - (1 - m_0) (1 + cos(pi p)) / 2, as in BYOL (Grill et al., NeurIPS 2020, section 3.2), MoCo v3 and DINO.

    Args:
        progress: share p of the training done, 0 to 1.
        start: m_0.

    Returns:
        m.
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2


def in_full_precision(loss: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """Call a loss outside autocast: similarities over a small temperature have no digits to spare.

    Args:
        loss: takes the tensors.
        *tensors: half precision becomes float32, anything longer stays.

    Returns:
        What the loss returns.
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        return loss(*(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors))
