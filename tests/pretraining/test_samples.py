"""Samples and denoising strips: right films, right noise, the averaged network, and a training left undisturbed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import DiffusionUNet
from monai_landmark.pretraining.ddpm import ConditionalObjective, DDPMObjective
from monai_landmark.pretraining.flow import FlowObjective
from monai_landmark.pretraining.samples import (
    GuidedNetwork,
    SampleHandler,
    contact_sheet,
    keyed_noise,
    stack_films,
    write_picture,
)


def film(height=24, width=16, seed=0):
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return {"image": (0.9 * torch.sin(3 * rows + seed) * torch.cos(2 * columns))[None], "source": seed % 2 + 1}


def tiny_network(sources=None):
    torch.manual_seed(0)
    options = {"channels": (8, 8), "norm_num_groups": 4, "num_res_blocks": 1, "attention_levels": (False, False)}
    return DiffusionUNet(**options, **({"num_class_embeds": sources} if sources else {}))


class TestStackFilms:
    def test_films_and_sources(self):
        films, sources = stack_films([film(seed=0), film(seed=1), film(seed=2)], 2)
        assert films.shape == (2, 1, 24, 16) and films.dtype == torch.float32 and sources.tolist() == [1, 2]
        assert torch.equal(films[1], film(seed=1)["image"])
        films, sources = stack_films([{"image": np.zeros((1, 4, 4))}], 5)
        assert len(films) == 1 and sources is None

    def test_none(self):
        with pytest.raises(ConfigurationError, match="no film held out"):
            stack_films([])


def test_noise_is_keyed():
    before = torch.get_rng_state()
    noise = keyed_noise(3, 40, (1, 10, 10))
    assert torch.equal(noise, keyed_noise(3, 40, (1, 10, 10))) and torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noise[:4], keyed_noise(3, 4, (1, 10, 10)))
    assert not torch.equal(noise, keyed_noise(4, 40, (1, 10, 10)))
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05
    flat = noise.flatten(1)
    assert (flat @ flat.T / 100 - torch.eye(40)).fill_diagonal_(0).abs().max() < 0.5  # films are independent


class TestGuidance:
    class Stub:
        def predict(self, noisy, timesteps, source=None):
            return noisy + timesteps.view(-1, 1, 1, 1) + (0 if source is None else 10.0 * source.view(-1, 1, 1, 1))

    @pytest.mark.parametrize(("guidance", "expected"), [(1.0, [15.0, 25.0]), (0.0, [5.0, 5.0]), (3.0, [35.0, 65.0])])
    def test_null_plus_guidance_times_the_difference(self, guidance, expected):
        network = GuidedNetwork(self.Stub(), torch.tensor([1, 2]), guidance)
        assert network(torch.zeros(2, 1, 1, 1), torch.tensor([5.0]))[:, 0, 0, 0].tolist() == expected

    def test_without_a_source(self):
        network = GuidedNetwork(self.Stub(), None, 3.0)
        assert network(torch.zeros(2, 1, 1, 1), torch.tensor([5.0]))[:, 0, 0, 0].tolist() == [5.0, 5.0]


def test_contact_sheet():
    films = torch.stack([torch.full((1, 56, 28), value) for value in (-1.0, 0.0, 1.0, 7.0, -7.0)])
    films[1, 0, 0, 0] = 1.0  # the top-left pixel of the second film
    sheet = contact_sheet(films, ["a", "b", "c", "d", ""], columns=3)
    tall, wide = 224, 112
    assert sheet.shape == (2 * (tall + 22), 3 * (wide + 4)) and sheet.dtype == np.uint8

    def tile(row, column):
        top, left = row * (tall + 22) + 2, column * (wide + 4) + 2
        return sheet[top : top + tall, left : left + wide], sheet[top + tall : top + tall + 18, left : left + wide]

    for place, gray in (((0, 0), 0), ((0, 2), 255), ((1, 0), 255), ((1, 1), 0)):
        assert (tile(*place)[0] == gray).all()
    second = tile(0, 1)[0]
    assert (second[:4, :4] == 255).all() and (second[4:] == 128).all() and (second[:, 4:] == 128).all()
    assert tile(0, 0)[1].max() > 200 and tile(1, 1)[1].max() == 24  # a caption, and an empty one
    assert max(contact_sheet(torch.zeros(1, 1, 900, 450), [""], 1).shape) == 224 + 22


def test_picture_file(tmp_path):
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_picture(tmp_path / "new" / "a.png", picture)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert np.array_equal(np.asarray(image), picture) and not image.info


class OracleDDPM(DDPMObjective):
    """Knows the one film there is, and so the noise in whatever it is shown."""

    def predict(self, noisy, timesteps, source=None):
        kept = self.scheduler.alphas_cumprod[timesteps.long()].view(-1, 1, 1, 1)
        return (noisy - kept.sqrt() * self.film) / (1 - kept).sqrt()


class OracleFlow(FlowObjective):
    def predict(self, noisy, timesteps, source=None):
        return (self.film - noisy) / (timesteps / self.timesteps).view(-1, 1, 1, 1)


def oracle(kind):
    objective = (OracleDDPM if kind == "ddpm" else OracleFlow)(nn.Conv2d(1, 1, 1), timesteps=100)
    objective.film = film()["image"]
    return objective


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_a_network_that_knows_its_film_samples_it(kind, tmp_path):
    objective = oracle(kind)
    handler = SampleHandler(objective, objective.network, [film()], tmp_path, count=3, steps=20)
    samples = handler.draw()
    assert samples.shape == (3, 1, 24, 16)
    assert (samples - objective.film).abs().max() < 1e-3


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_denoising_strip(kind, tmp_path):
    objective = oracle(kind)
    levels = (0.2, 0.7)
    handler = SampleHandler(objective, objective.network, [film(), film(seed=1)], tmp_path, noise_levels=levels, seed=4)
    strip, captions = handler.denoising_strip()
    assert captions == ["film", "noisy, t = 20", "noisy, t = 69", "film", "denoised, t = 20", "denoised, t = 69"] * 2
    strip = strip.view(2, 2, 3, 1, 24, 16)  # film, noisy or clean, level
    noise = keyed_noise(4, 2, (1, 24, 16))
    betas = torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)
    for index in range(2):
        own = film(seed=index)["image"]
        assert torch.equal(strip[index, 0, 0], own) and torch.equal(strip[index, 1, 0], own)
        for column, t in ((1, 20), (2, 69)):
            kept = float(torch.cumprod(1 - betas, 0)[t])
            share = (kept**0.5, (1 - kept) ** 0.5) if kind == "ddpm" else (1 - t / 100, t / 100)
            assert torch.allclose(strip[index, 0, column], share[0] * own + share[1] * noise[index], atol=1e-5)
            assert torch.allclose(strip[index, 1, column], objective.film, atol=1e-4)


class Writer:
    def __init__(self):
        self.images = []

    def add_image(self, tag, picture, step, dataformats):
        self.images.append((tag, step, picture.shape, dataformats))


def train(objective, average, *handlers, epochs=3):
    """A little real training, and what is left of it."""
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    losses = []

    def step(engine, batch):
        objective.train()
        optimizer.zero_grad()
        loss = objective(torch.stack([film()["image"], film(seed=1)["image"]]), torch.tensor([1, 2]))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    trainer = Engine(step)
    for handler in handlers:
        handler.attach(trainer)
    torch.manual_seed(9)
    trainer.run([0, 0], max_epochs=epochs)
    return losses, copy.deepcopy(objective.state_dict()), torch.get_rng_state()


def test_when_what_and_that_the_training_goes_on_as_without(tmp_path):
    def made():
        objective = ConditionalObjective(tiny_network(sources=3), timesteps=50)
        return objective, copy.deepcopy(objective.network).eval()

    plain = train(*made())
    objective, average = made()
    writer = Writer()
    handler = SampleHandler(
        objective, average, [film(), film(seed=1)], tmp_path, every_epochs=2, count=5, steps=4, writer=writer
    )
    watched = train(objective, average, handler)
    assert plain[0] == watched[0] and torch.equal(plain[2], watched[2])
    assert all(torch.equal(plain[1][name], watched[1][name]) for name in plain[1])
    names = [f"step_{step:07d}_{name}.png" for step in (4, 6) for name in ("denoised", "samples")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [image[:2] for image in writer.images] == [(n, s) for s in (4, 6) for n in ("samples", "denoised")]
    # the averaged network did not change in this training, so neither do the sheets: they start from the same noise
    for name in ("samples", "denoised"):
        first, last = ((tmp_path / f"step_{step:07d}_{name}.png").read_bytes() for step in (4, 6))
        assert first == last


def test_the_averaged_network_is_drawn_from(tmp_path):
    objective = DDPMObjective(tiny_network(), timesteps=50)
    average = copy.deepcopy(objective.network).eval()
    with torch.no_grad():
        for weight in objective.network.parameters():
            weight.fill_(float("nan"))
    handler = SampleHandler(objective, average, [film()], tmp_path, count=2, steps=3)
    assert handler.draw().isfinite().all() and handler.denoising_strip()[0].isfinite().all()


def test_sources_in_turn(tmp_path, monkeypatch):
    objective = ConditionalObjective(tiny_network(sources=3), timesteps=50)
    asked = []
    real = objective.predict
    monkeypatch.setattr(objective, "predict", lambda x, t, source=None: asked.append(source) or real(x, t, source))
    handler = SampleHandler(objective, objective.network, [film(), film(seed=1)], tmp_path, count=5, steps=1)
    handler.draw()
    assert asked[0].tolist() == [1, 2, 1, 2, 1] and asked[1] is None
    asked.clear()
    handler.denoising_strip()
    assert [source.tolist() for source in asked] == [[1, 2]] * 5


def test_samples_are_drawn_once_a_step(tmp_path, monkeypatch):
    objective = oracle("ddpm")
    handler = SampleHandler(objective, objective.network, [film()], tmp_path, count=2, steps=2)
    engine = Engine(lambda engine, batch: None)
    drawn = []
    real = handler.draw
    monkeypatch.setattr(handler, "draw", lambda: drawn.append(1) or real())
    engine.state.iteration = 7
    assert handler.latest(engine) is handler.latest(engine) and len(drawn) == 1
    engine.state.iteration = 8
    handler.latest(engine)
    assert len(drawn) == 2
