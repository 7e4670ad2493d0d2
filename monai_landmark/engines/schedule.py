"""How far a run has come, by steps or by minutes, and the learning rate that follows from it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch.optim import Optimizer

from monai_landmark.errors import ConfigurationError

__all__ = ["ProgressSchedule", "rate_factor"]

_LOGGER = logging.getLogger(__name__)


def rate_factor(progress: float, warmup: float, floor: float) -> float:
    """Learning rate as a share of its peak: up in a line, down along a half cosine (Loshchilov and Hutter, ICLR 2017).

    Args:
        progress: share of the training done.
        warmup: share of the training until the peak, below 1.
        floor: share of the peak that is left at the end.

    Returns:
        0..1.
    """
    if progress < warmup:
        return progress / warmup
    fallen = min(1.0, (progress - warmup) / (1.0 - warmup))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * fallen))


class ProgressSchedule:
    """Handler that sets ``engine.state.progress``, 0..1, and the learning rate before every step.

    Progress is the number of the step over the number of steps, so a run by steps resumes bit for bit. With
    ``budget_minutes`` it is the share of that time which has gone into steps, or of the steps if that is more; when the
    time is spent the epoch is closed (checkpoint and model are written as ever) and the run completes. Such a run
    depends on the clock and cannot be repeated exactly. Two objectives with the same minutes had the same
    time to learn: it runs from asking for a batch to the end of its step, so fetching and augmenting films counts, but
    validation, drawing samples and writing files at an epoch's end do not. Times over resumes add up when the
    :class:`~monai_landmark.engines.TrainingStateSaver` keeps this handler among its objects. In distributed training
    the slowest process sets the time of all.

    Args:
        optimizer: its learning rates are the peaks, group by group.
        warmup: share of the training until the peak.
        floor: share of the peak that is left at the end.
        budget_minutes: time to train; None for as many steps as the trainer was told.
        steps: of the whole training, where the trainer is told a part of it at a time (a round of federated training);
            None: as many as the trainer was told.

    Raises:
        ConfigurationError: if a share is not in [0, 1), or the budget is not positive.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.05,
        floor: float = 0.01,
        budget_minutes: float | None = None,
        steps: int | None = None,
    ) -> None:
        for field, value in (("warmup", warmup), ("floor", floor)):
            if not 0.0 <= value < 1.0:
                raise ConfigurationError("not a share of the training", field=field, value=value, expected="0 to 1")
        if budget_minutes is not None and not budget_minutes > 0:
            raise ConfigurationError("no time to train", field="budget_minutes", value=budget_minutes, expected="> 0")
        self.optimizer, self.warmup, self.floor = optimizer, warmup, floor
        self.budget_s = None if budget_minutes is None else 60.0 * budget_minutes
        self.steps, self.seconds = steps, 0.0
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._asked: float | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._end_if_spent)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._batch_asked)
        engine.add_event_handler(Events.ITERATION_STARTED, self._step_starts)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_if_spent)

    def state_dict(self) -> dict[str, float]:
        """What a resumed run must know.

        Returns:
            The seconds that steps have taken.
        """
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from an earlier run.

        Args:
            state: from :meth:`state_dict`.
        """
        self.seconds = float(state["seconds"])

    @property
    def spent(self) -> bool:
        """Whether the time is over."""
        return self.budget_s is not None and self.seconds >= self.budget_s

    def _share_done(self, engine: Engine) -> float:
        steps = float(engine.state.iteration / (self.steps or engine.state.max_epochs * engine.state.epoch_length))
        time_share = 0.0 if self.budget_s is None else self.seconds / self.budget_s
        return min(1.0, max(steps, time_share))

    def _batch_asked(self, engine: Engine) -> None:
        self._asked = time.monotonic()

    def _step_starts(self, engine: Engine) -> None:
        engine.state.progress = self._share_done(engine)
        factor = rate_factor(engine.state.progress, self.warmup, self.floor)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def _step_completed(self, engine: Engine) -> None:
        now = time.monotonic()
        self.seconds += now - (now if self._asked is None else self._asked)
        if self.budget_s is None:
            return
        if idist.get_world_size() > 1:  # or one process would stop and the others wait for it
            self.seconds = float(idist.all_reduce(self.seconds, "MAX"))
        engine.state.progress = self._share_done(engine)
        if self.spent:
            engine.terminate_epoch()

    def _end_if_spent(self, engine: Engine) -> None:
        if self.spent:
            _LOGGER.info("%.1f minutes of training are over after %d steps", self.seconds / 60, engine.state.iteration)
            engine.terminate()
