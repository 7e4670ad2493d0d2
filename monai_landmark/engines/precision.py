"""Mixed precision on any device; MONAI's trainer knows it on CUDA only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.inferers import Inferer
from torch.overrides import TorchFunctionMode

__all__ = ["PrecisionInferer", "fast_dtype"]


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """The type in which a device multiplies fastest without loss scaling.

    Args:
        device: where the network runs.

    Returns:
        bfloat16 where the hardware has it; float32 elsewhere (a CPU that emulates bfloat16 is slower in it).
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if kind == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.bfloat16
    return torch.float32


class _GroupedConvolutionsInFloat32(TorchFunctionMode):
    """Depthwise and other grouped convolutions leave autocast.

    oneDNN has no fast backward pass of them in bfloat16 on a CPU: it takes 4 to 20 times as long as in float32, which
    is a third and more of a training step of an EfficientNet (benchmarks/train_step.py).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See PyTorch; ``conv2d(input, weight, bias, stride, padding, dilation, groups)``."""
        words = dict(kwargs or {})
        groups = args[6] if len(args) > 6 else words.get("groups", 1)
        if func is not torch.conv2d or groups == 1:
            return func(*args, **words)
        image, *rest = args
        with torch.autocast("cpu", enabled=False):
            return func(image.float(), *rest, **words).to(image.dtype)


class PrecisionInferer(Inferer):
    """Run an inferer under autocast and return float32.

    Args:
        inferer: what runs the network; the network itself by default.
        dtype: ``"auto"`` for :func:`fast_dtype`, or ``"float32"``, ``"bfloat16"``.
    """

    def __init__(self, inferer: Inferer | None = None, dtype: str = "auto") -> None:
        super().__init__()
        self.inferer, self.dtype = inferer, dtype

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the network.

        Args:
            inputs: ``(B, C, H, W)``.
            network: the network.
            *args: passed on.
            **kwargs: passed on.

        Returns:
            The network's output, float32: a tensor, or a dictionary of tensors.
        """
        kind = inputs.device.type
        dtype = fast_dtype(inputs.device) if self.dtype == "auto" else getattr(torch, self.dtype)
        plain = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        plain = plain.contiguous(memory_format=torch.channels_last)
        mixed = dtype != torch.float32
        slow_backward = mixed and kind == "cpu" and torch.is_grad_enabled()
        grouped: AbstractContextManager[Any] = _GroupedConvolutionsInFloat32() if slow_backward else nullcontext()
        with torch.autocast(kind, dtype=dtype, enabled=mixed), grouped:
            run = network if self.inferer is None else self.inferer
            output = run(plain, *args, **kwargs) if run is network else run(plain, network, *args, **kwargs)
        if isinstance(output, Mapping):
            return {name: tensor.float() for name, tensor in output.items()}
        return output.float()
