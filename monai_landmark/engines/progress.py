"""What a person sees while a run goes on."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Any

from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import nn
from tqdm import tqdm

from monai_landmark.processes import process_count

__all__ = ["ProgressHandler", "TransferReportHandler"]

_LOGGER = logging.getLogger(__name__)


class ProgressHandler:
    """A progress bar with loss, films per second and time left; one log line an epoch where there is no terminal.

    Where the run ends by the clock (:class:`~monai_landmark.engines.ProgressSchedule` with a budget), the number of
    steps is an estimate from those done so far.

    Args:
        smoothing: weight of the newest loss in the running mean that is shown.
    """

    def __init__(self, smoothing: float = 0.05) -> None:
        self.smoothing = smoothing
        self._bar: Any = None
        self._loss = float("nan")
        self._films = 0
        self._start = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stepped)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, lambda _: self._bar.close())

    def _started(self, engine: Engine) -> None:
        self._start, self._films = time.monotonic(), 0
        self._bar = tqdm(
            total=_total(engine),
            initial=engine.state.iteration,
            unit="step",
            disable=not sys.stderr.isatty(),
            leave=True,
        )

    def _stepped(self, engine: Engine) -> None:
        loss = float(engine.state.output[CommonKeys.LOSS].detach())
        first = math.isnan(self._loss)
        self._loss = loss if first else self._loss + self.smoothing * (loss - self._loss)
        self._films += _films_of(engine)
        self._bar.set_postfix_str(f"loss {self._loss:.4f}, {self._rate():.1f} films/s", refresh=False)
        self._bar.total = _total(engine)
        self._bar.update()

    def _rate(self) -> float:
        """Films per second since the start."""
        return self._films / max(time.monotonic() - self._start, 1e-9)

    def _epoch_completed(self, engine: Engine) -> None:
        if not self._bar.disable:
            return
        state, rate, total = engine.state, self._rate(), _total(engine)
        left = (total - state.iteration) * _films_of(engine) / max(rate, 1e-9)
        _LOGGER.info(
            "step %d of %d: loss %.4f, %.1f films/s, %d min %02d s left",
            *(state.iteration, total, self._loss, rate, left // 60, left % 60),
        )


def _films_of(engine: Engine) -> int:
    """Films of a step, of all processes."""
    return len(engine.state.output[CommonKeys.IMAGE]) * process_count()


def _total(engine: Engine) -> int:
    """Number of steps of the whole run, as far as it is known."""
    state = engine.state
    progress = float(getattr(state, "progress", 0.0))
    return round(state.iteration / progress) if progress > 0 else int(state.max_epochs * state.epoch_length)


class TransferReportHandler:
    """Say at the start what the initialization moved into the network.

    Args:
        network: a landmark network with a ``transfer_report``.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Log the report.

        Args:
            engine: the trainer.
        """
        report = getattr(self.network, "transfer_report", None)
        _LOGGER.info("%s", report or "no weights were loaded from a file")
