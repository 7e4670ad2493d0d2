"""The averaged network that pre-training keeps, with a warm-up that a stop does not disturb."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

__all__ = ["AverageHandler", "averaged"]


class AverageHandler(EMAHandler):
    """Exponential moving average of the weights whose memory grows with the run.

    At step n the average keeps ``min(decay, (1 + n) / (10 + n))`` of itself (the warm-up of TensorFlow's
    ``ExponentialMovingAverage``), so it spans about the last tenth of a short run and forgets the first weights soon.
    This depends on the number of the step alone: a resumed run goes on exactly. Ignite's own warm-up would count from
    its first step after the stop.

    Args:
        model: the network; the distributed wrapper is taken off.
        decay: share of itself that the average keeps at a step, in the long run.
        handle_buffers: ``"copy"`` the network's buffers, ``"update"`` (average them too) or ``"ema_train"``, as ignite.

    Attributes:
        ema_model: the averaged network, in evaluation mode.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, handle_buffers: str = "copy") -> None:
        super().__init__(model, momentum=1.0 - decay, handle_buffers=handle_buffers)

    def momentum_at(self, step: int) -> float:
        """Share of the new weights that enters the average.

        Args:
            step: number of the step, 1 for the first.

        Returns:
            9/11 at the first step, falling to ``1 - decay``.
        """
        return max(float(self.momentum), 9.0 / (10.0 + step))

    def attach(
        self,
        engine: Engine,
        name: str = "ema_momentum",
        warn_if_exists: bool = True,
        event: Any = Events.ITERATION_COMPLETED,
    ) -> None:
        """Attach to a trainer.

        Args:
            engine: the trainer.
            name: attribute of its state that shows the current momentum.
            warn_if_exists: warn where the state has that attribute already.
            event: when to update the average.
        """

        def warm_up(engine: Engine) -> None:
            """Tell ignite's handler how much of the network this step takes."""
            setattr(engine.state, name, self.momentum_at(engine.state.iteration))

        engine.add_event_handler(event, warm_up)  # before ignite's own handler, which reads the attribute
        super().attach(engine, name, warn_if_exists, event)


@contextmanager
def averaged(objective: nn.Module, network: nn.Module) -> Iterator[None]:
    """Let an objective look through another network for a while, in evaluation mode.

    Args:
        objective: has the attribute ``network``; its own network and its mode are back afterwards.
        network: the averaged network.

    Yields:
        Nothing.
    """
    own, training = objective.network, objective.training
    objective.network = network
    objective.eval()
    try:
        yield
    finally:
        objective.network = own
        objective.train(training)
