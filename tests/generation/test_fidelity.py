"""Distances between sets of films against MONAI's, torchmetrics' and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import FIDMetric

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.fidelity import (
    fidelity,
    frechet_distance,
    kernel_distance,
    manifold_measures,
    spatial_features,
    token_features,
)


def cloud(count, width=6, shift=0.0, scale=1.0, seed=0):
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(9))
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) @ mixing + shift


class TestFrechet:
    def test_monais_number(self):
        first, second = cloud(50), cloud(70, shift=0.5, scale=1.3, seed=1)
        assert frechet_distance(first, second) == pytest.approx(float(FIDMetric()(first, second)), rel=1e-6)

    def test_known_normals(self):
        x = torch.tensor([[-1.0], [1.0]])  # variance 2
        assert frechet_distance(x, 3 * x + 4) == pytest.approx(16 + (3 * 2**0.5 - 2**0.5) ** 2)

    def test_fewer_films_than_features(self):
        films = cloud(8, width=40)
        assert frechet_distance(films, films) == pytest.approx(0, abs=1e-6)
        assert frechet_distance(films, films + 1) == pytest.approx(40, rel=1e-6)


class TestKernel:
    def test_by_hand(self):
        x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
        # within x: (1*2+1)^3; within y: (0*1+1)^3; across: mean of 1, 8, 1, 27
        assert kernel_distance(x, y) == pytest.approx(27 + 1 - 2 * 37 / 4)

    def test_torchmetrics_number(self):
        kid = pytest.importorskip("torchmetrics.image.kid")
        first, second = cloud(40), cloud(40, shift=0.3, seed=1)
        assert kernel_distance(first, second) == pytest.approx(float(kid.poly_mmd(first, second)), rel=1e-3)

    def test_one_distribution_gives_about_zero(self):
        values = [kernel_distance(cloud(60, seed=s), cloud(60, seed=s + 50)) for s in range(20)]
        apart = kernel_distance(cloud(60), cloud(60, shift=1.0, seed=1))
        assert abs(np.mean(values)) < 0.1 * apart and min(values) < 0


def brute_force(real, drawn, k):
    """The definitions, film by film."""
    real, drawn = real.double().numpy(), drawn.double().numpy()

    def reach(points):
        return [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]

    r, d = reach(real), reach(drawn)
    inside = [[np.linalg.norm(x - y) <= r[i] for y in drawn] for i, x in enumerate(real)]
    precision = np.mean([any(row[j] for row in inside) for j in range(len(drawn))])
    recall = np.mean([any(np.linalg.norm(x - y) <= d[j] for j, y in enumerate(drawn)) for x in real])
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "density": np.mean([sum(row[j] for row in inside) for j in range(len(drawn))]) / k,
        "coverage": np.mean([any(row) for row in inside]),
    }


class TestManifold:
    @pytest.mark.parametrize(("k", "shift"), [(1, 0.0), (3, 0.8), (5, 1.5)])
    def test_brute_force(self, k, shift):
        real, drawn = cloud(30), cloud(25, shift=shift, scale=0.7, seed=1)
        assert manifold_measures(real, drawn, k) == pytest.approx(brute_force(real, drawn, k))

    def test_a_generator_that_draws_one_film(self):
        real = cloud(40)
        found = manifold_measures(real, real[:1] + 1e-3 * cloud(40, seed=2))
        assert found["precision"] == 1 and found["recall"] < 0.2 and found["coverage"] < 0.5

    def test_too_few_films(self):
        with pytest.raises(ConfigurationError, match="too few films"):
            manifold_measures(cloud(5), cloud(9))


class TestFidelity:
    def sets(self, shift):
        return [
            {"pooled": cloud(count, shift=s, seed=seed), "spatial": cloud(count, width=12, shift=s, seed=seed + 7)}
            for count, s, seed in ((60, 0.0, 0), (30, shift, 1), (45, 0.0, 2))
        ]

    def test_drawn_beside_reference(self):
        near, far = (fidelity(*self.sets(shift), network="some network") for shift in (0.0, 2.0))
        assert near["network"] == "some network" and near["n"] == 30
        for name in ("fid", "sfid", "kid"):
            assert far[name]["drawn"] > 2 * far[name]["reference"], name
            assert near[name]["drawn"] < far[name]["drawn"] and near[name]["reference"] == far[name]["reference"]
        assert near["coverage"]["drawn"] > far["coverage"]["drawn"]

    def test_it_can_be_repeated(self):
        assert fidelity(*self.sets(0.5), network="x") == fidelity(*self.sets(0.5), network="x")

    def test_unlike_features(self):
        with pytest.raises(ConfigurationError, match="cannot be compared"):
            frechet_distance(cloud(5), cloud(5, width=7))


def test_features_of_tokens_and_of_maps():
    tokens = torch.arange(3 * 5 * 9.0).view(3, 5, 9)
    found = token_features(tokens)
    assert torch.equal(found["pooled"], tokens[:, 0]) and found["spatial"].shape == (3, 4 * 7)
    assert found["spatial"][0, :7].tolist() == tokens[0, 1, :7].tolist()
    assert token_features(tokens[:, :1]).keys() == {"pooled"}
    assert spatial_features(torch.zeros(3, 9, 4, 5)).shape == (3, 7 * 20)
