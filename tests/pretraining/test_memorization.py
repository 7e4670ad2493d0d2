"""Copies of training films are found, new films are not; made-by-code films of smooth structure."""

from __future__ import annotations

import json
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from scipy.ndimage import rotate
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.pretraining.memorization import MemorizationHandler, film_structure, nearest_films
from monai_landmark.privacy import log_name

SIZE = (96, 80)


def draw_films(count, seed):
    """Smooth random structure in one common outline, as films of one kind have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 20, 16, generator=generator)
    detail = functional.interpolate(coarse, size=SIZE, mode="bicubic")
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, SIZE[0]), torch.linspace(-1, 1, SIZE[1]), indexing="ij")
    outline = 1 - (rows**2 + columns**2)
    return (0.5 * outline + 0.25 * detail).clamp(-1, 1)


def copies(films, seed=5):
    """What a network that learned by heart would give: turned, scaled and shifted a little, paler, blurred, noisy."""
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZE
    matrices = []
    for _ in films:
        angle, scale, x, y = (
            (torch.rand(4, generator=generator) * 2 - 1) * torch.tensor([3.0, 0.02, 0.08, 0.08])
        ).tolist()
        cos, sin = ((1 + scale) * f(math.radians(angle)) for f in (math.cos, math.sin))
        matrices.append([[cos, -sin * height / width, x], [sin * width / height, cos, y]])
    grid = functional.affine_grid(torch.tensor(matrices), list(films.shape), align_corners=False)
    moved = functional.grid_sample(films, grid, padding_mode="border", align_corners=False)
    blurred = functional.avg_pool2d(moved, 3, 1, 1)
    return 0.6 * blurred + 0.1 + 0.03 * torch.randn(films.shape, generator=generator)


def items(films, name="film"):
    return [{"image": film, "id": f"{name}{index}"} for index, film in enumerate(films)]


class TestStructure:
    def test_shape_and_norm(self):
        structure = film_structure(draw_films(3, 0))
        assert structure.shape == (3, 64, 53) and structure.dtype == torch.float32
        assert torch.allclose(structure.flatten(1).norm(dim=1), torch.ones(3), atol=1e-5)
        assert structure.mean((1, 2)).abs().max() < 1e-6

    def test_brightness_contrast_and_resolution_do_not_matter(self):
        films = draw_films(3, 0)
        structure = film_structure(films)
        large = functional.interpolate(films, scale_factor=2, mode="nearest")
        for other in (0.3 * films - 0.4, large):
            assert ((film_structure(other) * structure).sum((1, 2)) > 0.99).all()

    def test_a_film_without_structure(self):
        assert film_structure(torch.full((1, 1, 64, 64), 0.3)).abs().max() == 0
        similarity, _ = nearest_films(torch.zeros(1, 1, *SIZE), film_structure(draw_films(4, 0)))
        assert float(similarity) == 0


class TestNearest:
    def test_a_film_is_nearest_to_itself(self):
        films = draw_films(6, 0)
        similarity, nearest = nearest_films(films, film_structure(films))
        assert nearest.tolist() == list(range(6)) and torch.allclose(similarity, torch.ones(6), atol=1e-4)

    def test_against_plain_correlation(self):
        """A shifted film, compared by hand at that very shift."""
        films = draw_films(2, 0)
        structure = film_structure(films)
        pool = torch.roll(structure[:1], (3, -2), dims=(1, 2))
        similarity, _ = nearest_films(films[:1], pool)
        assert float(similarity) == pytest.approx(1.0, abs=1e-4)
        far = torch.roll(structure[:1], (9, 0), dims=(1, 2))  # beyond the shifts tried
        assert float(nearest_films(films[:1], far)[0]) < 0.8

    @pytest.mark.parametrize("degrees", [-3, 3])
    def test_a_turned_film(self, degrees):
        films = draw_films(1, 0)
        turned = rotate(films.numpy(), degrees, axes=(2, 3), reshape=False, order=1, mode="nearest")
        similarity, _ = nearest_films(torch.from_numpy(turned), film_structure(films))
        assert float(similarity) > 0.95

    def test_copies_stand_out(self):
        training = draw_films(40, 0)
        structures = film_structure(training)
        copied, nearest = nearest_films(copies(training), structures)
        new, _ = nearest_films(draw_films(40, 1), structures)
        assert nearest.tolist() == list(range(40))
        assert (copied > float(np.percentile(new, 99))).float().mean() > 0.9


class Samples(SimpleNamespace):
    """Stands for the sampler: gives what the test says."""

    def latest(self, engine):
        return self.given[engine.state.iteration]


class Writer:
    def __init__(self):
        self.seen = []

    def add_scalar(self, tag, value, step):
        self.seen.append((tag, step, value))

    def add_image(self, tag, picture, step, dataformats):
        self.seen.append((tag, step, picture.ndim))


def test_handler(tmp_path, caplog):
    training, held_out = draw_films(30, 0), draw_films(30, 1)
    new, copied = draw_films(4, 2), copies(training[:2])
    given = {2: new, 4: torch.cat([new[:2], copied]), 6: torch.cat([new[:2], copied])}
    samples = Samples(films=torch.zeros(1, 1, *SIZE), folder=tmp_path, every_epochs=1, given=given)
    writer = Writer()
    large = functional.interpolate(training, scale_factor=2, mode="bilinear")  # as it is cached for training
    handler = MemorizationHandler(samples, items(large), items(held_out), tmp_path / "memorization.json", writer)
    trainer = Engine(lambda engine, batch: None)
    handler.attach(trainer)
    with caplog.at_level(logging.INFO, "monai_landmark"):
        trainer.run([0, 0], max_epochs=3)
    saved = json.loads((tmp_path / "memorization.json").read_text())
    assert (saved["training"], saved["held_out"]) == (30, 30) and 0 < saved["usual"] < saved["threshold"] < 0.95
    assert [(record["step"], record["share"]) for record in saved["history"]] == [(2, 0.0), (4, 0.5), (6, 0.5)]
    assert saved["history"][1]["nearest"][2:] == [log_name("film0"), log_name("film1")]
    assert min(saved["history"][1]["similarity"][2:]) > saved["threshold"] > max(saved["history"][1]["similarity"][:2])
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert "2 of 4 samples" in caplog.messages[1] and "by heart" in caplog.messages[1]
    assert [entry for entry in writer.seen if entry[1] == 4] == [("nearest", 4, 2), ("memorization/share", 4, 0.5)]
    with Image.open(tmp_path / "step_0000004_nearest.png") as picture:  # four pairs, two in a row
        assert picture.size == (4 * (round(224 * 80 / 96) + 4), 2 * (224 + 22))


def test_the_threshold_is_that_of_the_held_out_films(tmp_path):
    training, held_out = draw_films(20, 0), draw_films(25, 1)
    samples = Samples(films=torch.zeros(1, 1, *SIZE), folder=tmp_path, every_epochs=1)
    handler = MemorizationHandler(samples, items(training), items(held_out), tmp_path / "m.json")
    handler._prepare(Engine(lambda engine, batch: None))
    expected, _ = nearest_films(held_out, film_structure(training))
    assert handler.threshold == pytest.approx(float(np.percentile(expected, 99)), abs=1e-5)
    assert handler.usual == pytest.approx(float(np.sort(expected)[12]), abs=1e-5)


@pytest.mark.parametrize("wrong", ["empty", "proportions"])
def test_what_cannot_be_compared(tmp_path, wrong):
    samples = Samples(films=torch.zeros(1, 1, *SIZE), folder=tmp_path, every_epochs=1)
    films = [] if wrong == "empty" else items(torch.zeros(1, 1, 96, 96))
    handler = MemorizationHandler(samples, films, items(draw_films(2, 1)), tmp_path / "m.json")
    with pytest.raises(ConfigurationError, match="nothing to compare" if wrong == "empty" else "proportions"):
        handler._prepare(Engine(lambda engine, batch: None))
