"""Which parts of a batch go into the network and which into the loss."""

from __future__ import annotations

from functools import partial
from typing import Any

from monai.engines.utils import default_prepare_batch

__all__ = ["image_and"]


def image_and(label_key: str, image_key: str = "image") -> Any:
    """MONAI's ``prepare_batch`` for an image and one label.

    Args:
        label_key: key of what the output is held against.
        image_key: key of the network's input.

    Returns:
        A function for MONAI's engines.
    """
    return partial(_prepare, image_key=image_key, label_key=label_key)


def _prepare(
    batch: Any, device: Any = None, non_blocking: bool = False, *, image_key: str, label_key: str, **kwargs: Any
) -> Any:
    keyed = {"image": batch[image_key], "label": batch[label_key]} if label_key in batch else {"image": batch[image_key]}
    return default_prepare_batch(keyed, device, non_blocking, **kwargs)
