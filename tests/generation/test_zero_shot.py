"""Two dark fields that move from film to film are found again from points or one mask; every part by itself too."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.generation.atlas import FeatureAtlas, FeatureBasis
from monai_landmark.generation.zero_shot import GeneratorFeatures, ZeroShotSegmenter, film_maps, spread_points
from monai_landmark.networks import DiffusionUNet
from monai_landmark.pretraining.flow import FlowObjective

SIZE, CELLS = (64, 80), (16, 20)
INSIDE, OUTSIDE = [(0.3, 0.5), (0.7, 0.5)], [(0.5, 0.5), (0.5, 0.05), (0.5, 0.95), (0.03, 0.5), (0.97, 0.5)]


def films(count, seed=0):
    """A bright body with two dark fields, shifted, scaled and stretched; and the masks of the fields."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, SIZE[0]), torch.linspace(-1, 1, SIZE[1]), indexing="ij")
    drawn, masks = [], []
    for _ in range(count):
        x, y, wide, tall = (torch.rand(4, generator=generator) - 0.5).tolist()
        across, down = (columns - 0.4 * x) / (1 + 0.3 * wide), (rows - 0.4 * y) / (1 + 0.3 * tall)
        mask = ((across.abs() - 0.4) ** 2 / 0.07 + down**2 / 0.3) < 1
        body = (across**2 / 0.9 + down**2 / 1.1 < 1).float() * 0.8
        noise = 0.02 * torch.randn(SIZE, generator=generator)
        drawn.append(body - 0.5 * mask.float() + noise)
        masks.append(mask.float())
    return torch.stack(drawn)[:, None], torch.stack(masks)[:, None]


def features(batch):
    """Gray values and gradients: what stands in for a network."""
    small = functional.avg_pool2d(batch, 4)
    across, down = torch.gradient(small, dim=(2, 3))
    return {"gray": torch.cat([small, across, down], 1), "coarse": functional.avg_pool2d(small, 3, 1, 1)}


def dice(found, masks):
    truth = masks[:, 0].numpy() > 0
    return np.mean([2 * (f & t).sum() / (f.sum() + t.sum()) for f, t in zip(found, truth, strict=True)])


class TestSegmenter:
    @pytest.fixture(scope="class")
    def segmenter(self):
        return ZeroShotSegmenter(features, films(8)[0], CELLS, rounds=2, components=4)

    def test_points_and_one_mask_find_the_fields_of_other_films(self, segmenter):
        new, masks = films(6, seed=1)
        places = segmenter.places(new)
        assert dice(segmenter.segment(segmenter.from_points(INSIDE, OUTSIDE), places, SIZE), masks) > 0.6
        typical = int(segmenter.atlas.likeness.argmax())
        reference = films(8)[1][typical : typical + 1]
        organ = segmenter.from_masks(reference, segmenter.atlas.grids[typical : typical + 1])
        found = segmenter.segment(organ, places, SIZE)
        still = ZeroShotSegmenter(features, films(8)[0], CELLS, rounds=0, components=4)
        copied = still.segment(still.from_masks(reference, still.atlas.grids[:1]), still.places(new), SIZE)
        assert dice(found, masks) > 0.85 > dice(copied, masks) + 0.05

    def test_masks_come_at_any_size(self, segmenter):
        found = segmenter.segment(segmenter.from_points(INSIDE, OUTSIDE), segmenter.atlas.grids[:2], (33, 47))
        assert found.shape == (2, 33, 47) and found.dtype == bool and 0 < found.mean() < 1

    def test_small_pieces_go_and_holes_are_filled(self, segmenter):
        organ = torch.zeros(1, 1, *CELLS)
        organ[..., 4:12, 3:8] = organ[..., 4:12, 12:17] = 1.0
        organ[..., 7, 5] = 0.0
        organ[..., 15, 19] = 1.0
        still = FeatureAtlas(segmenter.basis(features(films(1)[0])), rounds=0).grids
        found = segmenter.segment(organ, still, CELLS)[0]
        assert found[4:12, 3:8].all() and found[4:12, 12:17].all() and not found[15, 19]


class TestAtlas:
    def test_what_goes_onto_the_mean_comes_back(self):
        grid = FeatureAtlas(torch.ones(1, 1, 32, 40), rounds=0).grids
        rows, columns = grid[..., 1], grid[..., 0]
        bent = grid + 0.15 * torch.stack([torch.sin(2 * rows), torch.cos(1.5 * columns) - 0.5], -1)
        wave = torch.sin(3 * columns) * torch.cos(2 * rows)
        back = FeatureAtlas.onto_films(FeatureAtlas.onto_mean(wave[:, None], bent), bent)
        inner = (..., slice(6, -6), slice(6, -6))
        assert (back[:, 0] - wave)[inner].abs().max() < 0.02

    def test_a_shift_is_found(self):
        wave = functional.normalize(torch.randn(1, 8, 8, 10, generator=torch.Generator().manual_seed(0)), dim=1)
        smooth = functional.normalize(functional.interpolate(wave, (32, 40), mode="bicubic"), dim=1)
        atlas = FeatureAtlas(smooth, rounds=1)
        found = atlas.register(smooth.roll(2, dims=3))[0, 8:-8, 8:-8] - atlas.grids[0, 8:-8, 8:-8]
        assert found[..., 0].median() * 20 == pytest.approx(2, abs=0.4)  # a cell is 2 / 40 of the grid
        assert found[..., 1].median() * 16 == pytest.approx(0, abs=0.4)

    def test_a_film_is_registered_alike_in_any_company(self):
        basis = FeatureBasis.fit(features(films(4)[0]), CELLS, 4)
        descriptors = basis(features(films(4)[0]))
        atlas = FeatureAtlas(descriptors, rounds=1)
        assert torch.allclose(atlas.register(descriptors)[2:3], atlas.register(descriptors[2:3]), atol=1e-4)

    def test_no_film_is_refused(self):
        with pytest.raises(ConfigurationError, match="no film"):
            FeatureAtlas(torch.ones(0, 2, 4, 4))

    def test_descriptors_have_unit_length_and_survive_a_dead_channel(self):
        maps = {"dead": torch.zeros(2, 3, 8, 8), "alive": torch.randn(2, 5, 8, 8)}
        found = FeatureBasis.fit(maps, (8, 8), 4)(maps)
        assert found.shape == (2, 3 + 4, 8, 8) and found.isfinite().all()
        assert torch.allclose(found.norm(dim=1), torch.full((2, 8, 8), 0.5**0.5), atol=1e-4)


class TestPoints:
    def test_a_region_ends_where_the_features_change(self):
        looks = torch.zeros(2, 6, 9)
        looks[0, :, :4] = looks[1, :, 4:] = 1.0
        found = spread_points(looks, [(0.2, 0.5)], [(0.9, 0.5)])
        assert (found[:, :4] > 0.9).all() and (found[:, 4:] < 0.1).all()

    def test_between_alike_cells_the_value_falls_evenly(self):
        found = spread_points(torch.ones(1, 1, 11), [(0.01, 0.5)], [(0.99, 0.5)])
        assert np.allclose(found[0].numpy(), np.linspace(1, 0, 11), atol=1e-5)

    @pytest.mark.parametrize(
        ("inside", "outside"),
        [([], [(0.5, 0.5)]), ([(0.5, 0.5)], []), ([(1.0, 0.5)], [(0.1, 0.1)]), ([(0.5, 0.5)], [(0.51, 0.5)])],
    )
    def test_impossible_points_are_refused(self, inside, outside):
        with pytest.raises(ConfigurationError):
            spread_points(torch.ones(1, 4, 4), inside, outside)


class TestGeneratorFeatures:
    def test_maps_of_every_timestep(self):
        torch.manual_seed(0)
        objective = FlowObjective(DiffusionUNet(channels=(8, 16), num_head_channels=8))
        seen = []

        def embedder(batch):
            seen.append(len(batch))

        objective.encode = lambda batch: batch  # what is noised is the film itself
        generator = SimpleNamespace(objective=objective, embedder=embedder, device=torch.device("cpu"))
        tapped = GeneratorFeatures(generator, ["decoder_4", "bottleneck"], [50, 400], seed=3)
        given = torch.randn(3, 1, 16, 16)
        maps = tapped(given)
        assert maps["decoder_4"].shape == (3, 32, 4, 4) and maps["bottleneck"].shape == (3, 32, 4, 4) and seen == [3]
        assert not torch.equal(maps["decoder_4"][:, :16], maps["decoder_4"][:, 16:])
        batched = film_maps(tapped, given, batch_size=2)
        assert torch.allclose(batched["decoder_4"].float(), maps["decoder_4"], atol=1e-2)
