"""The elastic warp: film and landmarks together, without folds, by key."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional

from monai_landmark.data.geometry import film_affine
from monai_landmark.transforms import DecodeHeatmap, EncodeHeatmap, RandElasticLandmarksd
from monai_landmark.transforms.elastic import displaced_points, warp_by_displacement

SIZE = (96, 80)


def points(count=12, margin=16, seed=0):
    low, high = (margin, margin), (SIZE[1] - 1 - margin, SIZE[0] - 1 - margin)
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, size=(count, 2)))


def item(seed=0):
    landmarks = points(seed=seed)
    image = MetaTensor(EncodeHeatmap(1.5, SIZE)(landmarks), affine=torch.from_numpy(film_affine((0.2, 0.3))))
    return {"image": image, "landmarks": landmarks}


def drawn_displacement(transform):
    transform.randomize(SIZE)
    return functional.interpolate(transform._coarse[None], SIZE, mode="bicubic", align_corners=True)[0]


def value_at(field, x, y):
    """Bilinear value of one channel, written out."""
    col, row = int(np.floor(x)), int(np.floor(y))
    dx, dy = x - col, y - row
    top = (1 - dx) * field[row, col] + dx * field[row, col + 1]
    bottom = (1 - dx) * field[row + 1, col] + dx * field[row + 1, col + 1]
    return (1 - dy) * top + dy * bottom


class TestWarp:
    def test_a_constant_displacement_shifts(self):
        image, displacement = torch.rand(2, *SIZE), torch.zeros(2, *SIZE)
        displacement[0], displacement[1] = 3.0, -2.0
        warped = warp_by_displacement(image, displacement)
        torch.testing.assert_close(warped[:, 2:, :-3], image[:, :-2, 3:], rtol=0, atol=1e-4)
        moved = displaced_points(points(), displacement.double())
        np.testing.assert_allclose(moved, points() - torch.tensor([3.0, -2.0]), atol=1e-9)

    def test_no_displacement_is_the_identity(self):
        image = torch.rand(1, *SIZE)
        torch.testing.assert_close(warp_by_displacement(image, torch.zeros(2, *SIZE)), image, rtol=0, atol=1e-5)

    def test_nan_stays_and_harms_no_other(self):
        displacement = drawn_displacement(RandElasticLandmarksd("image").set_random_state(seed=1)).double()
        some = points(4)
        some[1] = torch.nan
        moved = displaced_points(some, displacement)
        assert moved[1].isnan().all()
        assert torch.equal(moved[[0, 2, 3]], displaced_points(points(4), displacement)[[0, 2, 3]])


class TestRandElasticLandmarks:
    def test_the_landmark_is_where_the_blob_went(self):
        worst, moves = 0.0, []
        for seed in range(8):
            bend = RandElasticLandmarksd("image", magnitude_px=0.8, prob=1.0).set_random_state(seed=seed)
            before = item(seed)
            after = bend(before)
            decoded = DecodeHeatmap("dark")(after["image"])
            worst = max(worst, float((decoded - after["landmarks"]).norm(dim=-1).max()))
            moves.append((after["landmarks"] - before["landmarks"]).norm(dim=-1))
        assert torch.cat(moves).mean() > 0.5, "the warp must move the points for this test to mean anything"
        assert worst < 0.1, worst

    @pytest.mark.parametrize("size", [SIZE, (64, 64), (40, 120)])
    def test_even_the_wildest_warp_can_be_undone(self, size):
        for seed in range(6):
            bend = RandElasticLandmarksd("image", magnitude_px=1000.0, prob=1.0).set_random_state(seed=seed)
            bend.randomize(size)
            u = functional.interpolate(bend._coarse[None], size, mode="bicubic", align_corners=True)[0].numpy()
            along_x, along_y = (np.diff(u, axis=2)[:, 1:], np.diff(u, axis=1)[:, :, 1:])
            determinant = (1 + along_x[0]) * (1 + along_y[1]) - along_x[1] * along_y[0]
            assert determinant.min() > 0, "a fold"
            margin = 0.2 * max(size) / bend.cells + 1
            low, high = (margin, margin), (size[1] - 1 - margin, size[0] - 1 - margin)
            given = np.random.default_rng(seed).uniform(low, high, size=(20, 2))
            found = displaced_points(torch.from_numpy(given), torch.from_numpy(u)).numpy()
            back = [(x + value_at(u[0], x, y), y + value_at(u[1], x, y)) for x, y in found]
            np.testing.assert_allclose(back, given, atol=1e-3)

    def test_keyed(self):
        def bent(seed):
            return RandElasticLandmarksd("image", prob=1.0).set_random_state(seed=seed)(item())

        assert torch.equal(bent(3)["image"], bent(3)["image"])
        assert torch.equal(bent(3)["landmarks"], bent(3)["landmarks"])
        assert not torch.equal(bent(3)["landmarks"], bent(4)["landmarks"])

    def test_what_came_in_stays_as_it_was(self):
        before = item()
        image, landmarks = before["image"].clone(), before["landmarks"].clone()
        after = RandElasticLandmarksd("image", prob=1.0).set_random_state(seed=0)(before)
        assert torch.equal(before["image"], image) and torch.equal(before["landmarks"], landmarks)
        assert isinstance(after["image"], MetaTensor) and after["image"].dtype == torch.float32
        assert torch.equal(after["image"].affine, image.affine)

    def test_plain_tensors_several_keys_and_lists(self):
        some = {"image": torch.rand(1, 32, 32), "mask": torch.ones(1, 32, 32), "landmarks": [[10.0, 12.0]]}
        after = RandElasticLandmarksd(("image", "mask"), prob=1.0)(some)
        assert type(after["image"]) is torch.Tensor and after["landmarks"].shape == (1, 2)
        torch.testing.assert_close(after["mask"], some["mask"])

    def test_how_often(self):
        bend = RandElasticLandmarksd("image", prob=0.25).set_random_state(seed=0)
        some = {"image": torch.rand(1, 8, 8), "landmarks": torch.tensor([[3.0, 4.0]])}
        bent = [not torch.equal(bend(some)["landmarks"], some["landmarks"]) for _ in range(200)]
        assert 0.15 < np.mean(bent) < 0.35
