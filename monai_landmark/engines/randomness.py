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
from torch.utils.data import Dataset, Sampler

__all__ = ["Draw", "DrawSampler", "KeyedDataset", "KeyedSteps"]


class Draw(NamedTuple):
    """One draw of training: which item, and the how-manieth draw of the run it is."""

    item: int
    number: int


class DrawSampler(Sampler[Draw]):
    """Draws in random order without end of an epoch: every item once, then every item once again, and so on.

    Args:
        length: number of items.
        draws: how many to draw each time the sampler is walked through.
        seed: seed of the order.
        rank: index of this process in distributed training; it takes every ``world_size``-th draw.
        world_size: number of processes.
    """

    def __init__(self, length: int, draws: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.draws, self.seed, self.rank, self.world_size = length, draws, seed, rank, world_size
        self.start = 0

    def __len__(self) -> int:
        return len(range(self.rank, self.draws, self.world_size))

    def __iter__(self) -> Iterator[Draw]:
        start, self.start = self.start, self.start + self.draws
        for number in range(start + self.rank, start + self.draws, self.world_size):
            epoch, place = divmod(number, self.length)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            yield Draw(int(order[place]), number)


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

    Args:
        seed: seed of the run.
        rank: index of this process in distributed training.
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


def _key(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
