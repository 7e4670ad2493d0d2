"""A light landmark head on frozen features: what pre-training alone has learned, before any fine-tuning.

Features of several blocks and timesteps: Baranchuk et al., Label-efficient semantic segmentation with diffusion models,
ICLR 2022; there a vote of per-pixel perceptrons, here one small convolutional head, the same for every pre-training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks.encoder_unet import EncoderLandmarkUNet
from monai_landmark.networks.features import FeatureTaps
from monai_landmark.networks.freezing import FrozenModule
from monai_landmark.networks.landmark_unet import LandmarkUNet
from monai_landmark.networks.noise_levels import NoiseLevels, logits_at
from monai_landmark.networks.plain import PlainNetwork
from monai_landmark.networks.weights import TransferReport

__all__ = [
    "HEADS",
    "HEAD_WIDTH",
    "Combine",
    "FeatureHead",
    "FeatureProbe",
    "FrozenFeatures",
    "LinearHead",
    "default_levels",
    "frozen_features",
    "levels_of",
]

Combine = Literal["concat", "mean"]
Features = dict[str, torch.Tensor]

HEAD_WIDTH = 32
_BLANK = 64  # edge in pixels of the blank film by which a network tells the sizes of its levels
_AFTER = ("diffusion.unet.out.", "head.")  # layers after every level, new after a transfer


class FrozenFeatures(FrozenModule):
    """Feature maps of a network that is never trained: no gradient, always in evaluation mode.

    Args:
        network: a landmark network, of which all but the last layer is used.
        levels: which levels, see :class:`FeatureTaps`; :func:`default_levels` by default.
        noise: the noise levels at which a diffusion U-Net sees the film; by default the clean film alone.
        combine: what becomes of the features of several noise levels: ``"concat"`` or ``"mean"`` for each level.

    Attributes:
        levels: names of the levels.
        channels: level -> number of channels, all noise levels together.
        reduction: how many times smaller than the film the finest level is.

    Raises:
        ConfigurationError: if there is no such level, or an encoder is to see noise.
    """

    def __init__(
        self,
        network: LandmarkUNet | EncoderLandmarkUNet,
        levels: Sequence[str] | None = None,
        noise: NoiseLevels | None = None,
        combine: Combine = "concat",
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.noise, self.combine = noise or NoiseLevels(), combine
        self.levels = default_levels(network) if levels is None else tuple(levels)
        self._refuse_impossible()
        found = self(next(network.parameters()).new_zeros(1, _in_channels(network), _BLANK, _BLANK))
        self.channels = {level: maps.shape[1] for level, maps in found.items()}
        self.reduction = _BLANK // max(maps.shape[-1] for maps in found.values())

    def _refuse_impossible(self) -> None:
        known = levels_of(self.network)
        if unknown := [level for level in self.levels if level not in known]:
            raise ConfigurationError(
                "the network has no such level", field="levels", value=unknown, expected=" | ".join(known)
            )
        if self.combine not in get_args(Combine):
            expected = " | ".join(get_args(Combine))
            raise ConfigurationError("unknown combination", field="combine", value=self.combine, expected=expected)
        if not self.noise.clean and not isinstance(self.network, LandmarkUNet):
            raise ConfigurationError(
                "only a diffusion network knows timesteps and noise",
                field="timesteps, noise",
                value=self.noise.timesteps,
                expected="timesteps=(0,) and noise=False for a timm encoder",
            )

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> Features:
        """Features of a film.

        Args:
            image: ``(B, C, H, W)``, intensities in [-1, 1].

        Returns:
            Level -> ``(B, C, h, w)``.
        """
        if isinstance(self.network, EncoderLandmarkUNet):
            every = _encoder_features(self.network, image, self.levels)
            return {level: every[level] for level in self.levels}
        passes: list[Features] = []
        with FeatureTaps(self.network.diffusion, self.levels) as taps:
            for noisy, told in self.noise(image):
                logits_at(self.network, noisy, told)
                passes.append(dict(taps.features))
        by_level = {level: [features[level] for features in passes] for level in self.levels}
        if self.combine == "mean":
            return {level: torch.stack(maps).mean(dim=0) for level, maps in by_level.items()}
        return {level: torch.cat(maps, dim=1) for level, maps in by_level.items()}

    def identity(self) -> dict[str, Any]:
        """What the features depend on besides the film: the key under which they may be kept.

        Returns:
            JSON facts: ``weights`` (SHA-256 over names and values), levels, combination, timesteps and schedule.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            if not name.startswith(_AFTER):
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return {
            "weights": digest.hexdigest(),
            "levels": list(self.levels),
            "combine": self.combine,
            **self.noise.describe(),
        }


class FeatureHead(nn.Module):
    """Heatmap logits from features of several levels; the only part of a probe that learns.

    Each level is normalized and narrowed by a 1 x 1 convolution; the levels are added up from coarse to fine, each sum
    enlarged to the next grid; one 3 x 3 convolution on the finest grid makes K maps of them.

    Args:
        channels: level -> number of channels.
        landmarks: number of landmarks K.
        reduction: how many times smaller than the film the finest level is.
        width: channels of the head.
    """

    def __init__(self, channels: Mapping[str, int], landmarks: int, reduction: int, width: int = HEAD_WIDTH) -> None:
        super().__init__()
        self.reduction, self.width = reduction, width
        self.narrow = nn.ModuleDict(
            {
                level: nn.Sequential(nn.BatchNorm2d(count, affine=False), nn.Conv2d(count, width, kernel_size=1))
                for level, count in channels.items()
            }
        )
        self.mix = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.GELU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.GroupNorm(8, width),
            nn.GELU(),
            nn.Conv2d(width, landmarks, kernel_size=1),
        )

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits on the grid of the film.

        Args:
            features: level -> ``(B, C, h, w)`` of any floating type.

        Returns:
            ``(B, K, H, W)`` logits.
        """
        dtype = next(self.parameters()).dtype
        narrowed = [narrow(features[level].to(dtype)) for level, narrow in self.narrow.items()]
        joined, *finer = sorted(narrowed, key=lambda maps: maps.shape[-1])
        for maps in finer:
            joined = _enlarged(joined, maps.shape[-2:]) + maps
        return _enlarged(self.mix(joined), [n * self.reduction for n in joined.shape[-2:]])


class LinearHead(nn.Module):
    """Logits from features of several levels by one linear classifier of every pixel.

    It is a 1 x 1 convolution on the normalized features of all levels, enlarged to the film and joined. Enlarging is
    linear too, so each level is classified on its own grid and the logits are enlarged and added up: the same numbers,
    without the joined maps.

    Args:
        channels: level -> number of channels.
        landmarks: number of maps K.
        reduction: how many times smaller than the film the finest level is.
    """

    width = 0

    def __init__(self, channels: Mapping[str, int], landmarks: int, reduction: int) -> None:
        super().__init__()
        self.reduction = reduction
        self.classify = nn.ModuleDict(
            {
                level: nn.Sequential(nn.BatchNorm2d(count, affine=False), nn.Conv2d(count, landmarks, kernel_size=1))
                for level, count in channels.items()
            }
        )

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits on the grid of the film.

        Args:
            features: level -> ``(B, C, h, w)`` of any floating type.

        Returns:
            ``(B, K, H, W)`` logits.
        """
        dtype = next(self.parameters()).dtype
        by_level = [classify(features[level].to(dtype)) for level, classify in self.classify.items()]
        finest = max((logits.shape[-2:] for logits in by_level), key=lambda size: size[-1])
        return torch.stack([_enlarged(logits, [n * self.reduction for n in finest]) for logits in by_level]).sum(dim=0)


HEADS = ("convolutional", "linear")
"""Heads of a probe: :class:`FeatureHead` and :class:`LinearHead`."""


class FeatureProbe(nn.Module):
    """A landmark network whose features are frozen and whose light head is trained.

    Args:
        features: the frozen features.
        landmarks: number of landmarks K.
        width: channels of the head; a linear one has none.
        transfer_report: how the frozen network was filled.
        head: one of :data:`HEADS`.

    Raises:
        ConfigurationError: if there is no such head.
    """

    def __init__(
        self,
        features: FrozenFeatures,
        landmarks: int,
        width: int = HEAD_WIDTH,
        transfer_report: TransferReport | None = None,
        head: str = "convolutional",
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ConfigurationError("no such head", field="probe, head", value=head, expected=" | ".join(HEADS))
        self.features, self.transfer_report = features, transfer_report
        self.head: FeatureHead | LinearHead
        if head == "linear":
            self.head = LinearHead(features.channels, landmarks, features.reduction)
        else:
            self.head = FeatureHead(features.channels, landmarks, features.reduction, width)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Heatmap logits of a film.

        Args:
            image: ``(B, C, H, W)``, intensities in [-1, 1]; H and W as the frozen network takes them.

        Returns:
            ``(B, K, H, W)`` logits.
        """
        logits: torch.Tensor = self.head(self.features(image))
        return logits


def frozen_features(network: LandmarkUNet | EncoderLandmarkUNet | PlainNetwork | FeatureProbe) -> FrozenFeatures:
    """The frozen part of a landmark network: a probe's own, or the default levels of a whole one.

    Args:
        network: see :func:`monai_landmark.networks.landmark_network`.

    Returns:
        Its features.

    Raises:
        ConfigurationError: a network without levels to tap.
    """
    if isinstance(network, PlainNetwork):
        action = "take a diffusion U-Net or a network on a timm encoder"
        raise ConfigurationError("this network has no features to take", field="architecture", action=action)
    return network.features if isinstance(network, FeatureProbe) else FrozenFeatures(network)


def levels_of(network: LandmarkUNet | EncoderLandmarkUNet) -> tuple[str, ...]:
    """All levels of a landmark network, named as :class:`FeatureTaps` does.

    Args:
        network: the network.

    Returns:
        Their names, from the film down and up again.
    """
    if isinstance(network, LandmarkUNet):
        return FeatureTaps.levels_of(network.diffusion)
    smaller: list[int] = network.encoder.feature_info.reduction()
    return (*(f"encoder_{by}" for by in smaller), *(f"decoder_{by}" for by in [*smaller[-2::-1], 1]))


def default_levels(network: LandmarkUNet | EncoderLandmarkUNet) -> tuple[str, ...]:
    """The levels that a probe takes unless told otherwise.

    Args:
        network: the network.

    Returns:
        Of a diffusion U-Net every level; of an encoder the encoder's, and those of its decoder that are smaller than
        the film where a file filled it.
    """
    every = levels_of(network)
    if isinstance(network, LandmarkUNet):
        return every
    report = network.transfer_report
    filled = report is not None and any(name.startswith("decoder.") for name in report.loaded)
    return tuple(level for level in every if level.startswith("encoder_") or (filled and level != "decoder_1"))


def _in_channels(network: LandmarkUNet | EncoderLandmarkUNet) -> int:
    """How many channels the film has: of the first convolution, less the patches folded into them."""
    body = network.diffusion if isinstance(network, LandmarkUNet) else network.encoder
    first = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    return first.in_channels // getattr(body, "patch_size", 1) ** 2


def _encoder_features(network: EncoderLandmarkUNet, image: torch.Tensor, wanted: Sequence[str]) -> Features:
    """Levels of an encoder and its decoder, as far as the last one wanted: the decoder's are the costly ones."""
    names = levels_of(network)
    count = 1 + max((names.index(level) for level in wanted), default=0)
    return dict(zip(names[:count], network.maps(image), strict=False))


def _enlarged(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
