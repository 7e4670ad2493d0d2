"""Keyed randomness: what is drawn for a film depends on the seed and the number of the draw alone.

So a run that was stopped goes on with the same films and the same augmentations, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Randomizable, Transform
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from monai_landmark.errors import ConfigurationError

__all__ = ["Draw", "DrawSampler", "KeyedDataset", "KeyedSteps"]

_GOLDEN = (5**0.5 - 1) / 2


class Draw(NamedTuple):
    """One draw of training: which item, and the how-manieth draw of the run it is."""

    item: int
    number: int


class DrawSampler(Sampler[Draw]):
    """Draws in random order without end of an epoch: every item once, then every item once again, and so on.

    With weights an item comes in proportion to its own: of every ``length`` draws as often as is its share of them,
    rounded up or down so that the shares become exact over the run (systematic sampling, with the golden ratio as step
    from one round to the next; Knuth, "The Art of Computer Programming" 3, section 6.4, theorem S).

    Args:
        length: number of items.
        draws: how many to draw each time the sampler is walked through.
        seed: seed of the order.
        rank: index of this process in distributed training; it takes every ``world_size``-th draw.
        world_size: number of processes.
        weights: how often each item is drawn compared with the others, ``length`` numbers; None for all alike.

    Raises:
        ConfigurationError: if the weights are not one number of at least 0 for each item, or all 0.
    """

    def __init__(
        self,
        length: int,
        draws: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.length, self.draws, self.seed, self.rank, self.world_size = length, draws, seed, rank, world_size
        self.weights = None if weights is None else _checked_weights(weights, length)
        self.start = 0

    def __len__(self) -> int:
        return len(range(self.rank, self.draws, self.world_size))

    def __iter__(self) -> Iterator[Draw]:
        start, self.start = self.start, self.start + self.draws
        order, ordered = np.arange(0), -1
        for number in range(start + self.rank, start + self.draws, self.world_size):
            epoch, place = divmod(number, self.length)
            if epoch != ordered:
                order, ordered = self._order(epoch), epoch
            yield Draw(int(order[place]), number)

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """The items of ``length`` draws."""
        random = np.random.default_rng([self.seed, epoch])
        if self.weights is None:
            return random.permutation(self.length)
        offset = (np.random.default_rng(self.seed).random() + epoch * _GOLDEN) % 1
        edges = np.cumsum(self.weights) / np.sum(self.weights)
        drawn = np.searchsorted(edges, (np.arange(self.length) + offset) / self.length, side="right")
        return random.permutation(np.minimum(drawn, self.length - 1))


class KeyedDataset(Dataset[Any]):
    """Items under a random transform that is seeded anew for every draw.

    Args:
        data: the items, after their deterministic transforms (a :class:`monai.data.CacheDataset`, say).
        transform: the random transform.
        seed: seed of the run.
    """

    def __init__(self, data: Sequence[Any], transform: Transform, seed: int = 0) -> None:
        self.data, self.transform, self.seed = data, transform, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, draw: Draw | int) -> Any:
        """One item, transformed.

        Args:
            draw: from :class:`DrawSampler`; a plain index is its own number.

        Returns:
            What the transform makes of the item.
        """
        index, number = draw if isinstance(draw, tuple) else (draw, draw)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=_key(self.seed, number))
        return self.transform(self.data[index])


class KeyedSteps:
    """Handler that seeds torch anew for every step: the noise and timesteps of diffusion, and drop-out, are keyed.

    In distributed training all processes are seeded alike, and what is drawn for films goes through
    :func:`monai_landmark.processes.drawn_for`: then a film gets what it would in a single process.

    Args:
        seed: seed of the run.
        rank: anything but 0 where processes shall draw other numbers than each other: index of this process.
    """

    def __init__(self, seed: int = 0, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed torch on every device.

        Args:
            engine: the trainer; the number of its step is the key.
        """
        torch.manual_seed(_key(self.seed, engine.state.iteration, self.rank))


def _checked_weights(weights: Sequence[float], length: int) -> NDArray[np.float64]:
    """``(length,)`` weights."""
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (length,) or not (np.isfinite(checked).all() and (checked >= 0).all() and checked.sum() > 0):
        raise ConfigurationError(
            "the weights do not fit the items",
            field="weights",
            value=weights,
            expected=f"{length} finite numbers of at least 0, not all 0",
        )
    return checked


def _key(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
