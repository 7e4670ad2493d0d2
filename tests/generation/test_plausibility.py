"""Shapes that occur are plausible, at any place and size; shapes of no body are not."""

from __future__ import annotations

import numpy as np
import pytest

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.plausibility import shape_misfit, shape_plausibility
from monai_landmark.transforms import LandmarkShape

MEAN = np.array([[0, 0], [10, 0], [12, 20], [5, 30], [-3, 22], [4, 12]], dtype=float)


def bodies(count, seed, spread=0.5):
    """One shape, each point off by a little, placed, turned and scaled at will."""
    generator = np.random.default_rng(seed)
    films = []
    for _ in range(count):
        turn, scale = generator.uniform(-0.3, 0.3), generator.uniform(0.7, 1.4)
        matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        films.append((MEAN + spread * generator.normal(size=MEAN.shape)) @ matrix.T + generator.uniform(-50, 50, 2))
    return films


@pytest.fixture(scope="module")
def shape():
    found = LandmarkShape.fit(bodies(30, 0))
    assert found is not None
    return found


def test_new_bodies_are_plausible_and_torn_ones_are_not(shape):
    torn = bodies(20, 2)
    for film in torn[:10]:
        film[2] += 15
    found = shape_plausibility(torn, bodies(60, 1), shape)
    assert 0.4 <= found["plausible"] <= 0.5 and found["n"] == [20, 60]
    assert shape_plausibility(bodies(60, 3), bodies(60, 1), shape)["plausible"] > 0.85
    assert 0.5 < found["reference"] < 1.2 < found["drawn"]


def test_misfit_by_hand_and_of_too_few_points(shape):
    exact = LandmarkShape(shape.mean, np.full(6, 2.0))
    moved = exact.mean * 3 + 7
    assert shape_misfit(moved, exact) == pytest.approx(0, abs=1e-6)
    missing = moved.copy()
    missing[:2] = np.nan
    assert shape_misfit(missing, exact) == float("inf")


def test_nothing_to_compare(shape):
    with pytest.raises(ConfigurationError, match="nothing to compare"):
        shape_plausibility([], bodies(2, 0), shape)
