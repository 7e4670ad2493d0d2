"""Temperatures against an independent minimizer, and the calibration error against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from monai_landmark.errors import ConfigurationError
from monai_landmark.uncertainty import PEAK_BINS, expected_calibration_error, fit_temperatures

SIZE = (15, 12)


def drawn_films(truth: tuple[float, ...], films: int, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Logits, and reference pixels drawn from soft-max(logits / truth): the temperature to be found is known."""
    random = np.random.default_rng(seed)
    logits, points = [], []
    for _ in range(films):
        maps = random.normal(0, 4, (len(truth), *SIZE))
        drawn = []
        for values, temperature in zip(maps, truth, strict=True):
            weight = np.exp(values / temperature)
            row, col = divmod(int(random.choice(values.size, p=(weight / weight.sum()).ravel())), SIZE[1])
            drawn.append((col + random.uniform(-0.4, 0.4), row + random.uniform(-0.4, 0.4)))
        logits.append(torch.as_tensor(maps))
        points.append(torch.tensor(drawn))
    return logits, points


def nll(log_temperature: float, maps: list[np.ndarray], pixels: list[tuple[int, int]]) -> float:
    """Written apart from the package: probability of each reference pixel."""
    total = 0.0
    for values, pixel in zip(maps, pixels, strict=True):
        scaled = values / math.exp(log_temperature)
        total -= scaled[pixel] - scaled.max() - math.log(np.exp(scaled - scaled.max()).sum())
    return total / len(maps)


def test_equals_an_independent_minimizer() -> None:
    logits, points = drawn_films((0.6, 1.0, 3.0), films=12)
    found = fit_temperatures(logits, points)
    for index, value in enumerate(found):
        maps = [film[index].numpy() for film in logits]
        pixels = [(round(float(p[index, 1])), round(float(p[index, 0]))) for p in points]
        best = minimize_scalar(nll, (-1, 1), args=(maps, pixels), method="brent", options={"xtol": 1e-10})
        # a minimizer that compares values sees no further than the root of the machine's precision
        assert value == pytest.approx(math.exp(best.x), rel=1e-6)


def test_finds_the_temperature_that_drew_the_points() -> None:
    found = fit_temperatures(*drawn_films((0.5, 2.0), films=300, seed=1))
    np.testing.assert_allclose(found, [0.5, 2.0], rtol=0.12)  # 300 draws: 3 standard errors are about 10 %


def test_unknown_points_say_nothing_and_single_pixels_are_bounded() -> None:
    logits, points = drawn_films((1.0, 1.0), films=6)
    alone = fit_temperatures(logits[:5], points[:5])
    points[5][:] = torch.tensor([[math.nan, math.nan], [500.0, 3.0]])  # not annotated; off the grid
    np.testing.assert_array_equal(fit_temperatures(logits, points), alone)
    nothing = [torch.full((2, 2), torch.nan)] * 6
    np.testing.assert_array_equal(fit_temperatures(logits, nothing), [1.0, 1.0])
    flat = logits[0].flatten(1)
    for index, bound in ((flat.argmax(1), 1 / 20), (flat.argmin(1), 20.0)):
        where = torch.stack((index % SIZE[1], torch.div(index, SIZE[1], rounding_mode="floor")), -1)
        np.testing.assert_allclose(fit_temperatures(logits[:1], [where.double()]), bound, rtol=1e-12)


def test_refuses_films_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_temperatures([], [])
    with pytest.raises(ValueError, match="do not fit"):
        fit_temperatures([torch.zeros(2, 4, 4)], [torch.zeros(3, 2)])


@pytest.mark.parametrize("edges", [PEAK_BINS, (0.0, 0.02, 0.5), tuple(np.linspace(0, 1, 11))])
def test_calibration_error_equals_loops(edges: tuple[float, ...]) -> None:
    random = np.random.default_rng(0)
    confidence = np.concatenate([random.beta(1, 8, 300), edges, [0.999]])
    correct = random.uniform(size=confidence.shape) < confidence**0.7
    total = 0.0
    for low, high in zip(edges[:-1], [*edges[1:-1], math.inf], strict=True):
        members = [i for i, value in enumerate(confidence) if low <= value < high]
        if members:
            gap = np.mean([float(correct[i]) for i in members]) - np.mean([confidence[i] for i in members])
            total += len(members) / len(confidence) * abs(gap)
    assert expected_calibration_error(confidence, correct, edges) == pytest.approx(total, rel=1e-9)


def test_calibration_error_of_the_honest_and_of_the_liar() -> None:
    assert expected_calibration_error([0.25] * 4, [1, 0, 0, 0]) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error([[0.95, 0.95]], [[0, 0]]) == pytest.approx(0.95)
    assert expected_calibration_error([0.95, math.nan], [1, 0]) == pytest.approx(0.05)
    assert math.isnan(expected_calibration_error([math.nan], [1]))


def test_calibration_error_refuses_bins_and_shapes() -> None:
    with pytest.raises(ConfigurationError, match="rising"):
        expected_calibration_error([0.5], [1], (0.0, 0.0, 1.0))
    with pytest.raises(ConfigurationError, match="below"):
        expected_calibration_error([0.1], [1], (0.2, 1.0))
    with pytest.raises(ValueError, match="one shape"):
        expected_calibration_error([0.1], [1, 0])
