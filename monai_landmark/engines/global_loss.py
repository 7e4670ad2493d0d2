"""The loss of a step of distributed training is that of all its films."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from monai_landmark.processes import process_count, sum_over_processes

__all__ = ["GlobalLossHandler"]


class GlobalLossHandler:
    """After a step, put the mean over processes in the place of what this one process has found.

    So the progress, the curves and the logs show the loss that one process would show with all films of the step: the
    loss itself, and every scalar that a pre-training objective returns beside it. Handlers that read them come after
    this one. Nothing is done where one process trains alone.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: a :class:`monai.engines.SupervisedTrainer`.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Ask the other processes, once for all numbers.

        Args:
            engine: the trainer; its output is changed.
        """
        count, output = process_count(), engine.state.output
        if count == 1:
            return
        terms: Any = output[CommonKeys.PRED]
        terms = terms if isinstance(terms, dict) else {}
        names = [name for name, value in terms.items() if torch.as_tensor(value).numel() == 1]
        own = [output[CommonKeys.LOSS], *(torch.as_tensor(terms[name]).to(output[CommonKeys.LOSS]) for name in names)]
        loss, *means = sum_over_processes(torch.stack([value.detach().reshape(()) for value in own])) / count
        output[CommonKeys.LOSS] = loss
        if names:
            output[CommonKeys.PRED] = {**terms, **dict(zip(names, means, strict=True))}
