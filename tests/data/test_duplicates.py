"""Copies are found through what people do to films; different films are not copies."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import shift

from monai_landmark.data.datasets.films import open_films
from monai_landmark.data.duplicates import DuplicatePair, find_duplicates, fingerprint
from monai_landmark.data.film_cache import FilmCache

FloatArray = NDArray[np.float32]


def film(seed: int, height: int = 300, width: int = 240) -> FloatArray:
    """Blobs of several sizes, whole numbers from 0 to 255."""
    random = np.random.default_rng(seed)
    coarse = [Image.fromarray(random.normal(size=(n, n)).astype(np.float32) * 30 / n) for n in (4, 9, 20, 45)]
    field = np.sum([np.asarray(part.resize((width, height), Image.Resampling.BICUBIC)) for part in coarse], axis=0)
    return np.asarray(255 * (field - field.min()) / np.ptp(field), dtype=np.float32).round()


def jpeg(pixels: FloatArray) -> FloatArray:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream), dtype=np.float32)


CHANGES = {
    "saved as JPEG": jpeg,
    "brighter": lambda p: p * 3 + 700,
    "gamma 2": lambda p: 255 * (p / 255) ** 2,
    "gamma 0.5": lambda p: 255 * (p / 255) ** 0.5,
    "noise": lambda p: p + np.random.default_rng(9).normal(0, 5, p.shape).astype(np.float32),
    "half size": lambda p: p.reshape(p.shape[0] // 2, 2, p.shape[1] // 2, 2).mean((1, 3)),
    "shifted by 1 %": lambda p: shift(p, (3, -2), mode="nearest"),
    "rim cut": lambda p: p[2:-2, 2:-2],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_finds_a_changed_copy(change: str, seed: int) -> None:
    original = film(seed)
    changed = np.asarray(CHANGES[change](original), dtype=np.float32)
    prints = {"a": fingerprint(original), "other": fingerprint(film(seed + 10)), "b": fingerprint(changed)}
    (pair,) = find_duplicates(prints)
    assert (pair.first, pair.second, pair.identical) == ("a", "b", False)
    assert 0.85 <= pair.similarity <= 1


def test_finds_identical_films_and_names_them_so() -> None:
    prints = {"a": fingerprint(film(0)), "b": fingerprint(film(1)), "c": fingerprint(film(0).copy())}
    assert find_duplicates(prints) == [DuplicatePair("a", "c", 1.0, True)]


def test_every_pair_of_three_copies_is_found_in_order() -> None:
    prints = {name: fingerprint(film(0) * factor) for name, factor in (("z", 1), ("a", 2), ("m", 3))}
    pairs = [(pair.first, pair.second) for pair in find_duplicates(prints)]
    assert pairs == [("z", "a"), ("z", "m"), ("a", "m")]


def test_different_films_are_no_copies() -> None:
    assert find_duplicates({str(seed): fingerprint(film(seed, 150, 120)) for seed in range(60)}) == []


def test_blank_films_are_copies_only_when_identical() -> None:
    blank = {str(value): fingerprint(np.full((64, 64), value, np.float32)) for value in (0, 1, 2)}
    assert find_duplicates(blank) == []
    blank["again"] = fingerprint(np.full((64, 64), 1, np.float32))
    assert find_duplicates(blank) == [DuplicatePair("1", "again", 1.0, True)]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_films(count: int) -> None:
    assert find_duplicates({str(n): fingerprint(film(n)) for n in range(count)}) == []


@pytest.mark.parametrize("size", [(1, 1), (40, 900), (128, 128), (131, 257)])
def test_any_size(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, size).astype(np.float32)
    one = fingerprint(pixels)
    assert one.structure.shape == (128, 128) and one.bits.shape == (255,)
    assert np.isfinite(one.structure).all()


def test_shape_is_part_of_the_content() -> None:
    assert fingerprint(np.zeros((4, 8), np.float32)).sha256 != fingerprint(np.zeros((8, 4), np.float32)).sha256


def test_a_pair_far_apart_in_a_long_list_is_found() -> None:
    """Batches of hashes must not lose the pairs between them."""
    small = {str(seed): fingerprint(film(seed, 64, 64)) for seed in range(300)}
    small["copy"] = fingerprint(film(3, 64, 64) * 2)
    assert [(pair.first, pair.second) for pair in find_duplicates(small)] == [("3", "copy")]


def test_finds_the_known_pairs_of_isbi2015(shared_data: Path) -> None:
    """22 pairs were known (plain correlation above 0.99); one more is the same film with another tone curve."""
    folder = shared_data / "isbi2015"
    with (folder / "near_duplicates.csv").open() as stream:
        known = {(row["id_a"], row["id_b"]) for row in csv.DictReader(stream)}
    involved = sorted({name for pair in known for name in pair} | {"056", "280"})
    # The films most alike without being copies; all 300 are in the test below.
    others = ["154", "211", "059", "207", "189", "190", "223", "265"]
    names = sorted({*involved, *others})
    seen = FilmCache()
    opened, left_out = open_films([folder / "jpg" / f"{name}.jpg" for name in names], folder, cache=seen)
    assert not left_out
    found = seen.duplicates({path.stem: one.sha256 for path, one in opened.items()})
    assert {(pair.first, pair.second) for pair in found} == known | {("056", "280")}
    assert {(pair.first, pair.second) for pair in found if pair.identical} == {("038", "283"), ("144", "173")}


@pytest.mark.slow
def test_finds_no_other_pair_among_all_films_of_isbi2015(shared_data: Path) -> None:
    folder = shared_data / "isbi2015"
    with (folder / "near_duplicates.csv").open() as stream:
        known = {(row["id_a"], row["id_b"]) for row in csv.DictReader(stream)}
    seen = FilmCache()
    opened, _ = open_films(sorted((folder / "jpg").glob("*.jpg")), folder, cache=seen)
    assert len(opened) == 300
    found = seen.duplicates({path.stem: one.sha256 for path, one in opened.items()})
    assert {(pair.first, pair.second) for pair in found} == known | {("056", "280")}
