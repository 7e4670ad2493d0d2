"""Weights from a file into a network, with an account of every tensor: loaded, re-initialized or ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from monai_landmark.errors import WeightsError
from monai_landmark.safety.tensors import check_torch_file, check_weights, refuse_inflated

__all__ = ["TransferReport", "load_encoder_weights", "read_state_dict", "transfer_weights"]

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TransferReport:
    """What a transfer did with every tensor.

    Attributes:
        loaded: names in the network whose values came from the file.
        reinitialized: names in the network that kept their own initial values, absent from the file or of other shape.
        ignored: names in the file that have no place in the network.
        source: where the weights came from.
    """

    loaded: tuple[str, ...]
    reinitialized: tuple[str, ...]
    ignored: tuple[str, ...]
    source: str = ""

    def __str__(self) -> str:
        return (
            f"weights from {self.source or 'a state dict'}: {len(self.loaded)} tensors loaded, "
            f"{len(self.reinitialized)} re-initialized, {len(self.ignored)} ignored"
        )


def read_state_dict(path: str | PathLike[str]) -> StateDict:
    """Read tensors from a file without running anything that the file says.

    Args:
        path: ``.safetensors``, or a ``torch.save`` file that ``weights_only=True`` accepts; of a training checkpoint
            the averaged weights (``average`` or ``ema``) come first, then ``network``, ``model`` or ``state_dict``.

    Returns:
        Names and tensors on the CPU.

    Raises:
        WeightsError: if the file is absent, damaged, or holds anything but tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError("no such weights file", file=file, action="check the path; nothing is downloaded")
    plain = file.suffix == ".safetensors"
    if plain:
        check_weights(file)
    else:
        check_torch_file(file)
    try:
        content = load_file(file) if plain else torch.load(file, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError("damaged or not a weights file", file=file, value=str(error)) from error
    except Exception as error:  # what the restricted unpickler raises depends on what it met
        raise WeightsError(
            "holds more than tensors, or is no weights file, and is not opened",
            file=file,
            value=str(error),
            action="save a plain state dict, best as safetensors",
        ) from error
    for key in ("average", "ema", "network", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise WeightsError("is not a state dict", file=file, value=type(content).__name__, expected="name -> tensor")
    refuse_inflated(content, file)
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def transfer_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], source: str = "") -> TransferReport:
    """Copy every tensor whose name and shape fit into a network.

    Args:
        network: changed in place.
        weights: names and tensors; left as they are.
        source: named in the report and in errors.

    Returns:
        The account of every tensor.

    Raises:
        WeightsError: if no weight tensor (other than counters) moved: such a load is a fresh start in disguise.
    """
    own = network.state_dict()
    fitting = {n: t for n, t in weights.items() if n in own and own[n].shape == t.shape}
    report = TransferReport(
        loaded=tuple(n for n in own if n in fitting),
        reinitialized=tuple(n for n in own if n not in fitting),
        ignored=tuple(n for n in weights if n not in fitting),
        source=source,
    )
    if not any(own[n].is_floating_point() for n in report.loaded):
        raise WeightsError(
            "no tensor fits the network, nothing was loaded",
            file=source or None,
            value=next(iter(weights), None),
            expected=f"names such as {next(iter(own))!r} in matching shapes",
            action="check that architecture and size are those the weights were trained with",
        )
    network.load_state_dict({**own, **fitting})
    return report


def load_encoder_weights(encoder: nn.Module, path: str | PathLike[str]) -> TransferReport:
    """Fill a timm encoder from a local file in timm's names or in those of efficientnet_lite_pytorch.

    A stem for one channel takes the sum over the file's color channels, as timm does.

    Args:
        encoder: a timm model, made with or without ``features_only``.
        path: see :func:`read_state_dict`.

    Returns:
        The account of every tensor.

    Raises:
        WeightsError: if less than half of the encoder's tensors were found: the file is of another architecture.
    """
    weights = read_state_dict(path)
    if "_conv_stem.weight" in weights:
        weights = _from_efficientnet_lite(weights, encoder)
    own = encoder.state_dict()
    flat = {name.replace(".", "_"): name for name in own}  # features_only renames stages.0 to stages_0
    weights = {flat.get(name.replace(".", "_"), name): tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        # only three channels are colors: a depthwise convolution has one input channel too
        if name in own and tensor.ndim == 4 and tensor.shape[1] == 3 and own[name].shape[1] == 1:
            weights[name] = tensor.sum(dim=1, keepdim=True)
    report = transfer_weights(encoder, weights, str(path))
    if len(report.loaded) < len(own) / 2:
        raise WeightsError(
            "most of the encoder is missing from the file",
            file=path,
            value=f"{len(report.loaded)} of {len(own)} tensors",
            action="name the timm encoder that the weights belong to",
        )
    return report


def _from_efficientnet_lite(weights: StateDict, encoder: nn.Module) -> StateDict:
    """Rename efficientnet_lite_pytorch's flat blocks to timm's ``blocks.<stage>.<block>``."""
    names = {n.rsplit(".", 2)[0] for n in encoder.state_dict() if n.startswith("blocks.") and ".conv_dw" in n}
    order = sorted(names, key=lambda n: tuple(int(part) for part in n.split(".")[1:3]))
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    expanded |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed: StateDict = {}
    for name, tensor in weights.items():
        first, rest = name.split(".", 1)
        if first != "_blocks":
            renamed[f"{outside[first]}.{rest}"] = tensor
            continue
        number, layer, leaf = rest.split(".")
        if int(number) < len(order):
            layers = expanded if f"_blocks.{number}._expand_conv.weight" in weights else plain
            renamed[f"{order[int(number)]}.{layers[layer]}.{leaf}"] = tensor
    return renamed
