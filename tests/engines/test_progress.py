"""What a person sees: log lines without a terminal, a bar with one, and the account of the initialization."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_landmark.engines import ProgressHandler, TransferReportHandler, loss_of, lower_is_better
from monai_landmark.networks import TransferReport


def run(losses, epochs, start=0):
    batches = iter(losses)

    def step(engine, batch):
        return {"image": torch.zeros(4, 1, 2, 2), "loss": torch.tensor(next(batches), requires_grad=True)}

    trainer = Engine(step)
    if start:

        @trainer.on(Events.STARTED)
        def resume(engine):
            engine.state.epoch, engine.state.iteration = start, start * engine.state.epoch_length

    ProgressHandler(smoothing=0.5).attach(trainer)
    trainer.run([0, 0], max_epochs=epochs)


def test_one_line_an_epoch_without_a_terminal(caplog):
    with caplog.at_level(logging.INFO, "monai_landmark"):
        run([4.0, 2.0, 2.0, 1.0], epochs=2)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("monai_landmark")]
    assert len(lines) == 2
    assert lines[0].startswith("step 2 of 4: loss 3.0000, ")
    assert lines[1].startswith("step 4 of 4: loss 1.7500, ") and lines[1].endswith("0 min 00 s left")


def test_a_resumed_run_counts_on(caplog):
    with caplog.at_level(logging.INFO, "monai_landmark"):
        run([4.0, 2.0], epochs=3, start=2)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("monai_landmark")]
    assert len(lines) == 1 and lines[0].startswith("step 6 of 6")


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run([4.0, 2.0], epochs=1)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "loss 3.0000" in shown and "films/s" in shown


@pytest.mark.parametrize("loaded", [True, False])
def test_the_account_of_the_initialization_is_logged(caplog, loaded):
    network = nn.Linear(1, 1)
    if loaded:
        network.transfer_report = TransferReport(("weight",), ("bias",), (), "encoder.pt")
    trainer = Engine(lambda engine, batch: None)
    TransferReportHandler(network).attach(trainer)
    with caplog.at_level(logging.INFO, "monai_landmark"):
        trainer.run([0])
    expected = "encoder.pt: 1 tensors loaded, 1 re-initialized" if loaded else "no weights were loaded"
    assert expected in caplog.text


def test_small_functions():
    assert loss_of({"loss": torch.tensor(2.5, requires_grad=True)}) == 2.5
    assert lower_is_better(1.0, 2.0) and not lower_is_better(2.0, 1.0) and not lower_is_better(float("nan"), 2.0)


def test_a_run_by_the_clock_says_about_how_many_steps_there_will_be(caplog):
    """No one knows the number of steps: after two of them a quarter of the time is gone."""
    trainer = Engine(lambda engine, batch: {"image": torch.zeros(1, 1, 2, 2), "loss": torch.tensor(1.0)})

    @trainer.on(Events.ITERATION_STARTED)
    def progress(engine):
        engine.state.progress = engine.state.iteration / 8

    ProgressHandler().attach(trainer)
    with caplog.at_level(logging.INFO, "monai_landmark"):
        trainer.run([0, 0], max_epochs=1)
    assert "step 2 of 8: " in caplog.text
