"""Between films and latents: MONAI's ``AutoencoderKL``, read from a folder, and the scale of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import AutoencoderKL

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import model_card
from monai_landmark.networks.freezing import FrozenModule
from monai_landmark.networks.initialization import TrainedWeights

__all__ = ["LatentCodec", "film_autoencoder", "film_codec", "stated_card", "trained_autoencoder"]

_SCALED_ON = 64  # films that tell the scale of latents
_BATCH = 8


def film_autoencoder(
    downsampling: int = 4, latent_channels: int = 4, width: int = 32, blocks: int = 1
) -> AutoencoderKL:
    """MONAI's ``AutoencoderKL`` for films, without attention: any film whose sides divide fits.

    Args:
        downsampling: side of a film over that of its latent: 2, 4, 8 or 16.
        latent_channels: channels C of the latent.
        width: channels at full size, doubled at every step down until four times as many; a multiple of 8.
        blocks: residual blocks a level.

    Returns:
        The network, with its ``settings``.

    Raises:
        ConfigurationError: if a number does not fit.
    """
    levels = downsampling.bit_length()
    if downsampling != 2 ** (levels - 1) or not 2 <= downsampling <= 16:
        raise ConfigurationError("no such latent", field="downsampling", value=downsampling, expected="2 | 4 | 8 | 16")
    if width % 8 or width < 8:
        raise ConfigurationError("no such width", field="width", value=width, expected="a multiple of 8")
    network = AutoencoderKL(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=tuple(width * min(4, 2**level) for level in range(levels)),
        num_res_blocks=(blocks,) * levels,
        attention_levels=(False,) * levels,
        latent_channels=latent_channels,
        norm_num_groups=8,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )
    network.settings = {
        "downsampling": downsampling,
        "latent_channels": latent_channels,
        "width": width,
        "blocks": blocks,
    }
    return network


def stated_card(folder: str | PathLike[str], fact: str) -> dict[str, Any]:
    """What ``model.json`` of a trained network says.

    Args:
        folder: that a training wrote.
        fact: that it must state.

    Returns:
        Its content.

    Raises:
        WeightsError: if nothing was trained there, or it lacks the fact.
    """
    card = model_card(folder, required=fact)
    if not card:
        raise WeightsError("nothing was trained here", file=Path(folder) / "model.json", action="check the folder")
    return card


def trained_autoencoder(folder: str | PathLike[str]) -> AutoencoderKL:
    """The autoencoder that ``autoencode`` wrote.

    Args:
        folder: with ``model.safetensors`` and ``model.json``.

    Returns:
        The network, frozen.

    Raises:
        WeightsError: if a file is absent, damaged, or does not belong to the other.
    """
    card = stated_card(folder, "autoencoder")
    network = film_autoencoder(**card["autoencoder"])
    TrainedWeights(network, Path(folder) / "model.safetensors")()
    return network.requires_grad_(False).eval()


class LatentCodec(FrozenModule):
    """Films to latents of zero mean and unit deviation in every channel, and back.

    Diffusion starts from noise of unit deviation, so latents must be as large; their scale is found from data (Rombach
    et al., CVPR 2022, appendix G, with one scale a channel in place of one for all).

    Args:
        autoencoder: frozen.
        mean: of each channel; zeros by default.
        std: likewise; ones by default.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, autoencoder: AutoencoderKL, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.channels = int(autoencoder.latent_channels)
        shape = (1, self.channels, 1, 1)
        self.register_buffer("mean", torch.tensor([0.0] * self.channels if mean is None else list(mean)).view(shape))
        self.register_buffer("std", torch.tensor([1.0] * self.channels if std is None else list(std)).view(shape))

    @torch.no_grad()
    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """The mean of the latent's distribution: sampling it would only add a noise that the diffusion adds anyway.

        Args:
            image: ``(B, 1, H, W)`` in [-1, 1].

        Returns:
            ``(B, C, h, w)``.
        """
        mean, _ = self.autoencoder.encode(image)
        scaled: torch.Tensor = (mean.float() - self.mean) / self.std
        return scaled

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Films of latents.

        Args:
            latent: ``(B, C, h, w)``.

        Returns:
            ``(B, 1, H, W)``.
        """
        image: torch.Tensor = self.autoencoder.decode(latent * self.std + self.mean)
        return image.float()

    @torch.no_grad()
    def fit(self, films: Sequence[Any]) -> LatentCodec:
        """Find mean and deviation of the latents.

        Args:
            films: items with ``image`` ``(1, H, W)`` in [-1, 1]; of many, 64 spread over all of them.

        Returns:
            Itself.
        """
        self.mean.zero_(), self.std.fill_(1.0)
        step = max(1, len(films) // _SCALED_ON)
        chosen = [torch.as_tensor(films[index]["image"]).float() for index in range(0, len(films), step)]
        stacked = torch.cat(
            [self.encode(torch.stack(chosen[at : at + _BATCH])) for at in range(0, len(chosen), _BATCH)]
        )
        self.mean.copy_(stacked.mean(dim=(0, 2, 3), keepdim=True))
        self.std.copy_(stacked.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6))
        return self

    def describe(self) -> dict[str, Any]:
        """Facts for ``model.json``.

        Returns:
            ``latents``: mean and deviation of the channels.
        """
        return {"latents": {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}}


def film_codec(folder: str | PathLike[str] | None, films: Sequence[Any]) -> LatentCodec | None:
    """The codec of a diffusion model, its scale found from the films that it will be trained on.

    Args:
        folder: that ``autoencode`` wrote; None for a diffusion of pixels.
        films: see :meth:`LatentCodec.fit`.

    Returns:
        The codec, or None.
    """
    return None if folder is None else LatentCodec(trained_autoencoder(folder)).fit(films)
