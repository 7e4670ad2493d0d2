"""How well a diffusion network denoises films that it has not seen, from little noise to much."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_landmark.engines.averaging import averaged
from monai_landmark.errors import DataError
from monai_landmark.files import write_text
from monai_landmark.pretraining.diffusion import DiffusionObjective
from monai_landmark.pretraining.samples import keyed_noise, stack_films

__all__ = ["DenoisingValidator", "History"]

_LOGGER = logging.getLogger(__name__)


class History:
    """Records of a run in one JSON file, one a visit, that a resumed run continues.

    Args:
        path: the file.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.records: list[dict[str, Any]] = []
        self._read_already = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer: at its first epoch the records of its earlier steps are read.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self._forget)
        # the checkpoint sets the step at STARTED, so the first epoch is the first to know it
        engine.add_event_handler(Events.EPOCH_STARTED, self._read)

    def _forget(self, engine: Engine) -> None:
        self.records, self._read_already = [], False

    def _read(self, engine: Engine) -> None:
        done, first = engine.state.iteration, not self._read_already
        self._read_already = True
        if not first or not done or not self.path.is_file():
            return
        try:
            earlier = json.loads(self.path.read_text(encoding="utf-8"))["history"]
            self.records = [record for record in earlier if record["step"] <= done]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                "not the record of an earlier run", file=self.path, value=str(error), action="move it away"
            ) from error

    def has(self, step: int) -> bool:
        """Whether the last record is of this step: a trainer's last epoch is also its end.

        Args:
            step: of the trainer.
        """
        return bool(self.records) and self.records[-1]["step"] == step

    def add(self, record: dict[str, Any], **facts: Any) -> None:
        """Write the file anew with one more record; one of the same step is replaced.

        Args:
            record: has ``step``.
            **facts: what is true of the whole run.
        """
        self.records = [earlier for earlier in self.records if earlier["step"] != record["step"]] + [record]
        write_text(self.path, json.dumps({**facts, "history": self.records}, indent=2))


class DenoisingValidator:
    """Validation loss of the averaged network on held-out films, by bucket of timesteps.

    Every visit has the same films, noise and timesteps, in float32, so that the numbers of a run differ by the weights
    alone. A single mean would hide what is wrong: large timesteps are learned within minutes, the fine structure that
    landmarks need stands in the small ones.

    Args:
        objective: the diffusion objective, whose ``film_loss`` is reported.
        network: the averaged network.
        films: held-out films on the network's grid, items with ``image`` (and ``source``).
        path: the JSON file that receives the history.
        every_epochs: how often; also at the end.
        buckets: into how many equal parts the timesteps are split.
        batch_size: films at a time.
        seed: of noise and timesteps.
        writer: a TensorBoard ``SummaryWriter`` that receives the losses too.
    """

    def __init__(
        self,
        objective: DiffusionObjective,
        network: nn.Module,
        films: Sequence[Any],
        path: str | PathLike[str],
        every_epochs: int = 1,
        buckets: int = 5,
        batch_size: int = 8,
        seed: int = 0,
        writer: Any = None,
    ) -> None:
        self.objective, self.network = objective, network
        self.films, self.sources = stack_films(films)
        self.history = History(path)
        self.every_epochs, self.batch_size, self.seed, self.writer = every_epochs, batch_size, seed, writer
        edges = np.linspace(0, objective.timesteps, buckets + 1).round().astype(int)
        self.buckets = [(int(low), int(high) - 1) for low, high in itertools.pairwise(edges)]
        draws = np.random.default_rng(seed)
        # (films, buckets); each film its own timesteps, so that together they cover a bucket
        self.timesteps = torch.from_numpy(
            np.stack([draws.integers(low, high + 1, len(self.films)) for low, high in self.buckets], axis=1)
        )

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        self.history.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every_epochs) | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Validate, log and write, unless this step has been validated.

        Args:
            engine: the trainer.
        """
        state = engine.state
        if self.history.has(state.iteration):
            return
        losses = [round(float(loss), 6) for loss in self.losses()]
        mean = round(sum(losses) / len(losses), 6)
        record = {"step": state.iteration, "epoch": state.epoch, "loss": mean, "by_timestep": losses}
        self.history.add(record, films=len(self.films), timesteps=self.buckets, seed=self.seed)
        parts = list(zip(losses, self.buckets, strict=True))
        shown = ", ".join(f"{loss:.4f} (t {low}-{high})" for loss, (low, high) in parts)
        _LOGGER.info("validation on %d films: %.4f = mean of %s", len(self.films), mean, shown)
        if self.writer is not None:
            self.writer.add_scalar("validation/loss", mean, state.iteration)
            for loss, (low, high) in parts:
                self.writer.add_scalar(f"validation/t_{low}_{high}", loss, state.iteration)

    @torch.no_grad()
    def losses(self) -> torch.Tensor:
        """Mean loss of every bucket.

        Returns:
            ``(buckets,)`` float64.
        """
        device = next(self.network.parameters()).device
        films = [self.objective.encode(part.to(device)) for part in torch.split(self.films, self.batch_size)]
        noise = keyed_noise(self.seed, len(self.films), films[0].shape[1:])
        found = torch.zeros(self.timesteps.shape, dtype=torch.float64)
        with averaged(self.objective, self.network):
            for start in range(0, len(self.films), self.batch_size):
                part = slice(start, start + self.batch_size)
                source = None if self.sources is None else self.sources[part].to(device)
                for bucket in range(len(self.buckets)):
                    t = self.timesteps[part, bucket].to(device)
                    loss = self.objective.film_loss(films[start // self.batch_size], t, noise[part].to(device), source)
                    found[part, bucket] = loss.double().cpu()
        return found.mean(dim=0)
