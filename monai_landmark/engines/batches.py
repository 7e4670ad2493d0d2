"""Which parts of a batch go into the network and which into the loss."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from monai.engines.utils import default_prepare_batch
from monai.utils import CommonKeys

__all__ = ["image_and", "image_told_source", "loss_of", "lower_is_better"]


def image_and(label_key: str | None, image_key: str = "image") -> Any:
    """MONAI's ``prepare_batch`` for an image and one label.

    Args:
        label_key: key of what the output is held against; None for films without annotation.
        image_key: key of the network's input.

    Returns:
        A function for MONAI's engines.
    """
    return partial(_prepare, image_key=image_key, label_key=label_key)


def _prepare(
    batch: Any, device: Any = None, non_blocking: bool = False, *, image_key: str, label_key: str | None, **kwargs: Any
) -> Any:
    keyed = {CommonKeys.IMAGE: batch[image_key]}
    if label_key is not None:
        keyed[CommonKeys.LABEL] = batch[label_key]
    return default_prepare_batch(keyed, device, non_blocking, **kwargs)


def image_told_source(
    batch: Any, device: Any = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, None, tuple[()], dict[str, torch.Tensor]]:
    """MONAI's ``prepare_batch`` for pre-training: there is no label, and the objective is told where films come from.

    Args:
        batch: has ``image`` and ``source``.
        device: where they go.
        non_blocking: as for :meth:`torch.Tensor.to`.
        **kwargs: as for :meth:`torch.Tensor.to`.

    Returns:
        The films, no label, and ``source`` for the network.
    """
    image, source = batch[CommonKeys.IMAGE], torch.as_tensor(batch["source"])
    moved = source.to(device=device, non_blocking=non_blocking)
    return image.to(device=device, non_blocking=non_blocking, **kwargs), None, (), {"source": moved}


def loss_of(output: Any) -> float:
    """The loss of a training step, for handlers that plot it.

    Args:
        output: output of :class:`monai.engines.SupervisedTrainer`.

    Returns:
        The loss.
    """
    return float(output[CommonKeys.LOSS].detach())


def lower_is_better(current: float, best: float) -> bool:
    """Order of an error, for MONAI's ``metric_cmp_fn``, which takes higher as better.

    Args:
        current: metric of this epoch.
        best: best metric so far.

    Returns:
        Whether the current one is better.
    """
    return current < best
