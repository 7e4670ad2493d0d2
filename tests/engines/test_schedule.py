"""Progress and learning rate by steps and by the clock, and how a run ends when its time is spent."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_landmark.engines import TrainingStateSaver, schedule
from monai_landmark.engines.schedule import ProgressSchedule, rate_factor
from monai_landmark.errors import ConfigurationError


class Clock:
    """A clock that stands still unless it is told how long something took."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(schedule.time, "monotonic", lambda: self.now)


class Run:
    """A trainer whose every step takes 6 s, whose batches take 1 s and whose epoch's end takes 100 s."""

    def __init__(self, clock, path, budget_minutes=None, epochs=4, stop_after=None, **options):
        network = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD([{"params": network.weight, "lr": 1.0}, {"params": network.bias, "lr": 0.1}])
        self.progress, self.rates, self.events = [], [], []

        def step(engine, batch):
            self.progress.append(engine.state.progress)
            self.rates.append([group["lr"] for group in self.optimizer.param_groups])
            clock.now += 6

        def batches():
            while True:
                clock.now += 1
                yield 0

        self.trainer = Engine(step)
        self.schedule = ProgressSchedule(self.optimizer, budget_minutes=budget_minutes, **options)
        saver = TrainingStateSaver({"optimizer": self.optimizer, "schedule": self.schedule}, path)
        saver.attach(self.trainer)
        self.schedule.attach(self.trainer)
        for event in (Events.EPOCH_COMPLETED, Events.COMPLETED):
            self.trainer.add_event_handler(
                event, lambda e, name: self.events.append((name, e.state.iteration)), event.name
            )

        @self.trainer.on(Events.EPOCH_COMPLETED)
        def validate():
            clock.now += 100
            if self.trainer.state.epoch == stop_after:
                self.trainer.terminate()

        self.trainer.run(batches(), max_epochs=epochs, epoch_length=5)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.0),
        (0.1, 0.5),
        (0.2, 1.0),
        (0.6, 0.1 + 0.9 * 0.5),
        (0.4, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        (1.0, 0.1),
    ],
)
def test_rate(progress, expected):
    assert rate_factor(progress, warmup=0.2, floor=0.1) == pytest.approx(expected)


def test_by_steps(monkeypatch, tmp_path):
    run = Run(Clock(monkeypatch), tmp_path / "c.pt", warmup=0.5, floor=0.0)
    assert run.progress == [(i + 1) / 20 for i in range(20)]
    assert run.rates[9] == [1.0, 0.1] and run.rates[0] == pytest.approx([0.1, 0.01])
    assert run.rates[-1] == pytest.approx([0.0, 0.0]) and run.rates[14] == pytest.approx([0.5, 0.05])
    assert run.events[-2:] == [("EPOCH_COMPLETED", 20), ("COMPLETED", 20)]


def test_by_steps_resumes_exactly(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    whole = Run(clock, tmp_path / "whole.pt")
    first = Run(clock, tmp_path / "stopped.pt", stop_after=2)
    assert first.progress == whole.progress[:10]
    second = Run(clock, tmp_path / "stopped.pt")
    assert second.progress == whole.progress[10:] and second.rates == whole.rates[10:]


def test_by_the_clock(monkeypatch, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "monai_landmark"):
        run = Run(Clock(monkeypatch), tmp_path / "c.pt", budget_minutes=1.0)
    # 7 s a step, the epoch's end is free: the 9th step ends at 63 s
    assert run.progress == pytest.approx([max(7 * i / 60, (i + 1) / 20) for i in range(9)])
    assert run.events == [("EPOCH_COMPLETED", 5), ("EPOCH_COMPLETED", 9), ("COMPLETED", 9)]
    assert run.schedule.seconds == 63.0 and run.trainer.state.progress == 1.0
    assert caplog.messages.count("1.1 minutes of training are over after 9 steps") == 1


def test_time_adds_up_over_resumes(monkeypatch, tmp_path):
    clock, path = Clock(monkeypatch), tmp_path / "c.pt"
    Run(clock, path, budget_minutes=1.0, epochs=1)
    second = Run(clock, path, budget_minutes=1.0)
    assert second.progress[0] == pytest.approx(35 / 60)
    assert second.trainer.state.iteration == 9 and second.schedule.seconds == 63.0
    third = Run(clock, path, budget_minutes=1.0)
    assert third.progress == [] and third.events == [("COMPLETED", 9)]
    longer = Run(clock, path, budget_minutes=1.5)
    assert longer.progress[0] == pytest.approx(63 / 90) and longer.trainer.state.iteration == 13


def test_steps_may_be_over_before_the_time(monkeypatch, tmp_path):
    run = Run(Clock(monkeypatch), tmp_path / "c.pt", budget_minutes=60.0, epochs=1, floor=0.25, warmup=0.0)
    assert run.trainer.state.iteration == 5 and run.progress[-1] == 1.0 and run.rates[-1] == [0.25, 0.025]


def test_all_processes_stop_together(monkeypatch, tmp_path):
    """One process sees 35 s after 5 steps, the slowest of the others has 61."""
    monkeypatch.setattr(schedule.idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        schedule.idist, "all_reduce", lambda value, how: {"MAX": max}[how](value, 61.0 if value > 30 else 0)
    )
    run = Run(Clock(monkeypatch), tmp_path / "c.pt", budget_minutes=1.0)
    assert run.trainer.state.iteration == 5 and run.schedule.seconds == 61.0


@pytest.mark.parametrize(
    "options", [{"warmup": 1.0}, {"floor": -0.1}, {"budget_minutes": 0.0}, {"budget_minutes": math.nan}]
)
def test_settings_that_make_no_sense(options):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ProgressSchedule(optimizer, **options)
