"""A U-Net whose encoder is any timm backbone: the way in for ImageNet weights and for contrastive pre-training.

The decoder is that of Ronneberger et al. (MICCAI 2015) with one upsampling convolution block per encoder level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from os import PathLike

import timm
import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional

from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks.freezing import FreezableEncoder
from monai_landmark.networks.weights import (
    TransferReport,
    load_encoder_weights,
    read_state_dict,
    transfer_weights,
)
from monai_landmark.processes import drawn_for

__all__ = ["EncoderLandmarkUNet"]


class _DecoderLevel(nn.Module):
    """Enlarge the deeper features to the skip's grid, join them and mix them by two 3 x 3 convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, convolutions: int = 2) -> None:
        super().__init__()
        widths = [in_channels + skip_channels] + [out_channels] * convolutions
        self.mix = nn.Sequential(
            *(
                Convolution(2, wide_in, wide_out, kernel_size=3, act="RELU", norm="BATCH", bias=False)
                for wide_in, wide_out in pairwise(widths)
            )
        )

    def forward(self, deep: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Go one level up.

        Args:
            deep: ``(B, in_channels, h, w)`` features of the level below.
            skip: ``(B, skip_channels, H, W)`` encoder features of this level.

        Returns:
            ``(B, out_channels, H, W)``.
        """
        enlarged = functional.interpolate(deep, size=skip.shape[-2:], mode="nearest")
        mixed: torch.Tensor = self.mix(torch.cat([enlarged, skip], dim=1))
        return mixed


class _FilmDropout(nn.Dropout2d):
    """Dropout of whole maps; in distributed training every film loses those that it would in a single process."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Drop maps in training.

        Args:
            input: ``(B, C, H, W)``.

        Returns:
            Of the same shape.
        """
        if not self.training or self.p == 0:
            return input
        ones = input.new_ones(*input.shape[:2], 1, 1)
        return input * drawn_for(ones, super().forward)


class EncoderLandmarkUNet(FreezableEncoder):
    """Landmark heatmap logits from a timm encoder and a light U-Net decoder.

    Args:
        landmarks: number of landmarks K.
        encoder: name of a timm model that supports ``features_only``.
        in_channels: channels of the film; ImageNet weights are summed over color for a single one.
        pretrained: load timm's own ImageNet weights (from its cache or hub).
        weights_file: load the encoder from a local ``.safetensors``, ``.pt`` or ``.pth`` file instead; names of timm
            and of the efficientnet_lite_pytorch layout are understood. It goes before ``pretrained``. A file of a
            whole network of this kind fills the decoder too: denoising pre-training writes it, and so does `train`,
            whose result can go on learning on a finer grid.
        decoder_channels: widths of the decoder, the full grid last; of an encoder with fewer levels the last ones.
        dropout: share of the last feature maps that is dropped in training (whole maps, Tompson et al., CVPR 2015).

    Raises:
        ConfigurationError: if the encoder has more levels than there are decoder channels, or the share is none.
        WeightsError: if ``weights_file`` moves nothing into the encoder.
    """

    transfer_report: TransferReport | None = None

    def __init__(
        self,
        landmarks: int,
        encoder: str = "tf_efficientnet_lite0",
        in_channels: int = 1,
        pretrained: bool = False,
        weights_file: str | PathLike[str] | None = None,
        decoder_channels: Sequence[int] = (128, 96, 64, 32, 24),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigurationError("not a share", field="dropout", value=dropout, expected="at least 0, below 1")
        self.architecture = encoder
        load_timm = pretrained and weights_file is None
        self.encoder = timm.create_model(encoder, features_only=True, in_chans=in_channels, pretrained=load_timm)
        widths = self.encoder.feature_info.channels()
        skips = [*widths[-2::-1], in_channels]
        self.decoder = nn.ModuleList()
        deep = widths[-1]
        if len(decoder_channels) < len(skips):
            raise ConfigurationError(
                "too few decoder levels", field="decoder_channels", value=decoder_channels, expected=f"{len(skips)}"
            )
        for skip, out in zip(skips, decoder_channels[-len(skips) :], strict=True):
            full_grid = len(self.decoder) == len(skips) - 1
            self.decoder.append(_DecoderLevel(deep, skip, out, convolutions=1 if full_grid else 2))
            deep = out
        self.dropout = _FilmDropout(dropout)
        self.head = nn.Conv2d(deep, landmarks, kernel_size=1)
        nn.init.normal_(self.head.weight, std=0.01)
        if weights_file is not None:
            self.transfer_report = self._load(weights_file)

    def _load(self, file: str | PathLike[str]) -> TransferReport:
        """Fill encoder and decoder, or the encoder alone where the file holds no more.

        The head is taken over from a landmark network for as many landmarks. That of denoising pre-training, which
        predicted a single channel, starts anew.
        """
        weights = read_state_dict(file)
        if not any(name.startswith("decoder.") for name in weights):
            return load_encoder_weights(self.encoder, file)
        head = weights.get("head.weight")
        if head is None or head.shape != self.head.weight.shape or len(head) == 1:
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
        report = transfer_weights(self, weights, str(file))
        missing = [name for name in report.reinitialized if not name.startswith("head.")]
        if missing or report.ignored:
            raise WeightsError(
                "weights of another encoder or decoder",
                file=file,
                value=[*missing, *report.ignored][:4],
                expected="every tensor but the head to fit",
                action="name the encoder that the file was trained with",
            )
        return report

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Heatmap logits of a film.

        Args:
            image: ``(B, C, H, W)``, intensities in [-1, 1].

        Returns:
            ``(B, K, H, W)`` logits, one map per landmark on the grid of the film.
        """
        *_, deep = self.maps(image)
        logits: torch.Tensor = self.head(self.dropout(deep))
        return logits

    def encoder_parts(self) -> Iterator[nn.Module]:
        """See :class:`FreezableEncoder`."""
        yield self.encoder

    def maps(self, image: torch.Tensor) -> Iterator[torch.Tensor]:
        """Features of every level: the encoder's, from the film down, then the decoder's, each made when asked for.

        Args:
            image: as of :meth:`forward`.

        Yields:
            ``(B, width of the level, h, w)``; the last on the grid of the film.
        """
        # A film of one channel passes for both memory formats; left as it is, joining it would lay all maps out anew.
        image = image.to(memory_format=torch.channels_last)
        features = self.encoder(image)
        yield from features
        deep = features[-1]
        for level, skip in zip(self.decoder, [*features[-2::-1], image], strict=True):
            deep = level(deep, skip)
            yield deep
