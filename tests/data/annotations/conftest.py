"""Annotations that every format is tried with."""

from __future__ import annotations

import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation
from monai_landmark.data.schema import LandmarkSchema

SCHEMA = LandmarkSchema(name="trio", title="Three points", landmarks=("a", "b", "c d"))
SIZES = {"one": (400, 300), "two": (123, 457)}


@pytest.fixture
def schema() -> LandmarkSchema:
    return SCHEMA


@pytest.fixture
def film_sizes() -> dict[str, tuple[int, int]]:
    return dict(SIZES)


@pytest.fixture
def complete() -> list[Annotation]:
    """Two films, every landmark seen, coordinates that have no short decimal form."""
    rng = np.random.default_rng(7)
    seen = np.full(3, 2, dtype=np.int8)
    return [
        Annotation(film, rng.uniform(0, 1, (3, 2)) * (width, height), seen, SCHEMA.landmarks)
        for film, (height, width) in SIZES.items()
    ]


@pytest.fixture
def partial(complete: list[Annotation]) -> list[Annotation]:
    """The same films with one landmark missing and one occluded, and one film with none at all."""
    points = complete[0].landmarks.copy()
    points[1] = np.nan
    nothing = np.full((3, 2), np.nan)
    return [
        Annotation("one", points, np.array([1, 0, 2], dtype=np.int8), SCHEMA.landmarks),
        Annotation("two", nothing, np.zeros(3, dtype=np.int8), SCHEMA.landmarks),
    ]
