"""Expected radial error against a reference written as loops, in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_landmark.data.geometry import film_affine
from monai_landmark.errors import ConfigurationError
from monai_landmark.uncertainty import auroc, expected_radial_error, fit_error_scales, peak_probability

AFFINE = film_affine((0.7, 0.4))
TURNED = np.array([[0.1, 0.5, 3.0], [0.8, -0.2, 7.0], [0.0, 0.0, 1.0]])


def reference(logits: np.ndarray, affine: np.ndarray, points: np.ndarray, temperature: float, floor: float) -> float:
    """One landmark, word for word the paper: soft-max, scale by the maximum, drop, renormalize, sum."""
    scaled = [[float(value) / temperature for value in row] for row in logits]
    top = max(max(row) for row in scaled)
    raw = [[math.exp(value - top) for value in row] for row in scaled]
    kept = [[value if value > floor else 0.0 for value in row] for row in raw]
    mass = math.fsum(math.fsum(row) for row in kept)
    total = []
    for r, row in enumerate(kept):
        for c, value in enumerate(row):
            x = affine[0][0] * r + affine[0][1] * c + affine[0][-1]
            y = affine[1][0] * r + affine[1][1] * c + affine[1][-1]
            total.append(value / mass * math.hypot(x - points[0], y - points[1]))
    return math.fsum(total)


@pytest.mark.parametrize("affine", [AFFINE, TURNED], ids=["spacing", "turned"])
@pytest.mark.parametrize("temperatures", [None, [0.3, 1.0, 2.5]])
@pytest.mark.parametrize("floor", [0.05, 0.4])
def test_equals_the_reference(affine: np.ndarray, temperatures: list[float] | None, floor: float) -> None:
    random = torch.Generator().manual_seed(3)
    logits = 40.0 + 3.0 * torch.randn(3, 17, 23, generator=random)
    points = torch.tensor([[3.3, 4.1], [8.0, 2.2], [-5.0, 60.0]], dtype=torch.float64)
    found = expected_radial_error(logits, affine, points, temperatures, floor)
    for index, value in enumerate(found.tolist()):
        temperature = 1.0 if temperatures is None else temperatures[index]
        expected = reference(logits[index].numpy(), affine, points[index].numpy(), temperature, floor)
        assert value == pytest.approx(expected, rel=1e-6)


def test_a_hot_pixel_errs_by_its_distance_and_a_pair_by_the_mean() -> None:
    logits = torch.full((2, 9, 11), -torch.inf)
    logits[0, 4, 6] = 5.0
    logits[1, 4, 2] = logits[1, 4, 8] = -3.0
    points = torch.tensor([[6 * 0.4, 4 * 0.7 + 3.0], [2 * 0.4, 4 * 0.7]], dtype=torch.float64)
    found = expected_radial_error(logits, AFFINE, points)
    np.testing.assert_allclose(found, [3.0, 6 * 0.4 / 2], rtol=1e-12)


def test_a_wide_gaussian_errs_as_rayleigh_says() -> None:
    rows, cols = torch.meshgrid(torch.arange(161.0), torch.arange(161.0), indexing="ij")
    logits = -((rows - 80) ** 2 + (cols - 80) ** 2) / (2 * 10.0**2)
    found = expected_radial_error(logits[None], film_affine((1.0, 1.0)), torch.tensor([[80.0, 80.0]]), floor=1e-7)
    assert float(found[0]) == pytest.approx(10.0 * math.sqrt(math.pi / 2), rel=1e-3)
    doubled = expected_radial_error(logits[None], film_affine((1.0, 1.0)), torch.tensor([[80.0, 80.0]]), [4.0])
    halved = expected_radial_error(logits[None], film_affine((1.0, 1.0)), torch.tensor([[80.0, 80.0]]), [1.0])
    assert float(doubled[0] / halved[0]) == pytest.approx(2.0, rel=1e-2)  # T = 4 doubles the width


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_and_large_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([[[1000.0, 900.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1000.0]]], dtype=dtype)
    found = expected_radial_error(logits, film_affine((1.0, 1.0)), torch.zeros(1, 2))
    assert found.dtype == torch.float64 and float(found) == pytest.approx(math.sqrt(8) / 2)


def test_no_point_or_no_map_is_nan_and_leaves_the_others_alone() -> None:
    logits = torch.zeros(4, 5, 5)
    logits[1, 2, 2] = torch.nan
    logits[2] = -torch.inf
    points = torch.tensor([[torch.nan, torch.nan], [1.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    found = expected_radial_error(logits, film_affine((1.0, 1.0)), points)
    assert found[:3].isnan().all()
    assert float(found[3]) == pytest.approx(np.mean([math.hypot(r - 2, c - 2) for r in range(5) for c in range(5)]))


def test_peak_probability_is_the_softmax_maximum() -> None:
    logits = 3.0 * torch.randn(3, 8, 9, generator=torch.Generator().manual_seed(1)) + 200.0
    for temperatures in (None, [0.5, 1.0, 2.0]):
        scale = torch.tensor(temperatures or [1.0] * 3, dtype=torch.float64)[:, None]
        expected = torch.softmax(logits.flatten(1).double() / scale, 1).amax(1)
        np.testing.assert_allclose(peak_probability(logits, temperatures), expected, rtol=1e-12)


@pytest.mark.parametrize("temperatures", [[1.0], [1.0, 0.0], [1.0, math.nan], [1.0, -2.0]])
def test_refuses_temperatures_that_cannot_be(temperatures: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="temperatures"):
        expected_radial_error(torch.zeros(2, 4, 4), AFFINE, torch.zeros(2, 2), temperatures)


def test_refuses_shapes_and_floors() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        expected_radial_error(torch.zeros(2, 4, 4), AFFINE, torch.zeros(3, 2))
    with pytest.raises(ConfigurationError, match="floor"):
        expected_radial_error(torch.zeros(2, 4, 4), AFFINE, torch.zeros(2, 2), floor=1.0)


def test_scales_are_the_mean_errors_up_to_a_common_factor() -> None:
    errors = np.array([[1.0, 4.0, np.nan], [3.0, 8.0, np.nan], [np.nan, np.inf, np.nan], [2.0, np.nan, np.nan]])
    expected = np.array([[1.0, 2.0, 5.0], [2.0, 1.0, 5.0], [9.0, np.nan, 5.0], [0.5, 3.0, 5.0]])
    scales = fit_error_scales(errors, expected)
    means = np.array([2.0, 6.0, 18.0 / 5.0])  # the last landmark is in no film: the mean of all
    np.testing.assert_allclose(scales / scales[0], means / means[0], rtol=1e-12)
    known = np.isfinite(errors) & np.isfinite(expected)
    assert (scales * expected)[known].sum() == pytest.approx(errors[known].sum(), rel=1e-12)
    np.testing.assert_array_equal(fit_error_scales(np.ones((0, 3)), np.ones((0, 3))), np.ones(3))
    assert (fit_error_scales(errors * [0.0, 1.0, 1.0], expected) > 0).all()
    with pytest.raises(ValueError, match="films, landmarks"):
        fit_error_scales(errors, expected[:2])


def test_scales_tell_hard_landmarks_where_the_maps_do_not() -> None:
    random = np.random.default_rng(0)
    hard = np.array([1.0, 1.0, 4.0])
    doubt = random.gamma(4.0, 0.25, (200, 3))
    errors = random.rayleigh(doubt * hard)
    scales = fit_error_scales(errors[:50], doubt[:50])
    assert auroc(scales * doubt[50:], errors[50:], 4.0) > auroc(doubt[50:], errors[50:], 4.0) + 0.1
