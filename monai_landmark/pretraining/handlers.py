"""What ties an objective to its trainer: its progress, its teacher, and every number it reports."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import nn

from monai_landmark.pretraining.objective import Objective

__all__ = ["ObjectiveHandler", "scalars_of"]

_LOGGER = logging.getLogger(__name__)


def scalars_of(output: Any) -> dict[str, float]:
    """Every scalar that the objective returned in a step, as MONAI's ``TensorBoardStatsHandler`` plots them.

    Args:
        output: output of :class:`monai.engines.SupervisedTrainer`.

    Returns:
        Names and numbers.
    """
    return {name: float(value) for name, value in _scalars(output).items()}


def _scalars(output: Any) -> dict[str, torch.Tensor]:
    terms = {name: torch.as_tensor(value).detach() for name, value in output[CommonKeys.PRED].items()}
    return {name: value for name, value in terms.items() if value.numel() == 1}


class ObjectiveHandler:
    """Tell the objective how far the run is, let it finish each step, and log the means of its terms every epoch.

    ``objective.progress`` is ``engine.state.progress`` (see :class:`~monai_landmark.engines.ProgressSchedule`), or the
    share of the steps where nothing sets that. A term that is returned in some steps only is averaged over those.

    Args:
        objective: the trainer's network; the distributed wrapper is taken off.
    """

    def __init__(self, objective: Objective | nn.parallel.DistributedDataParallel) -> None:
        self.objective: Any = getattr(objective, "module", objective)
        self._seen: dict[str, list[torch.Tensor]] = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self._attach_last)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)

    def _attach_last(self, engine: Engine) -> None:
        """Wherever this handler stands in the list, the schedule sets the progress first."""
        if not engine.has_event_handler(self._step_starts, Events.ITERATION_STARTED):
            engine.add_event_handler(Events.ITERATION_STARTED, self._step_starts)

    def _step_starts(self, engine: Engine) -> None:
        state = engine.state
        share = state.iteration / (state.max_epochs * state.epoch_length)
        self.objective.progress = float(getattr(state, "progress", share))

    def _step_completed(self, engine: Engine) -> None:
        self.objective.step_completed()
        for name, value in _scalars(engine.state.output).items():
            self._seen[name].append(value.reshape(()))

    def _epoch_completed(self, engine: Engine) -> None:
        means = {name: float(torch.stack(values).float().mean()) for name, values in self._seen.items()}
        self._seen.clear()
        shown = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items())
        _LOGGER.info("epoch %d: %s", engine.state.epoch, shown)
