"""The objective is told its progress before every step, finishes it afterwards, and its terms are seen."""

from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardStatsHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from monai_landmark.engines.schedule import ProgressSchedule
from monai_landmark.pretraining.handlers import ObjectiveHandler, scalars_of
from monai_landmark.pretraining.objective import Objective


class Counting(Objective):
    """Returns the number of its step, and from the third step on a term of its own."""

    def __init__(self):
        super().__init__(nn.Linear(1, 1))
        self.steps, self.calls = 0, []

    def forward(self, image, source=None):
        self.calls.append(("forward", self.progress))
        self.steps += 1
        terms = {"loss": torch.tensor(float(self.steps), requires_grad=True), "map": torch.zeros(2, 2)}
        return terms | ({"late": torch.tensor(10.0 * self.steps)} if self.steps >= 3 else {})

    def step_completed(self):
        self.calls.append(("completed", self.progress))


def run(objective, *handlers, epochs=2):
    trainer = Engine(lambda engine, batch: {"pred": objective(torch.zeros(1, 1, 2, 2))})
    for handler in handlers:
        handler.attach(trainer)
    trainer.run([0, 0], max_epochs=epochs)
    return trainer


def test_progress_by_steps_and_order_of_calls():
    objective = Counting()
    run(objective, ObjectiveHandler(objective))
    assert objective.calls == [(name, share) for share in (0.25, 0.5, 0.75, 1.0) for name in ("forward", "completed")]


@pytest.mark.parametrize("first", [True, False])
def test_the_schedule_sets_the_progress_wherever_it_stands(first):
    objective = Counting()
    schedule = ProgressSchedule(torch.optim.SGD(objective.network.parameters(), 0.1), budget_minutes=1e9)
    schedule._share_done = lambda engine: 0.01 * engine.state.iteration
    handlers = [schedule, ObjectiveHandler(objective)]
    run(objective, *(handlers if first else handlers[::-1]))
    assert [share for name, share in objective.calls if name == "forward"] == [0.01, 0.02, 0.03, 0.04]


def test_a_second_run_of_the_trainer_tells_once():
    objective = Counting()
    handler = ObjectiveHandler(objective)
    trainer = run(objective, handler, epochs=1)
    seen = []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda _: seen.append(objective.progress))
    trainer.run([0, 0], max_epochs=1)
    assert trainer.has_event_handler(handler._step_starts) and seen == [0.5, 1.0]
    assert len(trainer._event_handlers[Events.ITERATION_STARTED]) == 2


def test_means_of_an_epoch(caplog):
    objective = Counting()
    with caplog.at_level(logging.INFO, "monai_landmark"):
        run(objective, ObjectiveHandler(objective))
    assert caplog.messages == ["epoch 1: loss 1.5", "epoch 2: loss 3.5, late 35"]
    caplog.clear()
    objective = Counting()
    objective.steps = 1  # now the term comes in the second step of the first epoch
    with caplog.at_level(logging.INFO, "monai_landmark"):
        run(objective, ObjectiveHandler(objective), epochs=1)
    assert caplog.messages == ["epoch 1: loss 2.5, late 30"]


def test_the_distributed_wrapper_is_taken_off():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    objective = Counting()
    assert ObjectiveHandler(Wrapper(objective)).objective is objective
    assert ObjectiveHandler(objective).objective is objective


def test_monai_plots_every_term(tmp_path):
    objective = Counting()
    with SummaryWriter(str(tmp_path)) as writer:
        run(objective, TensorBoardStatsHandler(writer, output_transform=scalars_of))
    events = EventAccumulator(str(tmp_path)).Reload()
    shown = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert shown == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)], "late": [(3, 30.0), (4, 40.0)]}
