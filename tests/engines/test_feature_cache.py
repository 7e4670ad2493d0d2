"""Features on disk: computed once, never mixed up, and a spoiled file is noticed."""

from __future__ import annotations

import logging

import pytest
import safetensors.torch
import torch

from monai_landmark.engines.feature_cache import FeatureCache
from monai_landmark.errors import DataError

COMMON = {"weights": "a" * 64, "levels": ["encoder_4", "bottleneck"], "timesteps": [0], "grid": [160, 128]}


def values(seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(4, 6, 5, generator=generator)
    return {"encoder_4": maps, "landmarks_px": torch.tensor([[1.0 / 3.0, torch.nan]], dtype=torch.float64)}


class Counted:
    """Makes values and counts how often."""

    def __init__(self, seed=0):
        self.seed, self.times = seed, 0

    def __call__(self):
        self.times += 1
        return values(self.seed)


def same(first, second):
    return first.keys() == second.keys() and all(
        first[n].dtype == second[n].dtype and torch.equal(first[n].nan_to_num(-1), second[n].nan_to_num(-1))
        for n in first
    )


def test_an_entry_is_made_once(tmp_path):
    make = Counted()
    fresh = FeatureCache(tmp_path, COMMON).get({"film": "f"}, make)
    kept = FeatureCache(tmp_path, COMMON).get({"film": "f"}, make)
    assert make.times == 1 and same(fresh, kept)
    assert fresh["encoder_4"].dtype == torch.float16
    torch.testing.assert_close(fresh["encoder_4"].float(), values()["encoder_4"], rtol=1e-3, atol=1e-4)
    x, y = kept["landmarks_px"][0].tolist()
    assert x == 1 / 3 and y != y, "double precision stays, and what is not annotated"
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"], "nothing else is left behind"


@pytest.mark.parametrize(
    ("fact", "other"),
    [("weights", "b" * 64), ("levels", ["encoder_4"]), ("timesteps", [50]), ("grid", [128, 160]), ("film", "g")],
)
def test_whatever_differs_makes_another_entry(tmp_path, fact, other):
    first, second = Counted(), Counted(1)
    FeatureCache(tmp_path, COMMON).get({"film": "f"}, first)
    facts = {**COMMON, "film": "f", fact: other}
    film = facts.pop("film")
    found = FeatureCache(tmp_path, facts).get({"film": film}, second)
    assert second.times == 1 and torch.equal(found["encoder_4"], values(1)["encoder_4"].half())
    assert len(list(tmp_path.iterdir())) == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def replace(path):
    safetensors.torch.save_file({"encoder_4": torch.zeros(4, 6, 5)}, path)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, flip, replace, empty])
def test_a_spoiled_file_is_named_and_made_anew(tmp_path, caplog, spoil):
    cache, make = FeatureCache(tmp_path, COMMON), Counted()
    good = cache.get({"film": "f"}, make)
    spoil(cache.path({"film": "f"}))
    with caplog.at_level(logging.WARNING):
        again = cache.get({"film": "f"}, make)
    assert make.times == 2 and same(good, again)
    assert str(cache.path({"film": "f"})) in caplog.text and "made anew" in caplog.text
    caplog.clear()
    assert same(good, cache.get({"film": "f"}, make)) and make.times == 2 and not caplog.text


def test_the_file_of_another_entry_is_not_taken(tmp_path, caplog):
    cache = FeatureCache(tmp_path, COMMON)
    cache.get({"film": "g"}, Counted(1))
    cache.path({"film": "g"}).rename(cache.path({"film": "f"}))
    make = Counted()
    found = cache.get({"film": "f"}, make)
    assert make.times == 1 and "something else" in caplog.text
    torch.testing.assert_close(found["encoder_4"], values()["encoder_4"].half())


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_what_half_precision_cannot_hold_is_refused(tmp_path, value):
    with pytest.raises(DataError, match=r"half precision.*decoder_2"):
        FeatureCache(tmp_path, COMMON).get({"film": "f"}, lambda: {"decoder_2": torch.tensor([value])})
    assert not list(tmp_path.iterdir())


def test_a_stopped_computation_leaves_nothing(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path, COMMON).get({"film": "f"}, stop)
    assert not list(tmp_path.iterdir())


def test_an_entry_may_not_overrule_the_common_facts(tmp_path):
    with pytest.raises(ValueError, match="grid"):
        FeatureCache(tmp_path, COMMON).get({"grid": [1, 1]}, Counted())
