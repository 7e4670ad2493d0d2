"""Landmarks through chains of MONAI's transforms: back to the millimetre, and under the blob that went along."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    Flipd,
    Orientationd,
    RandAffined,
    RandFlipd,
    RandRotate90d,
    RandSpatialCropd,
    RandZoomd,
    Resized,
    ResizeWithPadOrCropd,
    Rotate90d,
    Rotated,
    Spacingd,
    SpatialCropd,
    SpatialPadd,
    Zoomd,
)

from monai_landmark.data.geometry import film_affine
from monai_landmark.transforms import DecodeHeatmap, EncodeHeatmap, GridToMillimetersd, MillimetersToGridd

SPACINGS = ((0.1, 0.1), (0.1, 0.25), (0.3, 0.12))
SIZES = ((64, 64), (72, 56), (56, 80))


def affine_of(spacing, four):
    """``(3, 3)``, or the ``(4, 4)`` that MONAI's own readers give a flat film."""
    matrix = film_affine(spacing)
    if not four:
        return torch.from_numpy(matrix)
    wide = np.eye(4)
    wide[:2, :2], wide[:2, 3] = matrix[:2, :2], matrix[:2, 2]
    return torch.from_numpy(wide)


def random_transform(rng, spacing, lazy, gently):
    """One transform of a chain; ``gently`` keeps the middle of the film in sight and its blobs decodable."""
    # MONAI pushes a (4, 4) identity for a random transform that does not fire; lazily that breaks off on flat images
    flip, quarter = (1.0, 1.0) if lazy else (0.7, 0.8)
    share, turn = (0.08, 0.3) if gently else (0.3, 1.0)
    sizes = [int(n) for n in (rng.integers(56, 84, 2) if gently else rng.integers(12, 90, 2))]
    crop = [int(n) for n in rng.integers(50, 60, 2)] if gently else sizes
    pixdim = [float(n) for n in np.asarray(spacing) * rng.uniform(1 - share, 1 + share, 2)]
    choices = [
        lambda: Resized("image", sizes, mode="bilinear"),
        lambda: Spacingd("image", pixdim=pixdim, mode="bilinear", padding_mode="border"),
        lambda: RandAffined(
            "image", prob=1.0, rotate_range=turn, scale_range=(share, share), translate_range=3, shear_range=share
        ),
        lambda: RandFlipd("image", prob=flip, spatial_axis=int(rng.integers(2))),
        lambda: RandRotate90d("image", prob=quarter),
        lambda: RandZoomd("image", prob=1.0, min_zoom=1 - share, max_zoom=1 + share, mode="bilinear"),
        lambda: RandSpatialCropd("image", roi_size=crop, random_size=False),
        lambda: CenterSpatialCropd("image", roi_size=crop),
        lambda: SpatialPadd("image", spatial_size=[n + 7 for n in sizes]),
        lambda: ResizeWithPadOrCropd("image", spatial_size=sizes),
        lambda: Rotated("image", angle=float(rng.uniform(-turn, turn)), keep_size=bool(rng.integers(2))),
        lambda: Orientationd("image", axcodes=str(rng.choice(["LP", "RA", "PL", "AR"])), labels=None),
    ]
    return choices[int(rng.integers(len(choices)))]()


def random_chain(rng, spacing, lazy, gently=False):
    transforms = [random_transform(rng, spacing, lazy, gently) for _ in range(int(rng.integers(1, 7)))]
    chain = Compose([*transforms, MillimetersToGridd("landmarks", output_keys="grid")], lazy=lazy)
    return chain.set_random_state(seed=int(rng.integers(2**31)))


def case(number):
    """Spacing, size, affine and laziness go round, so that every combination meets many chains."""
    rng = np.random.default_rng([7, number])
    return rng, SPACINGS[number % 3], SIZES[number // 3 % 3], bool(number // 9 % 2), bool(number // 18 % 2)


class TestRandomChains:
    def test_a_thousand_chains_and_back(self):
        worst, changed = 0.0, 0
        for number in range(1000):
            rng, spacing, size, four, lazy = case(number)
            film = MetaTensor(torch.zeros(1, *(n // 2 for n in size)), affine=affine_of(spacing, four))
            landmarks = torch.from_numpy(rng.uniform(-2, 10, size=(5, 2)))
            chain = random_chain(rng, spacing, lazy)
            item = chain({"image": film, "landmarks": landmarks})
            back = GridToMillimetersd("grid")(item)["grid"]
            worst = max(worst, float((back - landmarks).norm(dim=-1).max()))
            changed += not torch.allclose(item["grid"], landmarks / torch.tensor(spacing[::-1]), atol=1e-3)
        assert worst < 1e-3, f"{worst} mm"
        assert changed > 900

    def test_the_blob_is_where_the_landmark_is_said_to_be(self):
        errors = []
        for number in range(144):
            rng, spacing, size, four, lazy = case(number)
            center = torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2], dtype=torch.float64)
            start = center + torch.from_numpy(rng.uniform(-6, 6, size=(3, 2)))
            film = MetaTensor(EncodeHeatmap(2.5, size)(start), affine=affine_of(spacing, four))
            landmarks = start * torch.tensor([spacing[1], spacing[0]])
            item = random_chain(rng, spacing, lazy, gently=True)({"image": film, "landmarks": landmarks})
            decoded = DecodeHeatmap()(item["image"])
            inside = (item["grid"] > 9).all(-1) & (item["grid"] < torch.tensor(item["image"].shape[:0:-1]) - 10).all(-1)
            errors += (decoded - item["grid"]).norm(dim=-1)[inside].tolist()
        assert len(errors) > 350, "too many blobs were lost for this test to mean anything"
        assert np.max(errors) < 0.3, np.max(errors)
        assert np.mean(errors) < 0.03, np.mean(errors)


def resized(size, new):
    """Pixel centers: both grids cover the same film."""
    return lambda x, y: ((x + 0.5) * new[1] / size[1] - 0.5, (y + 0.5) * new[0] / size[0] - 0.5)


H, W = 40, 30
ONE_BY_ONE = {
    "resize": (Resized("image", (20, 75)), resized((H, W), (20, 75))),
    "mirror": (Flipd("image", spatial_axis=1), lambda x, y: (W - 1 - x, y)),
    "upside down": (Flipd("image", spatial_axis=0), lambda x, y: (x, H - 1 - y)),
    "quarter turn": (Rotate90d("image", k=1), lambda x, y: (y, W - 1 - x)),
    "half turn": (Rotate90d("image", k=2), lambda x, y: (W - 1 - x, H - 1 - y)),
    "crop": (SpatialCropd("image", roi_start=(5, 8), roi_end=(30, 28)), lambda x, y: (x - 8, y - 5)),
    "pad": (SpatialPadd("image", (50, 40)), lambda x, y: (x + 5, y + 5)),
    "zoom": (Zoomd("image", zoom=2.0, keep_size=False), lambda x, y: (2 * x + 0.5, 2 * y + 0.5)),
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("four", [False, True])
class TestByHand:
    """Positions worked out by hand, not by any affine."""

    @pytest.mark.parametrize("name", ONE_BY_ONE)
    def test_one_transform(self, name, lazy, four):
        transform, expected = ONE_BY_ONE[name]
        self.check([transform], expected, lazy, four)

    def test_a_chain(self, lazy, four):
        chain = [
            Flipd("image", spatial_axis=1),  # 40 x 30
            Resized("image", (80, 45)),
            Rotate90d("image", k=1),  # 45 x 80
            SpatialCropd("image", roi_start=(3, 10), roi_end=(43, 70)),  # 40 x 60
            SpatialPadd("image", (50, 60)),
        ]

        def expected(x, y):
            x, y = resized((H, W), (80, 45))(W - 1 - x, y)
            x, y = y, 44 - x
            return x - 10, y - 3 + 5

        self.check(chain, expected, lazy, four)

    @staticmethod
    def check(transforms, expected, lazy, four):
        spacing = (0.2, 0.35)
        start = np.random.default_rng(0).uniform(5, 25, size=(6, 2))
        film = MetaTensor(torch.rand(1, H, W), affine=affine_of(spacing, four))
        item = {"image": film, "landmarks": torch.from_numpy(start * [spacing[1], spacing[0]])}
        on_grid = Compose([*transforms, MillimetersToGridd("landmarks")], lazy=lazy)(item)["landmarks"]
        np.testing.assert_allclose(on_grid, [expected(x, y) for x, y in start], atol=1e-4)
