"""Batch normalization over the films of all processes of distributed training, on the CPU as well."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_landmark.processes import process_count

__all__ = ["synchronized"]


def synchronized(network: nn.Module) -> nn.Module:
    """Let every batch normalization take its statistics over the films of all processes.

    Otherwise N processes with a few films each would train another network than one process with all of them. The
    names of weights and buffers stay, and the weights are the same tensors. On a GPU torch's ``SyncBatchNorm`` does the
    work, brought in by timm, whose layers have an activation in them that torch's own conversion would drop; on the
    CPU, which that layer refuses, the layers here. Other normalizations do not look beyond a film.

    Args:
        network: on its device; its layers are exchanged in place.

    Returns:
        The network.
    """
    if process_count() == 1:
        return network
    if any(weight.device.type != "cpu" for weight in network.parameters()):
        converted: nn.Module = convert_sync_batchnorm(network)
        return converted
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.__class__ = _OnCPUAct if isinstance(layer, BatchNormAct2d) else _OnCPU
    return network


class _Sum(torch.autograd.Function):
    """Sum over processes, of values forward and of gradients backward: every process has used the sum."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        """Sum of the values."""
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        """Sum of the gradients."""
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class _OnCPU(_BatchNorm):
    """Batch normalization (Ioffe and Szegedy, ICML 2015, algorithm 1), mean and variance over all processes."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of axes behind the channels."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize a batch.

        Args:
            input: ``(B, C, ...)``.

        Returns:
            Of the same shape.
        """
        if not self.training:
            return super().forward(input)
        plain = input.as_subclass(torch.Tensor)  # MONAI's would look for its metadata at every step below
        exact = plain.to(torch.promote_types(plain.dtype, torch.float32))
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        sums = _sum(torch.cat([exact.sum(axes), exact.new_tensor([input.numel() / input.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = exact - mean.view(shape)
        variance = _sum(centered.square().sum(axes)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        normal = centered * (scale if self.weight is None else scale * self.weight).view(shape)
        return (normal if self.bias is None else normal + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """The running statistics go on, as ``torch.nn.BatchNorm2d`` has it."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


class _OnCPUAct(_OnCPU):
    """The same with the dropout and the activation of timm's layer behind it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize a batch, then activate.

        Args:
            input: ``(B, C, ...)``.

        Returns:
            Of the same shape.
        """
        activated: torch.Tensor = self.act(self.drop(super().forward(input)))
        return activated


def _sum(values: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total
