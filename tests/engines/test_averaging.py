"""The averaged network: what its weights must be, and that a stop changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_landmark.engines import TrainingStateSaver
from monai_landmark.engines.averaging import AverageHandler, averaged


def train(network, average, epochs, saver=None):
    """Weights that jump about, a different way in every step."""

    def step(engine, batch):
        with torch.no_grad():
            network.weight.fill_(float(engine.state.iteration) ** 2 % 7)

    trainer = Engine(step)
    if saver is not None:
        saver.attach(trainer)
    average.attach(trainer)
    momenta = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: momenta.append(e.state.ema_momentum))
    trainer.run([0] * 5, max_epochs=epochs)
    return momenta


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_weights_against_the_recurrence(decay):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 3.0)
    average = AverageHandler(network, decay)
    momenta = train(network, average, epochs=4)
    expected = 3.0
    for n in range(1, 21):
        keep = min(decay, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * (n**2 % 7)
        assert momenta[n - 1] == pytest.approx(1 - keep)
    assert float(average.ema_model.weight) == pytest.approx(expected, rel=1e-5)
    assert not average.ema_model.weight.requires_grad and not average.ema_model.training


def test_a_stopped_run_averages_as_if_it_had_not_stopped(tmp_path):
    def run(folder, *epochs):
        for until in epochs:
            torch.manual_seed(0)
            network = nn.Linear(1, 1, bias=False)
            average = AverageHandler(network)
            saver = TrainingStateSaver({"network": network, "average": average.ema_model}, folder / "checkpoint.pt")
            train(network, average, until, saver)
        return average.ema_model.weight

    whole, stopped = run(tmp_path / "whole", 4), run(tmp_path / "stopped", 1, 3, 4)
    assert torch.equal(whole, stopped)


@pytest.mark.parametrize(("handle", "expected"), [("copy", 4.0), ("update", 0.5 * 1.0 + 0.5 * 4.0)])
def test_buffers(handle, expected):
    network = nn.Linear(1, 1, bias=False)
    network.register_buffer("mean", torch.tensor(1.0))
    average = AverageHandler(network, 0.5, handle)
    trainer = Engine(lambda engine, batch: network.mean.fill_(4.0))
    average.momentum_at = lambda step: 0.5
    average.attach(trainer)
    trainer.run([0])
    assert float(average.ema_model.mean) == expected


def test_an_objective_looks_through_the_averaged_network_and_back():
    objective = nn.Module()
    objective.network, objective.head = nn.Dropout(0.5), nn.Dropout(0.5)
    own, other = objective.network, copy.deepcopy(objective.network)
    with pytest.raises(RuntimeError, match="in between"), averaged(objective, other):
        assert objective.network is other and not objective.head.training and not other.training
        raise RuntimeError("in between")
    assert objective.network is own and own.training and objective.head.training
