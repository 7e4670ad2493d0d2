"""The diffusion U-Net as a landmark detector, and the way into it for the weights of diffusion pre-training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from os import PathLike
from typing import Any

import torch
from torch import nn

from monai_landmark.errors import WeightsError
from monai_landmark.networks.diffusion_unet import DiffusionUNet
from monai_landmark.networks.freezing import FreezableEncoder
from monai_landmark.networks.weights import StateDict, TransferReport, read_state_dict, transfer_weights

__all__ = ["LandmarkUNet"]

_FINAL = "unet.out.2.conv."  # the last convolution: predicts noise before the transfer, landmarks after it
_CLASSES = "unet.class_embedding.weight"  # (classes, width); row 0 is the null class
_TIME_BIAS = "unet.time_embed.2.bias"  # of the time embedding's last layer, which the class embedding is added to


class LandmarkUNet(FreezableEncoder):
    """Landmark heatmap logits from the diffusion U-Net: the whole network is fine-tuned, the clean film goes in.

    Args:
        landmarks: number of landmarks K.
        in_channels: channels of the film.
        size: as for :class:`DiffusionUNet`.
        timestep: the timestep that the network is told; 0 means a clean film.
        weights_file: a file that pre-training wrote, or an old monai-generative checkpoint.
        **options: passed on to :class:`DiffusionUNet`; a conditioned network is told nothing, one token of zeros.

    Raises:
        WeightsError: if the file does not fit.
    """

    transfer_report: TransferReport | None = None

    def __init__(
        self,
        landmarks: int,
        in_channels: int = 1,
        size: str = "tiny",
        timestep: int = 0,
        weights_file: str | PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.timestep = timestep
        self.context_width = options.get("cross_attention_dim") if options.get("with_conditioning") else None
        self.diffusion = DiffusionUNet(in_channels, landmarks, size, **options)
        if weights_file is not None:
            self.transfer_report = self.load_pretrained(read_state_dict(weights_file), str(weights_file))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Heatmap logits of a film.

        Args:
            image: ``(B, C, H, W)``, intensities in [-1, 1].

        Returns:
            ``(B, K, H, W)`` logits.
        """
        timesteps = torch.full((image.shape[0],), self.timestep, device=image.device, dtype=torch.long)
        nothing = None if self.context_width is None else image.new_zeros(image.shape[0], 1, self.context_width)
        logits: torch.Tensor = self.diffusion(image, timesteps, nothing)
        return logits

    def encoder_parts(self) -> Iterator[nn.Module]:
        """See :class:`FreezableEncoder`; the embedding of the timestep is one of them."""
        unet = self.diffusion.unet
        yield from (unet.conv_in, unet.time_embed, unet.down_blocks, unet.middle_block)

    def load_pretrained(self, weights: StateDict, source: str = "") -> TransferReport:
        """Take over a pre-trained diffusion U-Net; its last convolution, which predicted noise, starts anew.

        That of a landmark network is taken over where it is for as many landmarks: its training goes on.

        Args:
            weights: state dict of :class:`DiffusionUNet`, of MONAI's DiffusionModelUNet, of monai-generative's, or of a
                network of this class.
            source: named in the report.

        Returns:
            The account of every tensor.

        Raises:
            WeightsError: if nothing fits, or more than the last convolution is missing: a half-filled network would
                pass for a pre-trained one.
        """
        trained = all(name.startswith("diffusion.") for name in weights)
        weights = {name.removeprefix("diffusion."): tensor for name, tensor in weights.items()} if trained else weights
        if not any(name.startswith("unet.") for name in weights):
            weights = {f"unet.{name}": tensor for name, tensor in weights.items()}
        if _of_monai_generative(weights, self.diffusion):
            weights = self._renamed(weights, source)
        body = {name: tensor for name, tensor in weights.items() if trained or not name.startswith(_FINAL)}
        body = _unconditional(body, self.diffusion)
        report = transfer_weights(self.diffusion, body, source)
        missing = [name for name in report.reinitialized if not name.startswith(_FINAL)]
        ignored = [name for name in report.ignored if not name.startswith(_FINAL)]
        if missing or ignored:
            raise WeightsError(
                "weights of another architecture or size",
                file=source or None,
                value=[*missing, *ignored][:4],
                expected="every tensor but the last convolution to fit",
                action="give the size, patch_size and options that the file was trained with",
            )
        return report

    def _renamed(self, weights: StateDict, source: str) -> StateDict:
        """monai-generative's names -> MONAI core's, by core's own loader.

        monai-generative never applied ``proj_attn`` of its attention blocks; core applies it as ``out_proj`` unless
        built with ``include_fc=False``, and then gives other numbers without an error. So that case is refused.
        """
        projected = any(name.endswith(".out_proj.weight") for name in self.diffusion.state_dict())
        never_applied = any(".proj_attn." in name for name in weights)
        if projected == never_applied:
            raise WeightsError(
                "monai-generative weights would load silently wrong",
                file=source or None,
                field="include_fc",
                value=projected,
                expected=str(not never_applied),
                action="build the network with that include_fc, patch_size=1 and the checkpoint's channels",
            )
        old = {name.removeprefix("unet."): tensor.clone() for name, tensor in weights.items()}
        shadow = copy.deepcopy(self.diffusion.unet)
        final = shadow.out[2].conv
        try:
            channels = old["out.2.conv.weight"].shape[0]
            shadow.out[2].conv = nn.Conv2d(final.in_channels, channels, final.kernel_size, padding=final.padding)
            shadow.load_old_state_dict(old)  # empties the dict it is given
        except (KeyError, RuntimeError) as error:
            raise self._other_architecture(source, str(error)) from error
        left_over = [name for name in old if ".proj_attn." not in name]
        filled = len(weights) - len(old)  # core's loader leaves a tensor as it was when it finds no match for it
        if left_over or filled != len(shadow.state_dict()):
            raise self._other_architecture(source, left_over[:4] or f"{filled} of {len(shadow.state_dict())} tensors")
        return {f"unet.{name}": tensor for name, tensor in shadow.state_dict().items()}

    @staticmethod
    def _other_architecture(source: str, value: Any) -> WeightsError:
        return WeightsError(
            "monai-generative weights of another architecture or size",
            file=source or None,
            value=value,
            action="build the network with patch_size=1 and the checkpoint's channels, blocks and conditioning "
            "(include_fc=True when conditioned)",
        )


def _unconditional(weights: StateDict, network: nn.Module) -> StateDict:
    """The same network under the null class: its embedding goes into the bias that it would be added to."""
    if _CLASSES not in weights or _CLASSES in network.state_dict():
        return weights
    plain = {name: tensor for name, tensor in weights.items() if name != _CLASSES}
    bias = plain.get(_TIME_BIAS)
    if bias is not None:
        plain[_TIME_BIAS] = bias + weights[_CLASSES][0].to(bias)
    return plain


def _of_monai_generative(weights: StateDict, network: nn.Module) -> bool:
    """Whether names are those of monai-generative, before its networks moved into MONAI core."""
    old_attention = any(".proj_attn." in name or ".to_out.0." in name for name in weights)
    renamed = any("postconv" in name for name in network.state_dict())
    return old_attention or (renamed and not any("postconv" in name for name in weights))
