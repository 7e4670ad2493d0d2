"""Handlers that stop a run which has gone wrong, before anything is lost."""

from __future__ import annotations

import math
from typing import Any

from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from monai_landmark.errors import NonFiniteLossError
from monai_landmark.privacy import log_name

__all__ = ["NonFiniteLossGuard"]


class NonFiniteLossGuard:
    """Stop training on the first loss that is not finite; MONAI's trainer would go on with ruined weights.

    Args:
        id_key: key of the batch that names its films.
    """

    def __init__(self, id_key: str = "id") -> None:
        self.id_key = id_key

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: a :class:`monai.engines.SupervisedTrainer`.
        """
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Look at the loss of this step; the weights have not been touched by it yet.

        Args:
            engine: the trainer.

        Raises:
            NonFiniteLossError: naming step, films and loss.
        """
        loss = float(engine.state.output[CommonKeys.LOSS].detach())
        if math.isfinite(loss):
            return
        batch: Any = engine.state.batch
        films = [log_name(str(film)) for film in batch.get(self.id_key, [])] if isinstance(batch, dict) else []
        raise NonFiniteLossError(
            f"the loss became {loss} in step {engine.state.iteration} (films {films}); the weights on disk are from "
            "before this step. What to do: run with MONAI_LANDMARK_LOG_NAMES=1, which names the films, look at these "
            "with `inspect`, or lower the learning rate"
        )
