"""MONAI's diffusion U-Net on patches of the film: the network that diffusion pre-training leaves behind.

It works on ``patch_size`` x ``patch_size`` pixel patches folded into channels (simple diffusion, Hoogeboom et al.,
ICML 2023): the full grid at a quarter of the cost, and for independent noise the same diffusion.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from monai_landmark.errors import ConfigurationError

__all__ = ["SIZES", "DiffusionUNet"]

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"channels": (24, 48, 96, 128), "num_res_blocks": 1, "norm_num_groups": 8},
    "small": {"channels": (64, 96, 128, 192), "num_res_blocks": 2, "norm_num_groups": 16},
    "base": {"channels": (96, 192, 256, 384), "num_res_blocks": 2, "norm_num_groups": 32},
}


class DiffusionUNet(nn.Module):
    """:class:`monai.networks.nets.DiffusionModelUNet` on patches of the image.

    Args:
        in_channels: channels of the film.
        out_channels: channels predicted.
        size: ``"tiny"`` (about 3 M parameters), ``"small"`` (about 12 M) or ``"base"`` (about 45 M).
        patch_size: edge of the patches folded into channels; 1 for none, as old checkpoints need.
        gradient_checkpointing: recompute each block in the backward pass: less memory for about a third more time.
        **options: override any argument of DiffusionModelUNet, e.g. ``channels``, ``include_fc`` or
            ``num_class_embeds``, which makes it conditional on a class.

    Raises:
        ConfigurationError: if ``size`` is unknown.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        size: str = "tiny",
        patch_size: int = 2,
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ConfigurationError("unknown network size", field="size", value=size, expected=" | ".join(SIZES))
        settings = {**SIZES[size], **options}
        levels = len(settings["channels"])
        settings.setdefault("attention_levels", (False,) * (levels - 1) + (True,))
        settings.setdefault("num_head_channels", min(32, settings["channels"][-1]))
        settings.setdefault("use_flash_attention", True)  # never holds the attention matrix
        self.architecture = f"diffusion-{size}"
        self.patch_size = patch_size
        self.divisor = patch_size * 2 ** (levels - 1)
        self.unet = DiffusionModelUNet(2, in_channels * patch_size**2, out_channels * patch_size**2, **settings)
        if gradient_checkpointing:
            for block in (*self.unet.down_blocks, self.unet.middle_block, *self.unet.up_blocks):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Prediction for a noisy film.

        Args:
            x: ``(B, C, H, W)``; H and W must be multiples of ``divisor``.
            timesteps: ``(B,)``, 0 for a clean film.
            context: conditioning tokens ``(B, N, D)``, when the network was made for them.
            class_labels: ``(B,)`` integers, when the network was made with ``num_class_embeds``.

        Returns:
            ``(B, out_channels, H, W)``.

        Raises:
            ConfigurationError: if the grid does not divide.
        """
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not tracing and (x.shape[-2] % self.divisor or x.shape[-1] % self.divisor):
            raise ConfigurationError(
                "grid does not fit the network",
                field="spatial_size",
                value=tuple(x.shape[-2:]),
                expected=f"multiples of {self.divisor}",
            )
        folded = functional.pixel_unshuffle(x, self.patch_size)
        return functional.pixel_shuffle(self.unet(folded, timesteps, context, class_labels), self.patch_size)
