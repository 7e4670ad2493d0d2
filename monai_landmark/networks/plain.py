"""MONAI's own segmentation networks under the interface of the others: what pre-training has to beat."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from monai.networks.nets import DynUNet, SegResNet
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks.weights import TransferReport

__all__ = ["PLAIN", "PlainNetwork"]

PLAIN: dict[str, tuple[Any, dict[str, Any]]] = {
    "monai-segresnet": (SegResNet, {"init_filters": 16}),
    "monai-dynunet": (
        DynUNet,
        {
            "kernel_size": (3, 3, 3, 3, 3),
            "strides": (1, 2, 2, 2, 2),
            "upsample_kernel_size": (2, 2, 2, 2),
            "filters": (16, 32, 64, 96, 128),
            "res_block": True,
        },
    ),
}
"""Name -> MONAI's class and its settings for 2-D images."""


class PlainNetwork(nn.Module):
    """A network of :data:`PLAIN`, from random weights.

    Args:
        landmarks: number of maps K.
        architecture: one of :data:`PLAIN`.
        in_channels: channels of the film.
        pretrained: must be false.
        weights_file: must be None.
        dropout: must be 0.

    Raises:
        ConfigurationError: if there is no such network, or it is to start from weights or to drop maps.
    """

    transfer_report: TransferReport | None = None

    def __init__(
        self,
        landmarks: int,
        architecture: str,
        in_channels: int = 1,
        pretrained: bool = False,
        weights_file: str | PathLike[str] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if architecture not in PLAIN:
            raise ConfigurationError(
                "no such network", field="architecture", value=architecture, expected=" | ".join(PLAIN)
            )
        if pretrained or weights_file is not None or dropout:
            raise ConfigurationError(
                "this network starts from random weights and drops nothing",
                field="initialization, dropout",
                value=(weights_file or pretrained, dropout),
                expected="random, 0",
            )
        kind, settings = PLAIN[architecture]
        self.architecture = architecture
        self.network = kind(spatial_dims=2, in_channels=in_channels, out_channels=landmarks, **settings)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of a film.

        Args:
            image: ``(B, C, H, W)``, intensities in [-1, 1]; H and W multiples of 16.

        Returns:
            ``(B, K, H, W)`` logits.
        """
        logits: torch.Tensor = self.network(image)
        return logits
