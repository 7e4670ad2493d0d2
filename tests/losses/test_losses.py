"""Landmark losses against numpy references, their gradients, and what they must ignore."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from monai_landmark.errors import ConfigurationError
from monai_landmark.losses import HeatmapRegressionLoss, SpatialNLLLoss
from monai_landmark.losses.heatmap_regression import adaptive_wing
from monai_landmark.transforms.heatmap import EncodeHeatmap

KINDS = ("mse", "l1", "awing")
LOSSES = [SpatialNLLLoss, *[lambda reduction="mean", kind=kind: HeatmapRegressionLoss(kind, reduction=reduction) for kind in KINDS]]  # fmt: skip  # noqa: E501


@pytest.fixture
def batch():
    """Logits and targets of two films with three landmarks; one landmark of each film is not annotated."""
    generator = torch.Generator().manual_seed(0)
    points = 2 + 6 * torch.rand(2, 3, 2, generator=generator, dtype=torch.float64)
    points[0, 1], points[1, 2] = torch.nan, torch.nan
    target = EncodeHeatmap(1.2, (9, 11), dtype=torch.float64)(points)
    return torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64), target


ANNOTATED = np.array([[True, False, True], [True, True, False]])


def nll_reference(logits, target):
    z, t = (np.asarray(a).reshape(2, 3, -1) for a in (logits, target))
    mass = t.sum(-1, keepdims=True)
    t = np.divide(t, mass, out=np.zeros_like(t), where=mass > 0)
    return -(t * (z - logsumexp(z, -1, keepdims=True))).sum(-1)


def awing_reference(prediction, target, omega=14.0, theta=0.5, epsilon=1.0, alpha=2.1):
    """Equation 3 of the paper, one pixel at a time."""
    out = np.empty(prediction.shape)
    for i, (p, y) in enumerate(zip(prediction.flat, target.flat, strict=True)):
        error = abs(y - p)
        if error < theta:
            out.flat[i] = omega * np.log(1 + (error / epsilon) ** (alpha - y))
        else:
            slope = omega * (1 / (1 + (theta / epsilon) ** (alpha - y))) * (alpha - y)
            slope *= (theta / epsilon) ** (alpha - y - 1) / epsilon
            out.flat[i] = slope * error - (theta * slope - omega * np.log(1 + (theta / epsilon) ** (alpha - y)))
    return out


def regression_reference(kind, prediction, target, weight=10.0, level=0.2):
    p, t = np.asarray(prediction), np.asarray(target)
    pixel = {"mse": (p - t) ** 2, "l1": abs(p - t), "awing": awing_reference(p, t)}[kind]
    padded = np.pad(t, ((0, 0), (0, 0), (1, 1), (1, 1)))
    near = np.max([padded[:, :, r : r + 9, c : c + 11] for r in range(3) for c in range(3)], axis=0)
    return (pixel * (1 + weight * (near >= level))).mean((-2, -1))


class TestSpatialNLLLoss:
    def test_matches_numpy(self, batch):
        expected = nll_reference(*batch)
        assert (expected[~ANNOTATED] == 0).all()
        np.testing.assert_allclose(SpatialNLLLoss("none")(*batch), expected, rtol=1e-12)
        assert SpatialNLLLoss("sum")(*batch).item() == pytest.approx(expected.sum())
        assert SpatialNLLLoss()(*batch).item() == pytest.approx(expected[ANNOTATED].mean())

    def test_one_hot_target_is_cross_entropy(self):
        logits, index = torch.randn(2, 3, 5, 7), torch.randint(35, (2, 3))
        target = torch.nn.functional.one_hot(index, 35).reshape(2, 3, 5, 7)
        expected = torch.nn.functional.cross_entropy(logits.reshape(6, 35), index.reshape(6))
        torch.testing.assert_close(SpatialNLLLoss()(logits, target.float()), expected)

    def test_scale_of_the_target_does_not_matter(self, batch):
        logits, target = batch
        torch.testing.assert_close(SpatialNLLLoss()(logits, 1e-3 * target), SpatialNLLLoss()(logits, target))

    def test_smallest_at_the_target_distribution(self, batch):
        logits, target = batch
        right = SpatialNLLLoss()(torch.log(target + 1e-12), target)
        assert right < SpatialNLLLoss()(torch.log(target + 1e-12) + 0.1 * logits, target)

    def test_extreme_logits_do_not_overflow(self):
        logits = torch.full((1, 1, 4, 4), -1e4)
        logits[0, 0, 1, 2] = 1e4
        logits.requires_grad_()
        target = torch.zeros(1, 1, 4, 4)
        target[0, 0, 0, 0] = 1.0
        loss = SpatialNLLLoss()(logits, target)
        loss.backward()
        assert loss.item() == pytest.approx(2e4)
        assert logits.grad.isfinite().all()

    def test_gradient(self, batch):
        logits, target = batch
        assert torch.autograd.gradcheck(lambda z: SpatialNLLLoss()(z, target), (logits.requires_grad_(),))


class TestHeatmapRegressionLoss:
    @pytest.mark.parametrize("kind", KINDS)
    def test_matches_numpy(self, batch, kind):
        expected = np.where(ANNOTATED, regression_reference(kind, *batch), 0.0)
        np.testing.assert_allclose(HeatmapRegressionLoss(kind, reduction="none")(*batch), expected, rtol=1e-12)
        assert HeatmapRegressionLoss(kind)(*batch).item() == pytest.approx(expected[ANNOTATED].mean())

    def test_without_foreground_weight_it_is_plain_mse(self, batch):
        prediction, target = batch[0][:, :1], batch[1][:, :1]
        loss = HeatmapRegressionLoss(foreground_weight=0.0)(prediction, target)
        torch.testing.assert_close(loss, torch.nn.functional.mse_loss(prediction, target))

    def test_adaptive_wing_is_continuous_where_its_parts_meet(self):
        target = torch.linspace(0, 1, 11, dtype=torch.float64)
        below, above = (adaptive_wing(target + error, target) for error in (0.5 - 1e-9, 0.5 + 1e-9))
        torch.testing.assert_close(below, above, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradient(self, batch, kind):
        prediction, target = batch
        loss = HeatmapRegressionLoss(kind)
        assert torch.autograd.gradcheck(lambda p: loss(p, target), (prediction.requires_grad_(),))

    @pytest.mark.parametrize("kind", KINDS)
    def test_perfect_prediction_has_no_loss_and_a_finite_gradient(self, batch, kind):
        target = batch[1]
        prediction = target.clone().requires_grad_()
        loss = HeatmapRegressionLoss(kind)(prediction, target)
        loss.backward()
        assert loss.item() == 0
        assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("make", LOSSES)
class TestEveryLoss:
    def test_unannotated_landmarks_get_no_gradient(self, batch, make):
        logits, target = batch
        logits.requires_grad_()
        make()(logits, target).backward()
        moved = logits.grad.abs().sum((-2, -1)) > 0
        np.testing.assert_array_equal(moved, ANNOTATED)

    def test_nothing_annotated_is_zero_with_a_gradient(self, make):
        logits = torch.randn(2, 3, 5, 5, requires_grad=True)
        loss = make()(logits, torch.zeros(2, 3, 5, 5))
        loss.backward()
        assert loss.item() == 0
        assert (logits.grad == 0).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_half_precision_is_summed_in_float32(self, batch, make, dtype):
        logits, target = batch[0].to(dtype), batch[1].float()
        loss = make()(logits, target)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, make()(logits.double(), target.double()).float())

    def test_shape_of_each_reduction(self, batch, make):
        assert make(reduction="none")(*batch).shape == (2, 3)
        assert make(reduction="sum")(*batch).shape == ()

    def test_bad_shapes(self, make):
        with pytest.raises(ValueError, match=r"\(B, K, H, W\)"):
            make()(torch.zeros(1, 2, 5, 5), torch.zeros(1, 3, 5, 5))
        with pytest.raises(ValueError, match=r"\(B, K, H, W\)"):
            make()(torch.zeros(2, 5, 5), torch.zeros(2, 5, 5))


def test_bad_settings():
    for make in (lambda: SpatialNLLLoss("median"), lambda: HeatmapRegressionLoss("mse", reduction="median")):
        with pytest.raises(ConfigurationError, match="reduction"):
            make()
    with pytest.raises(ConfigurationError, match="kind"):
        HeatmapRegressionLoss("huber")
    with pytest.raises(ConfigurationError, match="foreground_weight"):
        HeatmapRegressionLoss(foreground_weight=-1.0)
