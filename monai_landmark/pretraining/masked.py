"""SimMIM: patches of a film are hidden and its pixels there predicted (Xie et al., CVPR 2022).

lightly's masked auto-encoder drops the hidden patches from the sequence that a vision transformer reads. A
convolutional encoder, which is what reaches landmark networks, needs a whole film: SimMIM hides patches in place.

    seen = (1 - M) x + M token          M = 1 on the hidden patches, a share of them chosen at random per film
    y = shuffle(W f(seen) + b)          one 1 x 1 convolution, then depth to space, onto the grid of the film
    loss = |M (y - x)|_1 / |M|_1
"""

from __future__ import annotations

from os import PathLike
from typing import ClassVar

import torch
from lightly.models.utils import random_token_mask
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.pretraining.encoder_objective import EncoderObjective, in_full_precision
from monai_landmark.processes import drawn_for

__all__ = ["MaskedObjective", "masked_error"]


class MaskedObjective(EncoderObjective):
    """Masked image modeling with one linear layer as the decoder (sections 3.2 to 3.4 of the paper).

    The token is a learned gray per channel: a convolutional encoder reads pixels, not embedded patches.

    Args:
        encoder: name of a timm model that supports ``features_only``.
        in_channels: channels C of a film.
        initialization: ``random``; ``imagenet``; or a weights file.
        patch_size: side of a patch in pixels of the grid.
        mask_ratio: share of the patches that is hidden.

    Raises:
        ConfigurationError: if timm has no such model, or the share is not between 0 and 1.
        WeightsError: if the file does not fit the encoder.
    """

    name: ClassVar[str] = "masked"

    def __init__(
        self,
        encoder: str = "tf_efficientnet_lite0",
        in_channels: int = 1,
        initialization: str | PathLike[str] = "random",
        patch_size: int = 32,
        mask_ratio: float = 0.6,
    ) -> None:
        super().__init__(encoder, in_channels, initialization)
        if not 0 < mask_ratio < 1:
            raise ConfigurationError("not a share", field="mask_ratio", value=mask_ratio, expected="between 0 and 1")
        self.patch_size, self.mask_ratio = patch_size, mask_ratio
        self.token = nn.Parameter(torch.zeros(1, in_channels, 1, 1))
        self.decoder = nn.Sequential(
            nn.Conv2d(self.width, in_channels * self.reduction**2, kernel_size=1), nn.PixelShuffle(self.reduction)
        )
        self.hyperparameters = {"patch_size": patch_size, "mask_ratio": mask_ratio}

    def draw_mask(self, image: torch.Tensor) -> torch.Tensor:
        """Choose the patches to hide, the same number on every film.

        Args:
            image: ``(B, C, H, W)``.

        Returns:
            ``(B, 1, H, W)``: 1 on the hidden patches, 0 elsewhere.

        Raises:
            ConfigurationError: if the grid is no multiple of patch and encoder stride, or has too few patches.
        """
        films, _, height, width = image.shape
        if any(side % step for side in (height, width) for step in (self.patch_size, self.reduction)):
            expected = f"multiples of the patch size {self.patch_size} and of the encoder's stride {self.reduction}"
            raise ConfigurationError(
                "the grid does not divide into patches", field="spatial_size", value=(height, width), expected=expected
            )
        rows, columns = height // self.patch_size, width // self.patch_size
        kept, hidden = random_token_mask((films, rows * columns), self.mask_ratio, True, image.device)
        if not kept.shape[1]:
            raise ConfigurationError(
                "every patch would be hidden",
                field="patch_size",
                value=self.patch_size,
                action=f"take smaller patches: there are {rows * columns} on a film",
            )
        mask = image.new_zeros(films, rows * columns).scatter_(1, hidden, 1.0).view(films, 1, rows, columns)
        return mask.repeat_interleave(self.patch_size, dim=2).repeat_interleave(self.patch_size, dim=3)

    def predict(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Predict films from what the mask leaves of them.

        Args:
            image: ``(B, C, H, W)`` in [-1, 1].
            mask: ``(B, 1, H, W)``, 1 = hidden.

        Returns:
            ``(B, C, H, W)``, on hidden and visible pixels.
        """
        seen = torch.where(mask > 0, self.token.to(image.dtype), image)
        predicted: torch.Tensor = self.decoder(self.network(seen)[-1])
        return predicted

    def forward(self, image: torch.Tensor, source: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Hide patches of the films of a step and predict them.

        Args:
            image: ``(B, C, H, W)`` in [-1, 1].
            source: unused.

        Returns:
            ``loss``; ``masked_error``, the same number for the log, in gray values of a range of 2; and
            ``relative_error``, its ratio to the error of painting every hidden patch in the mean gray of what is
            seen of the film: at 1 nothing but the gray was learned.

        Raises:
            ConfigurationError: see :meth:`draw_mask`; or if the film has other channels than the encoder.
        """
        image = self.stacked_views(image)
        mask = drawn_for(image, self.draw_mask)
        loss = in_full_precision(masked_error, self.predict(image, mask), image, mask)
        visible = 1 - mask
        gray = (image * visible).sum(dim=(2, 3), keepdim=True) / visible.sum(dim=(2, 3), keepdim=True)
        of_gray = masked_error(gray, image, mask).clamp_min(1e-6)
        return {"loss": loss, "masked_error": loss.detach(), "relative_error": loss.detach() / of_gray}


def masked_error(predicted: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean absolute error on the hidden pixels alone: |M (y - x)|_1 / |M|_1.

    Args:
        predicted: y, ``(B, C, H, W)`` or what broadcasts to it.
        image: x, ``(B, C, H, W)``.
        mask: M, ``(B, 1, H, W)``, 1 = hidden; one pixel at least.

    Returns:
        A scalar.
    """
    return ((predicted - image).abs() * mask).sum() / (mask.sum() * image.shape[1])
