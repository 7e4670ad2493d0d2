"""This process among those that train one network together (torchrun), so that they learn what a single one would.

A step of N processes is to be the step of one process on all their films: the same noise on the same films, means over
all films and not means of means. Film j of all is film j // N of process j % N, as
:class:`monai_landmark.engines.DrawSampler` deals them out. Without a process group all of this is that of one process.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import distributed

__all__ = ["drawn_for", "process_count", "process_rank", "share_of_all", "sum_over_processes"]


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _together() else 1


def process_rank() -> int:
    """Index of this process among them."""
    return distributed.get_rank() if _together() else 0


def drawn_for(films: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Random numbers for the films of this process, as one process would draw them for the films of all.

    Every process draws for all films and keeps what is its own. So their generators must be in the same state, as
    :class:`monai_landmark.engines.KeyedSteps` puts them, and each must have as many films.

    Args:
        films: ``(B, ...)`` of this process.
        draw: takes films and returns ``(films, ...)`` random numbers; looks at shape, type and device alone.

    Returns:
        ``(B, ...)``.
    """
    count = process_count()
    if count == 1:
        return draw(films)
    plain = films.detach().as_subclass(torch.Tensor)
    return draw(torch.cat([plain] * count))[process_rank() :: count]


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, which must all ask for it; no gradient goes through.

    Args:
        values: of the same shape everywhere.

    Returns:
        Of the same shape.
    """
    total = values.detach().clone()
    if process_count() > 1:
        distributed.all_reduce(total)
    return total


def share_of_all(count: torch.Tensor) -> torch.Tensor:
    """What a sum is divided by, so that the mean over processes is the mean over everything that was counted.

    Distributed training averages gradients over processes, whatever each has counted.

    Args:
        count: how much there is in this process.

    Returns:
        The count of all processes over their number, as floating-point number; at least one thing is taken to be there.
    """
    total = sum_over_processes(count.to(torch.get_default_dtype())).clamp_min(1)
    return total / process_count()


def _together() -> bool:
    return bool(distributed.is_available() and distributed.is_initialized())
