"""Views of a film: independent, keyed by the seed, the first one what the plain transform makes."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad, RandAffined, RandGaussianNoised, RandScaleIntensityd

from monai_landmark.data.geometry import film_affine
from monai_landmark.engines import Draw, KeyedDataset
from monai_landmark.errors import ConfigurationError
from monai_landmark.transforms.views import RandViewsd, RandViewsDict


def item(channels=1):
    generator = torch.Generator().manual_seed(3)
    affine = torch.from_numpy(film_affine((0.2, 0.3)))
    return {"image": MetaTensor(torch.rand(channels, 20, 16, generator=generator), affine=affine), "name": "a film"}


def augmentation():
    return Compose(
        [
            RandAffined("image", prob=1.0, rotate_range=0.2, translate_range=2, padding_mode="border", lazy=True),
            RandScaleIntensityd("image", factors=0.3, prob=0.7),
            RandGaussianNoised("image", prob=0.7),
        ],
        lazy=None,
    )


def seen(views, seed, data=None):
    return views.set_random_state(seed=seed)(data or item())["image"].as_tensor()


@pytest.mark.parametrize(("channels", "views"), [(1, 2), (1, 5), (3, 2)])
def test_views_are_stacked_as_channels_and_differ(channels, views):
    stacked = seen(RandViewsd("image", augmentation(), views), 1, item(channels))
    assert stacked.shape == (views * channels, 20, 16)
    parts = stacked.chunk(views)
    assert all(not torch.allclose(a, b, atol=1e-3) for i, a in enumerate(parts) for b in parts[:i])


def test_the_same_seed_gives_the_same_views_and_another_seed_others():
    views = RandViewsd("image", augmentation(), 2)
    first = seen(views, 1)
    assert not torch.equal(seen(views, 2), first)
    assert torch.equal(seen(views, 1), first)
    assert torch.equal(seen(RandViewsd("image", augmentation(), 2), 1), first)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_the_first_view_is_the_plain_transform(views):
    plain = augmentation().set_random_state(seed=5)(item())["image"].as_tensor()
    assert torch.equal(seen(RandViewsd("image", augmentation(), views), 5)[:1], plain)


def test_keyed_by_the_number_of_the_draw_alone():
    data = KeyedDataset([item()] * 3, RandViewsd("image", augmentation(), 2), seed=7)
    fresh = KeyedDataset([item()] * 3, RandViewsd("image", augmentation(), 2), seed=7)
    first = [data[Draw(0, number)]["image"].as_tensor() for number in range(3)]
    for number in (2, 0, 1):
        assert torch.equal(fresh[Draw(0, number)]["image"].as_tensor(), first[number])
    assert not torch.equal(first[0], first[1])


def test_seeded_from_a_compose_around_it():
    def run(seed):
        return Compose([RandViewsd("image", augmentation(), 2)]).set_random_state(seed=seed)(item())["image"]

    assert torch.equal(run(1).as_tensor(), run(1).as_tensor())
    assert not torch.equal(run(1).as_tensor(), run(2).as_tensor())


def test_views_are_independent():
    """Over many items the noise of one view says nothing about that of the other."""
    views = RandViewsd("image", Compose([RandGaussianNoised("image", prob=1.0, std=1.0, sample_std=False)]), 2)
    blank = {"image": torch.zeros(1, 100, 100)}
    first, second = views.set_random_state(seed=0)(blank)["image"].flatten(1)
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert abs(correlation) < 0.05  # five standard deviations of 10000 independent pairs


def test_the_item_stays_as_it_was_also_under_a_transform_that_writes_in_place():
    data = item()
    before = data["image"].clone()
    darker = Compose([Lambdad("image", lambda image: image.mul_(0.5))])
    stacked = RandViewsd("image", darker, 2)(data)["image"]
    assert torch.equal(data["image"], before)
    assert torch.equal(stacked.as_tensor(), torch.cat([before.as_tensor() / 2] * 2))


def test_other_keys_are_those_of_the_first_view():
    made = RandViewsDict("image", augmentation(), 2).set_random_state(seed=0)(item())
    plain = augmentation().set_random_state(seed=0)(item())
    assert made["name"] == "a film"
    assert torch.equal(made["image"].affine, plain["image"].affine)


def test_a_missing_key():
    with pytest.raises(KeyError):
        RandViewsd("other", Compose([]), 2)(item())
    assert set(RandViewsd("other", Compose([]), 2, allow_missing_keys=True)(item())) == {"image", "name"}


@pytest.mark.parametrize(("transform", "views", "field"), [(Compose([]), 0, "views"), (dict, 2, "transform")])
def test_what_makes_no_views_is_refused(transform, views, field):
    with pytest.raises(ConfigurationError, match=f"field: {field}"):
        RandViewsd("image", transform, views)


def test_one_view_of_a_transform_without_randomness():
    assert torch.equal(seen(RandViewsd("image", dict, 1), 0), item()["image"].as_tensor())
