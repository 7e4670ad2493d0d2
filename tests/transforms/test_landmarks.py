"""Landmarks between mm and grid, and their names after a mirroring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Resized

from monai_landmark.data.geometry import film_affine
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.transforms import (
    DecodeHeatmap,
    EncodeHeatmap,
    ExchangeLeftRight,
    GridToMillimetersd,
    MillimetersToGridd,
    RandFlipLandmarksd,
)

SPACING = (0.2, 0.5)


def film(size=(20, 30), spacing=SPACING):
    return MetaTensor(torch.zeros(1, *size), affine=torch.from_numpy(film_affine(spacing)))


class TestGrid:
    def test_x_is_divided_by_the_columns_spacing(self):
        item = {"image": film(), "landmarks": torch.tensor([[5.0, 3.0], [float("nan")] * 2])}
        grid = MillimetersToGridd("landmarks")(item)["landmarks"]
        assert grid.dtype == torch.float64
        torch.testing.assert_close(grid[0], torch.tensor([10.0, 15.0], dtype=torch.float64))
        assert grid[1].isnan().all()
        back = GridToMillimetersd("landmarks")({"image": film(), "landmarks": grid})["landmarks"]
        np.testing.assert_allclose(back, item["landmarks"].double(), atol=1e-12)

    @pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
    def test_lists_arrays_and_tensors(self, kind):
        grid = MillimetersToGridd("landmarks")({"image": film(), "landmarks": kind([[5.0, 3.0]])})["landmarks"]
        assert grid.tolist() == [[10.0, 15.0]]

    def test_after_a_resize_it_is_the_new_grid(self):
        item = {"image": film(), "landmarks": torch.tensor([[5.0, 3.0]])}
        for lazy in (False, True):
            chain = Compose([Resized("image", (40, 15)), MillimetersToGridd("landmarks")], lazy=lazy)
            torch.testing.assert_close(
                chain(dict(item))["landmarks"], torch.tensor([[10.5 / 2 - 0.5, 15.5 * 2 - 0.5]], dtype=torch.float64)
            )

    def test_other_keys(self):
        item = {"film": film(), "landmarks": torch.tensor([[5.0, 3.0]])}
        out = MillimetersToGridd("landmarks", refer_key="film", output_keys="on_grid")(item)
        assert out["on_grid"].tolist() == [[10.0, 15.0]] and torch.equal(out["landmarks"], item["landmarks"])
        assert "on_grid" not in item


class TestNames:
    def test_a_landmark_keeps_its_anatomical_side(self):
        """In a mirrored film of a left-marked pelvis, what looks like the left hip must be called so."""
        schema = LandmarkSchema.load("synthetic")
        rng = np.random.default_rng(0)
        on_right_half = torch.tensor([name.startswith("left") for name in schema.landmarks])  # as films are hung
        grid = torch.from_numpy(rng.uniform((4, 4), (11, 16), size=(schema.count, 2)))
        grid[on_right_half, 0] += 15
        paired = torch.tensor([name.startswith(("left", "right")) for name in schema.landmarks])
        item = GridToMillimetersd("landmarks")({"image": film(), "landmarks": grid})
        flip = RandFlipLandmarksd("image", schema.flip_permutation(), prob=1.0)
        mirrored = MillimetersToGridd("landmarks")(flip(item))["landmarks"]
        assert ((mirrored[:, 0] > 14.5) == on_right_half)[paired].all()
        for name, mirror in zip(schema.landmarks, schema.flip_permutation(), strict=True):
            x, y = grid[mirror]
            np.testing.assert_allclose(mirrored[schema.index(name)], (29 - x, y), atol=1e-9)

    def test_the_films_blobs_lie_under_the_exchanged_names(self):
        permutation = [1, 0, 2]
        grid = torch.tensor([[8.3, 10.2], [36.9, 22.4], [23.1, 14.8]], dtype=torch.float64)
        image = MetaTensor(EncodeHeatmap(2.0, (32, 48))(grid), affine=torch.from_numpy(film_affine(SPACING)))
        item = GridToMillimetersd("landmarks")({"image": image, "landmarks": grid})
        out = MillimetersToGridd("landmarks")(RandFlipLandmarksd("image", permutation, prob=1.0)(item))
        decoded = DecodeHeatmap()(out["image"])[permutation]
        np.testing.assert_allclose(decoded, out["landmarks"], atol=0.02)

    def test_visibility_goes_with_the_names(self):
        item = {"image": film(), "landmarks": torch.rand(3, 2), "visibility": [2, 0, 1]}
        assert RandFlipLandmarksd("image", [1, 0, 2], prob=1.0)(item)["visibility"].tolist() == [0, 2, 1]

    def test_mirroring_twice_is_nothing(self):
        item = {"image": film(), "landmarks": torch.rand(3, 2), "visibility": torch.tensor([2, 0, 1])}
        item["image"][:] = torch.rand(20, 30)
        flip = RandFlipLandmarksd("image", [1, 0, 2], prob=1.0)
        twice = flip(flip(item))
        assert torch.equal(twice["landmarks"], item["landmarks"])
        assert torch.equal(twice["visibility"], item["visibility"])
        assert torch.equal(twice["image"].as_tensor(), item["image"].as_tensor())
        torch.testing.assert_close(twice["image"].affine, item["image"].affine)

    def test_how_often(self):
        flip = RandFlipLandmarksd("image", [1, 0], prob=0.3).set_random_state(seed=0)
        points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        flipped = [
            not torch.equal(flip({"image": film(), "landmarks": points})["landmarks"], points) for _ in range(200)
        ]
        assert 0.2 < np.mean(flipped) < 0.4

    def test_batches_of_points(self):
        points = torch.rand(4, 3, 2)
        assert torch.equal(ExchangeLeftRight([2, 1, 0])(points), points.flip(1))
