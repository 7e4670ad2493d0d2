"""Films and operations a second: the numbers are right, and measuring them changes nothing."""

from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from monai_landmark.engines import PrecisionInferer, image_and, throughput
from monai_landmark.engines.throughput import ThroughputHandler, matrix_rate, step_flops


def trainer_of(network, batches, handlers=(), epochs=1, loss=None, rate=0.1):
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), rate, momentum=0.9),
        loss_function=loss or nn.MSELoss(),
        prepare_batch=image_and("target"),
        inferer=PrecisionInferer(dtype="float32"),
        train_handlers=list(handlers),
        decollate=False,
    )


def batches(count=3, films=2, channels=3):
    generator = torch.Generator().manual_seed(1)
    draw = lambda c: torch.rand(films, c, 8, 8, generator=generator)  # noqa: E731
    return [{"image": draw(channels), "target": draw(4)} for _ in range(count)]


def test_operations_against_the_formula():
    """A convolution: 2 x outputs x inputs of each; forward, for its weights, and for its input where asked."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 1))
    films, pixels = 2, 64
    first, second = 2 * films * pixels * 5 * 3 * 9, 2 * films * pixels * 4 * 5
    engine = trainer_of(network, batches(films=films))
    assert step_flops(engine, batches(films=films)[0]) == first * 2 + second * 3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image):
        tokens = self.scale * image.flatten(2)
        return functional.scaled_dot_product_attention(tokens, tokens, tokens).view_as(image)


def test_attention_is_counted():
    """Two products forward, two more for each of them backward; tokens are the 4 channels of 64 pixels."""
    engine = trainer_of(Attention(), batches(channels=4))
    assert step_flops(engine, batches(channels=4)[0]) == 6 * 2 * 2 * 4 * 4 * 64


class Delicate(nn.Module):
    """Everything that a careless measurement would disturb."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        last = nn.utils.weight_norm(nn.Conv2d(6, 4, 1))  # which leaves a tensor of every step's graph behind
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout(0.3), last)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image):
        self.calls += 1
        return checkpoint(self.body, image + 0.1 * torch.randn_like(image), use_reentrant=False)


def test_a_measured_run_is_bit_identical():
    def run(*handlers):
        network, losses = Delicate(), []
        torch.manual_seed(5)
        engine = trainer_of(network, batches(), handlers, epochs=2)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item()))
        engine.run()
        return losses, network.state_dict(), torch.get_rng_state()

    handler = ThroughputHandler()
    (losses, weights, generator), (losses2, weights2, generator2) = run(), run(handler)
    assert handler.film_flops > 0 and losses == losses2 and torch.equal(generator, generator2)
    assert weights["calls"] == 6 and all(torch.equal(weights[name], weights2[name]) for name in weights)


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: self.now)


def test_rates_count_steps_only(monkeypatch, caplog):
    clock, handler = Clock(monkeypatch), ThroughputHandler()
    network = nn.Conv2d(3, 4, 1)
    engine = trainer_of(network, batches(), [handler], epochs=2)
    engine.add_event_handler(Events.ITERATION_STARTED, lambda _: setattr(clock, "now", clock.now + 2))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: setattr(clock, "now", clock.now + 1000))
    with caplog.at_level(logging.INFO, "monai_landmark"):
        engine.run()
    per_film = 2 * 2 * 64 * 4 * 3  # forward and for the weights
    assert handler.film_flops == per_film
    assert (handler.films, handler.seconds) == (10, 10.0)  # six steps of two films but the first
    assert handler.films_per_second == 1.0 and handler.flops_per_second == per_film
    assert caplog.messages == ["0.00 GFLOP per film, forward and backward", "1.00 films/s, 0.0 GFLOP/s over 10 films"]


class Grows(nn.Module):
    """An objective whose last part costs three times as much."""

    def __init__(self):
        super().__init__()
        self.layer, self.step = nn.Conv2d(3, 4, 1), 0

    def forward(self, image):
        terms = {"loss": self.layer(image).mean()}
        if self.step > 3:
            terms["extra"] = self.layer(image).mean() + self.layer(image).mean()
            terms["loss"] = terms["loss"] + terms["extra"]
        return terms


def test_a_costlier_part_is_counted_again():
    class Inferer:
        def __call__(self, inputs, network):
            return network(inputs)

    handler, seen, network = ThroughputHandler(), [], Grows()
    engine = trainer_of(network, batches(5), [handler], loss=lambda terms, target: terms["loss"])
    engine.inferer = Inferer()
    engine.add_event_handler(Events.ITERATION_STARTED, lambda e: setattr(network, "step", e.state.iteration))
    engine.add_event_handler(Events.GET_BATCH_STARTED, lambda _: seen.append(handler.film_flops))
    engine.run()
    once = seen[1]
    assert seen == [0, once, once, once, 3 * once] and handler.film_flops == 3 * once
    assert handler.flops == 2 * (once + once + 3 * once)  # the step that first costs more is left out, like the first


def test_wrappers_are_taken_off():
    class Wrapper(nn.Module):
        def __init__(self, module, name):
            super().__init__()
            setattr(self, name, module)

    plain = nn.Linear(1, 1)
    for names in (("module",), ("_orig_mod",), ("module", "_orig_mod"), ("_orig_mod", "module")):
        wrapped = plain
        for name in names:
            wrapped = Wrapper(wrapped, name)
        assert throughput._plain(wrapped) is plain


def test_matrix_rate(monkeypatch):
    """A device that takes 0.01 s for every product of 64 x 64 matrices."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(throughput.torch, "mm", lambda left, right: setattr(clock, "now", clock.now + 0.01))
    assert matrix_rate("cpu", torch.float32, size=64, seconds=0.5) == pytest.approx(2 * 64**3 / 0.01)
