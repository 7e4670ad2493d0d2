"""The U-Net that the published code of few-shot DDPM pre-training builds, rebuilt from its description to be timed.

Di Via, Odone and Pastore, WACV 2025 (arXiv 2407.18125). Its base width is the edge of the image, 256, which comes to
558.5 M parameters.
Only `benchmarks/pretrain.py` uses it; the package's own network is :class:`monai_landmark.networks.DiffusionUNet`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

__all__ = ["ReferenceUNet"]

GROUPS, HEADS, HEAD_CHANNELS = 4, 4, 32


class StandardizedConv(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1 (weight standardization, Qiao et al., 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C, H, W)`` with the standardized filters."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return self._conv_forward(x, (self.weight - mean) * torch.rsqrt(variance + 1e-5), self.bias)


class ResidualBlock(nn.Module):
    """Two standardized convolutions; the time scales and shifts what the first one's normalization gives."""

    def __init__(self, channels_in: int, channels_out: int, time_channels: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * channels_out))
        self.first = StandardizedConv(channels_in, channels_out, 3, padding=1)
        self.first_norm = nn.GroupNorm(GROUPS, channels_out)
        self.second = StandardizedConv(channels_out, channels_out, 3, padding=1)
        self.second_norm = nn.GroupNorm(GROUPS, channels_out)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``(B, channels_in, H, W)`` and ``(B, time_channels)`` -> ``(B, channels_out, H, W)``."""
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        hidden = functional.silu(self.first_norm(self.first(x)) * (1 + scale) + shift)
        residual: Tensor = functional.silu(self.second_norm(self.second(hidden))) + self.skip(x)
        return residual


class Attention(nn.Module):
    """Attention between all pixels, with a normalization before it and a skip around it.

    Args:
        channels: of the features.
        linear: cost linear in the pixels (Shen et al., 2021) rather than quadratic.
    """

    def __init__(self, channels: int, linear: bool) -> None:
        super().__init__()
        width = HEADS * HEAD_CHANNELS
        self.linear = linear
        self.norm = nn.GroupNorm(1, channels)
        self.project_in = nn.Conv2d(channels, 3 * width, 1, bias=False)
        self.project_out = nn.Conv2d(width, channels, 1)
        self.out_norm = nn.GroupNorm(1, channels) if linear else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, H, W)``, the same shape back."""
        batch, _, rows, columns = x.shape
        projected = self.project_in(self.norm(x)).view(batch, 3, HEADS, HEAD_CHANNELS, rows * columns)
        query, key, value = projected.unbind(1)
        if self.linear:
            context = torch.einsum("bhdn,bhen->bhde", key.softmax(dim=-1), value / (rows * columns))
            mixed = torch.einsum("bhde,bhdn->bhen", context, query.softmax(dim=-2) * HEAD_CHANNELS**-0.5)
        else:
            weights = torch.einsum("bhdi,bhdj->bhij", query * HEAD_CHANNELS**-0.5, key).softmax(dim=-1)
            mixed = torch.einsum("bhij,bhdj->bhdi", weights, value)
        attended: Tensor = self.out_norm(self.project_out(mixed.reshape(batch, -1, rows, columns)))
        return x + attended


class Level(nn.Module):
    """One resolution: two residual blocks, linear attention, a change of resolution."""

    def __init__(self, blocks: list[ResidualBlock], channels: int, resample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = Attention(channels, linear=True)
        self.resample = resample


class ReferenceUNet(nn.Module):
    """The rebuilt network.

    Args:
        width: base width; the published models have 256.
        multipliers: of the width, one a level.
        gradient_checkpointing: keep only what goes into each block and compute it again in the backward pass.
    """

    def __init__(
        self, width: int = 256, multipliers: tuple[int, ...] = (1, 2, 4, 8), gradient_checkpointing: bool = True
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.width, time = width, 4 * width
        self.stem = nn.Conv2d(2, width, 1)  # the film, and the self-condition channel, which is always zeros
        self.time = nn.Sequential(nn.Linear(width, time), nn.GELU(), nn.Linear(time, time))
        widths = [width, *(width * m for m in multipliers)]
        pairs = list(itertools.pairwise(widths))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for index, (fine, coarse) in enumerate(pairs):
            last = index == len(pairs) - 1
            half = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * fine, coarse, 1))
            double = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1))
            down = nn.Conv2d(fine, coarse, 3, padding=1) if last else half
            up = nn.Conv2d(coarse, fine, 3, padding=1) if index == 0 else double
            self.down.append(Level([ResidualBlock(fine, fine, time) for _ in range(2)], fine, down))
            self.up.insert(0, Level([ResidualBlock(coarse + fine, coarse, time) for _ in range(2)], coarse, up))
        self.middle = nn.ModuleList(ResidualBlock(widths[-1], widths[-1], time) for _ in range(2))
        self.middle_attention = Attention(widths[-1], linear=False)
        self.last = ResidualBlock(2 * width, width, time)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Predicted noise.

        Args:
            x: ``(B, 1, H, W)``, H and W multiples of 8.
            timesteps: ``(B,)`` integers.

        Returns:
            ``(B, 1, H, W)``.
        """
        stem = x = self.stem(torch.cat([torch.zeros_like(x), x], dim=1))
        time = self.time(self._sinusoids(timesteps))
        skips: list[Tensor] = []
        for level in self.down:
            x = self._run(level.blocks[0], x, time)
            skips.append(x)
            x = self._run(level.attention, self._run(level.blocks[1], x, time))
            skips.append(x)
            x = level.resample(x)
        x = self._run(self.middle_attention, self._run(self.middle[0], x, time))
        x = self._run(self.middle[1], x, time)
        for level in self.up:
            for block in level.blocks:
                x = self._run(block, torch.cat([x, skips.pop()], dim=1), time)
            x = level.resample(self._run(level.attention, x))
        prediction: Tensor = self.head(self._run(self.last, torch.cat([x, stem], dim=1), time))
        return prediction

    def _run(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return block(*inputs)
        output: Tensor = checkpoint(block, *inputs, use_reentrant=False)
        return output

    def _sinusoids(self, timesteps: Tensor) -> Tensor:
        """``(B,)`` -> ``(B, width)``."""
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10_000) / (half - 1)))
        angles = timesteps[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)
