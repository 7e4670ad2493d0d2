"""Films to cached features to a trained head to errors in mm, against the same steps without a cache."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, RandomizableTransform

from monai_landmark.data.geometry import film_affine
from monai_landmark.engines.feature_cache import FeatureCache
from monai_landmark.losses import SpatialNLLLoss
from monai_landmark.networks import LandmarkUNet
from monai_landmark.networks.feature_probe import FeatureHead, FrozenFeatures
from monai_landmark.pretraining.probe import film_features, probe_errors, train_head
from monai_landmark.transforms import EncodeHeatmap, MillimetersToGridd

SIZE, SPACING = (32, 48), (0.5, 0.25)
SMALL = {"channels": (8, 8, 16), "norm_num_groups": 8, "num_head_channels": 8}
STEPS = 50
LEVELS = ("encoder_2", "encoder_4", "decoder_2")


class Draw(MapTransform):
    """From an item to a film with a bright spot on each landmark; counts how often."""

    def __init__(self):
        super().__init__("image")
        self.times = 0

    def __call__(self, item):
        self.times += 1
        points = torch.tensor(item["landmarks"], dtype=torch.float64)
        spots = EncodeHeatmap(3.0, SIZE)(points)
        film = (spots * torch.tensor([1.0, -1.0])[: len(spots), None, None]).sum(0, keepdim=True)
        return {
            "image": MetaTensor(film, affine=torch.from_numpy(film_affine(SPACING))),
            "landmarks": points * torch.tensor([SPACING[1], SPACING[0]]),
            "id": item["id"],
        }


class Shift(RandomizableTransform, MapTransform):
    """Move film and landmarks by whole pixels."""

    def __init__(self):
        MapTransform.__init__(self, "image")
        RandomizableTransform.__init__(self)

    def __call__(self, item):
        x, y = (int(self.R.randint(-4, 5)) for _ in range(2))
        item = MillimetersToGridd("landmarks")(item)
        item["image"] = torch.roll(item["image"], (y, x), dims=(-2, -1))
        return {**item, "landmarks": item["landmarks"] + torch.tensor([x, y])}


def films(count, seed=0, missing=False):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 2, 2, generator=generator) * torch.tensor([32.0, 16.0]) + 8
    if missing:
        points[0, 1] = torch.nan
    return [
        {
            "id": str(i),
            "image": "x",
            "sha256": f"{1000 * seed + i:064x}",
            "spacing": list(SPACING),
            "landmarks": p.tolist(),
        }
        for i, p in enumerate(points)
    ]


@pytest.fixture()
def features():
    torch.manual_seed(0)
    network = LandmarkUNet(2, **SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return FrozenFeatures(network, LEVELS)


@pytest.fixture()
def cache(tmp_path, features):
    return FeatureCache(tmp_path / "features", features.identity())


class TestFilmFeatures:
    def test_they_are_those_of_the_film_with_its_landmarks(self, features, cache):
        (item,) = film_features(features, films(1), cache, Draw())
        loaded = Draw()(films(1)[0])
        for level, maps in features(loaded["image"].as_tensor()[None]).items():
            torch.testing.assert_close(item["features"][level], maps[0].half())
        torch.testing.assert_close(item["landmarks_px"], torch.tensor(films(1)[0]["landmarks"]).double())
        assert item["id"] == "0"

    def test_no_film_is_read_twice(self, features, cache):
        load = Draw()
        first = film_features(features, films(2), cache, load, Shift(), versions=3)
        again = film_features(features, films(2), cache, load, Shift(), versions=3)
        assert load.times == 2 and len(first) == len(again) == 6
        for one, other in zip(first, again, strict=True):
            assert all(torch.equal(one["features"][level], other["features"][level]) for level in LEVELS)
            assert torch.equal(one["landmarks_px"], other["landmarks_px"])

    def test_a_version_depends_on_film_seed_and_number_alone(self, features, tmp_path):
        def views(chosen, folder, seed=0, versions=3):
            cache = FeatureCache(tmp_path / folder, features.identity())
            found = film_features(features, chosen, cache, Draw(), Shift(), versions, seed)
            return {(item["id"], i % versions): item for i, item in enumerate(found)}

        both, alone, other = views(films(2), "a"), views(films(2)[1:], "b"), views(films(2), "c", seed=1)
        for number in range(3):
            assert torch.equal(both["1", number]["landmarks_px"], alone["1", number]["landmarks_px"])
            assert torch.equal(both["1", number]["features"]["encoder_2"], alone["1", number]["features"]["encoder_2"])
        assert len({str(both["1", number]["landmarks_px"]) for number in range(3)}) == 3
        assert any(not torch.equal(both[key]["landmarks_px"], other[key]["landmarks_px"]) for key in both)

    def test_film_and_landmarks_move_together(self, features, cache):
        plain = film_features(features, films(1), cache, Draw())
        moved = film_features(features, films(1), cache, Draw(), Shift(), versions=4)
        loaded = Draw()(films(1)[0])["image"].as_tensor()
        for item in moved:
            x, y = (item["landmarks_px"] - plain[0]["landmarks_px"])[0].round().int().tolist()
            expected = features(torch.roll(loaded, (y, x), dims=(-2, -1))[None])
            torch.testing.assert_close(item["features"]["decoder_2"], expected["decoder_2"][0].half())

    def test_other_landmarks_of_the_same_film_are_another_entry(self, features, cache):
        first, second = films(1), copy.deepcopy(films(1))
        second[0]["landmarks"][0][0] += 5
        film_features(features, first, cache, Draw())
        (item,) = film_features(features, second, cache, Draw())
        assert item["landmarks_px"][0, 0] == pytest.approx(first[0]["landmarks"][0][0] + 5, abs=1e-4)


class TestHead:
    @pytest.fixture()
    def trained(self, features, cache):
        torch.manual_seed(0)
        items = film_features(features, films(8), cache, Draw())
        head = FeatureHead(features.channels, 2, features.reduction, width=16)
        return head, items, train_head(head, items, SIZE, steps=STEPS, batch_size=4, learning_rate=1e-2)

    def test_it_finds_landmarks_of_films_it_has_not_seen(self, features, cache, trained):
        head, _, losses = trained
        entropy = math.log(2 * math.pi * math.e * 1.5**2)  # of the target Gaussian: no loss is smaller
        assert len(losses) == STEPS and entropy < losses[-1] < entropy + 0.15 < losses[0] - 1 and not head.training
        held = film_features(features, films(6, seed=1), cache, Draw())
        errors = probe_errors(head, held)
        untrained = probe_errors(FeatureHead(features.channels, 2, features.reduction, width=16), held)
        assert errors.shape == (6, 2) and errors.mean() < 1.0 < untrained.mean()

    def test_it_trains_the_same_again(self, features, trained):
        _, items, losses = trained
        torch.manual_seed(0)
        head = FeatureHead(features.channels, 2, features.reduction, width=16)
        assert train_head(head, items, SIZE, steps=STEPS, batch_size=4, learning_rate=1e-2) == losses

    def test_the_first_loss_is_that_of_the_spatial_likelihood(self, features, cache):
        torch.manual_seed(0)
        items = film_features(features, films(1), cache, Draw())
        head = FeatureHead(features.channels, 2, features.reduction, width=16)
        with torch.no_grad():
            logits = copy.deepcopy(head).train()({k: v[None] for k, v in items[0]["features"].items()})
        expected = SpatialNLLLoss()(logits, EncodeHeatmap(1.5, SIZE)(items[0]["landmarks_px"][None]))
        assert train_head(head, items, SIZE, steps=1, batch_size=1) == [pytest.approx(expected.item(), rel=1e-5)]

    def test_errors_are_mm_on_each_axis_and_nan_where_nothing_is_annotated(self, features, cache):
        class Pointing(FeatureHead):
            def forward(self, maps):
                return 50 * EncodeHeatmap(1.0, SIZE)(torch.tensor([[[20.0, 10.0], [5.0, 5.0]]]))

        items = film_features(features, films(2, missing=True), cache, Draw())
        errors = probe_errors(Pointing(features.channels, 2, features.reduction, width=16), items)
        x, y = films(2)[0]["landmarks"][0]
        expected = ((0.25 * (x - 20)) ** 2 + (0.5 * (y - 10)) ** 2) ** 0.5
        assert errors[0, 0].item() == pytest.approx(expected, abs=0.02)
        assert errors.isnan().tolist() == [[False, True], [False, False]]


def test_compose_is_seeded_as_a_whole(features, cache):
    views = film_features(features, films(1), cache, Draw(), Compose([Shift(), Shift()]), versions=4)
    again = film_features(
        features, films(1), FeatureCache(cache.folder / "b", {}), Draw(), Compose([Shift(), Shift()]), 4
    )
    assert [str(v["landmarks_px"]) for v in views] == [str(v["landmarks_px"]) for v in again]
    assert len({str(v["landmarks_px"]) for v in views}) > 1
