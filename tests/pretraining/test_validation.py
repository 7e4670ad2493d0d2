"""Validation loss by bucket of timesteps: the right numbers, the same films and noise every time, a lasting record."""

from __future__ import annotations

import copy
import json
import logging

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_landmark.errors import DataError
from monai_landmark.networks import DiffusionUNet
from monai_landmark.pretraining.ddpm import ConditionalObjective, DDPMObjective
from monai_landmark.pretraining.flow import FlowObjective
from monai_landmark.pretraining.samples import keyed_noise
from monai_landmark.pretraining.validation import DenoisingValidator, History


def films(count=5):
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, 8, 8, generator=generator) * 2 - 1, "source": i % 2 + 1} for i in range(count)]


def conv():
    torch.manual_seed(0)
    return nn.Conv2d(1, 1, 3, padding=1)


class Writer:
    def __init__(self):
        self.scalars = {}

    def add_scalar(self, tag, value, step):
        self.scalars[tag, step] = value


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_against_a_plain_computation(kind, tmp_path):
    network = conv()
    flow = kind == "flow"
    objective = FlowObjective(network, 100) if flow else DDPMObjective(network, 100, prediction=kind)
    validator = DenoisingValidator(objective, network, films(), tmp_path / "v.json", buckets=4, batch_size=2, seed=3)
    assert validator.buckets == [(0, 24), (25, 49), (50, 74), (75, 99)]
    kept_of = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64), 0)
    noise = keyed_noise(3, 5, (1, 8, 8))
    for bucket, loss in enumerate(validator.losses()):
        low, high = validator.buckets[bucket]
        errors = []
        for index, item in enumerate(films()):
            t = int(validator.timesteps[index, bucket])
            assert low <= t <= high
            x, e = item["image"].double(), noise[index].double()
            a, b = (1 - t / 100, t / 100) if flow else (float(kept_of[t]) ** 0.5, (1 - float(kept_of[t])) ** 0.5)
            target = {"epsilon": e, "v_prediction": a * e - b * x, "flow": x - e}[kind]
            with torch.no_grad():
                answer = network.double()((a * x + b * e)[None])[0]
            errors.append(float((answer - target).square().mean()))
        network.float()
        assert float(loss) == pytest.approx(sum(errors) / 5, rel=1e-5)


def test_every_timestep_has_its_bucket(tmp_path):
    objective = DDPMObjective(conv(), 500)
    validator = DenoisingValidator(objective, objective.network, films(), tmp_path / "v.json", buckets=7)
    covered = [t for low, high in validator.buckets for t in range(low, high + 1)]
    assert covered == list(range(500))


def test_films_and_noise_are_the_same_every_time_in_batches_of_any_size(tmp_path):
    objective = DDPMObjective(conv(), 100)

    def make(size, seed):
        options = {"buckets": 3, "batch_size": size, "seed": seed}
        return DenoisingValidator(objective, objective.network, films(), tmp_path / "v.json", **options)

    torch.manual_seed(1)
    first = make(2, 0).losses()
    torch.manual_seed(2)
    assert torch.equal(first, make(2, 0).losses())
    assert torch.allclose(first, make(5, 0).losses(), rtol=1e-6)
    assert not torch.allclose(first, make(2, 1).losses(), rtol=1e-3)


def test_the_averaged_network_is_validated_and_the_source_told(tmp_path):
    options = {"channels": (8, 8), "norm_num_groups": 4, "num_res_blocks": 1, "attention_levels": (False, False)}
    objective = ConditionalObjective(DiffusionUNet(**options, num_class_embeds=3), timesteps=50)
    torch.manual_seed(0)
    for weight in objective.network.parameters():  # also those that start at zero
        nn.init.normal_(weight, std=0.1)
    average = copy.deepcopy(objective.network).eval()
    with torch.no_grad():
        for weight in objective.network.parameters():
            weight.fill_(float("nan"))
    told = DenoisingValidator(objective, average, films(), tmp_path / "v.json").losses()
    untold = [{"image": item["image"]} for item in films()]
    null = DenoisingValidator(objective, average, untold, tmp_path / "v.json").losses()
    assert told.isfinite().all() and null.isfinite().all() and not torch.allclose(told, null)
    assert objective.training and objective.network is not average


def run(validator, epochs, start=0):
    trainer = Engine(lambda engine, batch: None)
    if start:

        @trainer.on(Events.STARTED)
        def resume(engine):
            engine.state.epoch, engine.state.iteration = start, 2 * start

    validator.attach(trainer)
    trainer.run([0, 0], max_epochs=epochs)


def test_log_record_and_curves(tmp_path, caplog):
    objective, writer = DDPMObjective(conv(), 10), Writer()
    path = tmp_path / "out" / "validation.json"
    validator = DenoisingValidator(
        objective, objective.network, films(), path, every_epochs=2, buckets=2, seed=5, writer=writer
    )
    with caplog.at_level(logging.INFO, "monai_landmark"):
        run(validator, epochs=3)
    saved = json.loads(path.read_text())
    losses = [round(float(loss), 6) for loss in validator.losses()]
    mean = pytest.approx(sum(losses) / 2, abs=1e-6)
    assert (saved["films"], saved["timesteps"], saved["seed"]) == (5, [[0, 4], [5, 9]], 5)
    assert [(r["step"], r["epoch"], r["by_timestep"], r["loss"]) for r in saved["history"]] == [
        (4, 2, losses, mean),
        (6, 3, losses, mean),
    ]
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("validation on 5 films: ") and f"{losses[1]:.4f} (t 5-9)" in caplog.messages[0]
    assert writer.scalars["validation/t_5_9", 6] == losses[1] and writer.scalars["validation/loss", 4] == mean


def test_a_resumed_run_continues_the_record_and_a_new_one_does_not(tmp_path):
    objective, path = DDPMObjective(conv(), 10), tmp_path / "validation.json"
    make = lambda: DenoisingValidator(objective, objective.network, films(2), path)  # noqa: E731
    steps = lambda: [record["step"] for record in json.loads(path.read_text())["history"]]  # noqa: E731
    run(make(), epochs=3)
    assert steps() == [2, 4, 6]
    run(make(), epochs=4, start=2)  # the checkpoint was of the second epoch: the third is trained again
    assert steps() == [2, 4, 6, 8]
    run(make(), epochs=1)
    assert steps() == [2]


def test_a_new_run_never_takes_up_an_old_record(tmp_path):
    """Not even when it has come to the steps of the old one before it validates for the first time."""
    objective, path = DDPMObjective(conv(), 10), tmp_path / "validation.json"
    run(DenoisingValidator(objective, objective.network, films(2), path), epochs=2)
    run(DenoisingValidator(objective, objective.network, films(2), path, every_epochs=3), epochs=3)
    assert [record["step"] for record in json.loads(path.read_text())["history"]] == [6]
    path.write_text("{")  # of whatever was there before
    run(DenoisingValidator(objective, objective.network, films(2), path), epochs=1)
    assert [record["step"] for record in json.loads(path.read_text())["history"]] == [2]


@pytest.mark.parametrize("content", ["{", "[]", '{"history": [{"loss": 1}]}', '{"other": []}'])
def test_a_record_that_is_none(tmp_path, content):
    path = tmp_path / "validation.json"
    path.write_text(content)
    history = History(path)
    trainer = Engine(lambda engine, batch: None)
    trainer.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "iteration", 1))
    history.attach(trainer)
    with pytest.raises(DataError, match=r"validation\.json: not the record of an earlier run.*move it away"):
        trainer.run([0, 0])
    assert path.read_text() == content
