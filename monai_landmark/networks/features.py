"""Feature maps from inside the diffusion U-Net, by side and resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks.diffusion_unet import DiffusionUNet

__all__ = ["FeatureTaps"]


class FeatureTaps:
    """Context in which a network leaves its feature maps behind.

    Levels are named by side and by how many times smaller than the film they are: ``encoder_4``, ``encoder_8``,
    ``bottleneck``, ``decoder_8`` ... An encoder level is tapped before it is downsampled, a decoder level before it is
    upsampled.

    Args:
        network: the network that will run.
        levels: which feature maps are kept.

    Attributes:
        features: level -> ``(B, C, h, w)`` of the last run.

    Raises:
        ConfigurationError: if the network has no such level.
    """

    def __init__(self, network: DiffusionUNet, levels: Sequence[str]) -> None:
        modules = _modules(network)
        _refuse_unknown(levels, modules)
        self.features: dict[str, torch.Tensor] = {}
        self._modules = {level: modules[level] for level in levels}
        self._hooks: list[RemovableHandle] = []

    @staticmethod
    def levels_of(network: DiffusionUNet) -> tuple[str, ...]:
        """All levels of a network, from the film down to the bottleneck and up again.

        Args:
            network: the network.

        Returns:
            Their names.
        """
        return tuple(_modules(network))

    @staticmethod
    def channels_of(network: DiffusionUNet, levels: Sequence[str]) -> dict[str, int]:
        """Widths of feature maps.

        Args:
            network: the network.
            levels: which feature maps.

        Returns:
            Level -> channels.

        Raises:
            ConfigurationError: if the network has no such level.
        """
        widths = list(network.unet.block_out_channels)
        all_levels = dict(zip(_modules(network), [*widths, widths[-1], *widths[::-1]], strict=True))
        _refuse_unknown(levels, all_levels)
        return {level: all_levels[level] for level in levels}

    def __enter__(self) -> FeatureTaps:
        self._hooks = [
            module.register_forward_hook(partial(self._keep, level)) for level, module in self._modules.items()
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, level: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.features[level] = output


def _refuse_unknown(levels: Sequence[str], known: Mapping[str, object]) -> None:
    if unknown := [level for level in levels if level not in known]:
        raise ConfigurationError(
            "the network has no such level", field="levels", value=unknown, expected=" | ".join(known)
        )


def _modules(network: DiffusionUNet) -> dict[str, nn.Module]:
    """Level -> the last layer at its resolution."""
    down, up = list(network.unet.down_blocks), list(network.unet.up_blocks)
    smaller = [network.patch_size * 2**depth for depth in range(len(down))]
    encoder = {f"encoder_{by}": _last(block) for by, block in zip(smaller, down, strict=True)}
    decoder = {f"decoder_{by}": _last(block) for by, block in zip(smaller[::-1], up, strict=True)}
    return {**encoder, "bottleneck": network.unet.middle_block, **decoder}


def _last(block: nn.Module) -> nn.Module:
    """The last attention of a block, or its last residual layer where it has none."""
    attentions = getattr(block, "attentions", None)
    layers = attentions if attentions is not None and len(attentions) else block.resnets
    last: nn.Module = list(layers)[-1]  # type: ignore[arg-type]
    return last
