"""Copies are found and new films are not; the membership test knows a generator that repeats from one that does not."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.copies import (
    feature_likeness,
    find_copies,
    membership_test,
    nearest_pair,
    structure_likeness,
    write_pairs,
)


def films(count, seed):
    """Smooth random structure in one common outline."""
    coarse = torch.randn(count, 1, 16, 14, generator=torch.Generator().manual_seed(seed))
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 40), indexing="ij")
    return (0.5 - rows**2 / 2 - columns**2 / 2 + functional.interpolate(coarse, (48, 40), mode="bicubic") / 4).clamp(
        -1, 1
    )


class TestCopies:
    @pytest.fixture(scope="class")
    def training(self):
        return films(24, 0)

    @pytest.fixture(scope="class")
    def patients(self):
        return [f"p{index}" for index in range(24)]

    def test_of_copies_and_new_films_the_copies_are_found(self, training, patients, tmp_path):
        paler = (
            0.5 * training[[3, 8]].roll((1, 2), (2, 3))
            + 0.2
            + 0.03 * torch.randn(2, 1, 48, 40, generator=torch.Generator().manual_seed(3))
        )
        drawn = torch.cat([paler, films(3, 1)])
        found = find_copies(structure_likeness(drawn, training), structure_likeness(training, training), patients)
        assert found.copied.tolist() == [True, True, False, False, False]
        assert found.nearest[:2].tolist() == [3, 8]
        facts = found.describe(patients)
        assert facts["copies"] == 2 and facts["drawn"] == 5 and facts["nearest"][0] == "p3"
        assert facts["median"] < facts["threshold"] < facts["highest"] <= 1
        write_pairs(tmp_path / "pairs.png", drawn, training, found, patients, count=2)
        with Image.open(tmp_path / "pairs.png") as picture:
            assert picture.size[0] > 3 * picture.size[1] and picture.mode == "L"

    def test_films_of_one_patient_and_of_one_exposure_set_no_threshold(self):
        likeness = torch.tensor(
            [[1.0, 0.9, 0.2, 0.1], [0.9, 1.0, 0.8, 0.3], [0.2, 0.7, 1.0, 0.4], [0.1, 0.3, 0.4, 1.0]]
        )
        assert nearest_pair(likeness, "aabc") == (pytest.approx(0.8), 1, 2)
        assert nearest_pair(likeness, "aabc", [(2, 1)])[0] == pytest.approx(0.4)
        with pytest.raises(ConfigurationError, match="two patients"):
            nearest_pair(likeness, "aaaa")

    def test_features_all_share_say_nothing(self):
        pool = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)) + 100
        likeness = feature_likeness(pool[:3], pool)
        assert torch.allclose(likeness[[0, 1, 2], [0, 1, 2]], torch.ones(3), atol=1e-4)
        assert likeness.median() < 0.5


class TestMembership:
    def test_repeating_leaks_and_inventing_does_not(self):
        pool, others = films(20, 0), films(20, 1)

        def test(drawn):
            return membership_test(*(structure_likeness(drawn, real).amax(0) for real in (pool, others)))

        repeated, invented = test(pool.roll(1, 2)), test(films(20, 3))
        assert repeated["auc"] > 0.95 and repeated["interval"][0] > 0.8
        low, high = invented["interval"]
        assert low < 0.5 < high and low < invented["auc"] < high and invented["n"] == [20, 20]

    def test_auc_by_hand(self):
        assert membership_test([3, 2], [1, 2])["auc"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
