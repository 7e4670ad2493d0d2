"""Keyed randomness: a draw depends on the seed and its number, not on order, workers or what was drawn before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset, MetaTensor, list_data_collate
from monai.transforms import Compose, RandAffined, RandGaussianNoised, Resized
from torch.utils.data import DataLoader

from monai_landmark.data.geometry import film_affine
from monai_landmark.engines import Draw, DrawSampler, KeyedDataset, KeyedSteps
from monai_landmark.errors import ConfigurationError
from monai_landmark.transforms import MillimetersToGridd, RandElasticLandmarksd


def films(count=5):
    generator = torch.Generator().manual_seed(1)
    affine = torch.from_numpy(film_affine((0.2, 0.3)))
    return [
        {
            "image": MetaTensor(torch.rand(1, 24, 20, generator=generator), affine=affine),
            "landmarks": torch.tensor([[2.0, 3.0], [4.0, 1.5]], dtype=torch.float64),
        }
        for _ in range(count)
    ]


def augmentation():
    return Compose(
        [
            RandAffined("image", prob=1.0, rotate_range=0.2, scale_range=(0.1, 0.1), lazy=True),
            Resized("image", spatial_size=(16, 16), lazy=True),
            MillimetersToGridd("landmarks"),
            RandElasticLandmarksd("image", magnitude_px=1.0, prob=0.5),
            RandGaussianNoised("image", prob=0.5),
        ]
    )


def equal(one, other):
    return torch.equal(torch.as_tensor(one["image"]), torch.as_tensor(other["image"])) and torch.equal(
        one["landmarks"], other["landmarks"]
    )


class TestDrawSampler:
    def test_every_item_once_before_any_comes_again(self):
        sampler = DrawSampler(length=7, draws=10)
        items = [draw.item for _ in range(7) for draw in sampler]
        for start in range(0, 70, 7):
            assert sorted(items[start : start + 7]) == list(range(7))
        assert len({tuple(items[start : start + 7]) for start in range(0, 70, 7)}) > 5

    def test_numbers_count_the_draws_of_the_run(self):
        sampler = DrawSampler(length=3, draws=4)
        assert [draw.number for _ in range(3) for draw in sampler] == list(range(12))

    def test_a_run_that_starts_later_gives_the_rest(self):
        whole, rest = DrawSampler(5, 4, seed=3), DrawSampler(5, 4, seed=3)
        expected = [draw for _ in range(4) for draw in whole]
        rest.start = 8
        assert [draw for _ in range(2) for draw in rest] == expected[8:]

    def test_seeds_differ_and_repeat(self):
        def items(seed):
            return [draw.item for draw in DrawSampler(50, 50, seed)]

        assert items(1) == items(1) != items(2)

    @pytest.mark.parametrize("world_size", [2, 3])
    def test_processes_share_the_draws_of_one(self, world_size):
        samplers = [DrawSampler(7, 12, 0, rank, world_size) for rank in range(world_size)]
        one = DrawSampler(7, 12)
        for _ in range(3):
            parts = [list(sampler) for sampler in samplers]
            assert [len(part) for part in parts] == [len(sampler) for sampler in samplers]
            assert sorted((d for part in parts for d in part), key=lambda d: d.number) == list(one)
            assert len({draw for part in parts for draw in part}) == 12

    def test_the_order_of_equal_draws_is_that_of_older_runs(self):
        """A checkpoint of before can be resumed: these numbers were drawn before there were weights."""
        items = [draw.item for draw in DrawSampler(length=7, draws=14, seed=3)]
        assert items == [5, 6, 2, 1, 4, 3, 0, 2, 1, 4, 0, 5, 6, 3]


class TestWeightedDrawSampler:
    def test_every_round_has_each_item_as_often_as_its_share(self):
        weights = np.array([5.0, 1.0, 0.0, 2.5, 1.5])
        items = np.array([draw.item for draw in DrawSampler(5, 500, seed=2, weights=weights)])
        shares = 5 * weights / weights.sum()
        for start in range(0, 500, 5):
            drawn = np.bincount(items[start : start + 5], minlength=5)
            assert (np.abs(drawn - shares) < 1).all()
        # independent draws would miss by 11 (one standard deviation) at the first item
        assert np.bincount(items, minlength=5) == pytest.approx(100 * shares, abs=2)

    def test_rare_items_come_at_even_distances(self):
        """Weight 1 among weights 9: one draw in 46, so every item of that weight within few rounds."""
        weights = [9.0] * 10 + [1.0] * 2
        rounds = [draw.number // 12 for draw in DrawSampler(12, 1200, seed=5, weights=weights) if draw.item == 11]
        assert max(np.diff(rounds)) <= 13  # 7.7 rounds on average; the golden ratio leaves gaps of three lengths

    def test_equal_weights_give_every_item_once_before_any_comes_again(self):
        items = [draw.item for draw in DrawSampler(7, 70, seed=1, weights=[0.3] * 7)]
        for start in range(0, 70, 7):
            assert sorted(items[start : start + 7]) == list(range(7))
        assert len({tuple(items[start : start + 7]) for start in range(0, 70, 7)}) > 5

    def test_draws_depend_on_seed_and_number_alone(self):
        weights = [1.0, 2.0, 3.0, 4.0, 5.0]
        expected = list(DrawSampler(5, 40, seed=3, weights=weights))
        rest = DrawSampler(5, 8, seed=3, weights=weights)
        rest.start = 16
        assert [draw for _ in range(3) for draw in rest] == expected[16:]
        parts = [draw for rank in range(3) for draw in DrawSampler(5, 40, 3, rank, 3, weights)]
        assert sorted(parts, key=lambda draw: draw.number) == expected
        assert list(DrawSampler(5, 40, seed=4, weights=weights)) != expected

    @pytest.mark.parametrize(
        "weights", [[1.0, 1.0], [1.0, -1.0, 1.0], [0.0] * 3, [1.0, float("nan"), 1.0], [[1.0] * 3]]
    )
    def test_weights_that_do_not_fit_are_refused(self, weights):
        with pytest.raises(ConfigurationError, match="weights do not fit"):
            DrawSampler(3, 3, weights=weights)


class TestKeyedDataset:
    def test_the_same_draw_is_the_same_item_in_any_order(self):
        data = KeyedDataset(films(), augmentation(), seed=4)
        draws = [Draw(number % 5, number) for number in range(8)]
        forward = [data[draw] for draw in draws]
        other = KeyedDataset(films(), augmentation(), seed=4)
        backward = [other[draw] for draw in reversed(draws)][::-1]
        assert all(equal(one, two) for one, two in zip(forward, backward, strict=True))

    def test_every_draw_of_an_item_differs_and_so_do_seeds(self):
        data = KeyedDataset(films(), augmentation(), seed=4)
        assert not equal(data[Draw(0, 0)], data[Draw(0, 5)])
        assert not equal(data[Draw(0, 0)], KeyedDataset(films(), augmentation(), seed=5)[Draw(0, 0)])
        assert equal(data[3], data[Draw(3, 3)])
        assert len(data) == 5

    def test_workers_do_not_change_what_is_drawn(self):
        batches = []
        for workers in (0, 2, 4):
            sampler = DrawSampler(5, 6, seed=2)
            data = KeyedDataset(films(), augmentation(), seed=2)
            loader = DataLoader(data, 2, sampler=sampler, num_workers=workers, collate_fn=list_data_collate)
            batches.append([batch for _ in range(2) for batch in loader])
        assert [len(drawn) for drawn in batches] == [6, 6, 6]
        assert all(equal(batches[0][step], drawn[step]) for drawn in batches[1:] for step in range(6))

    def test_kept_films_stay_as_they_are(self):
        kept = CacheDataset(films(1), Compose([]), progress=False)
        before = kept[0]["image"].clone()
        data = KeyedDataset(kept, augmentation())
        first = data[Draw(0, 3)]
        for number in range(4):
            data[Draw(0, number)]
        assert equal(data[Draw(0, 3)], first)
        film = kept[0]["image"]
        assert torch.equal(film.as_tensor(), before.as_tensor()) and torch.equal(film.affine, before.affine)
        assert not film.pending_operations and not film.applied_operations


class TestKeyedSteps:
    def numbers(self, start, seed=0, rank=0):
        drawn = []

        def step(engine, batch):
            drawn.append(float(torch.rand(())))

        trainer = Engine(step)
        KeyedSteps(seed, rank).attach(trainer)
        trainer.run([0] * 4, max_epochs=2) if not start else self.resume(trainer, start)
        return drawn

    @staticmethod
    def resume(trainer, start):
        trainer.load_state_dict({"epoch_length": 4, "max_epochs": 2, "iteration": start})
        torch.rand(17)
        trainer.run([0] * 4)

    def test_noise_depends_on_the_step_alone(self):
        whole = self.numbers(0)
        assert len(set(whole)) == 8
        assert self.numbers(4) == whole[4:]
        assert self.numbers(0, seed=1) != whole != self.numbers(0, rank=1)
