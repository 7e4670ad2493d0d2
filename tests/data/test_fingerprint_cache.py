"""Kept fingerprints come back as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_landmark.data import fingerprint_cache
from monai_landmark.data.duplicates import Fingerprint, fingerprint
from monai_landmark.data.fingerprint_cache import load_fingerprints, save_fingerprints


@pytest.fixture()
def prints() -> dict[str, Fingerprint]:
    random = np.random.default_rng(0)
    return {name * 64: fingerprint(random.uniform(0, 255, (50, 40)).astype(np.float32)) for name in "ab"}


def test_they_come_back_as_they_were(prints: dict[str, Fingerprint], tmp_path: Path) -> None:
    save_fingerprints(tmp_path / "new" / "prints.npz", prints)
    loaded = load_fingerprints(tmp_path / "new" / "prints.npz")
    assert list(loaded) == list(prints)
    for name, one in prints.items():
        assert loaded[name].sha256 == one.sha256
        assert np.array_equal(loaded[name].bits, one.bits) and loaded[name].bits.dtype == one.bits.dtype
        assert np.array_equal(loaded[name].structure, one.structure)
        assert loaded[name].structure.dtype == one.structure.dtype


def test_no_file_is_no_fingerprint(tmp_path: Path) -> None:
    assert load_fingerprints(tmp_path / "prints.npz") == {}


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_a_damaged_file_is_not_used(
    prints: dict[str, Fingerprint], tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prints.npz"
    save_fingerprints(path, prints)
    path.write_bytes(path.read_bytes()[:keep])
    assert load_fingerprints(path) == {}
    assert "written anew" in caplog.text


def test_fingerprints_of_another_method_are_not_used(
    prints: dict[str, Fingerprint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save_fingerprints(tmp_path / "prints.npz", prints)
    monkeypatch.setattr(fingerprint_cache, "fingerprint", lambda pixels: fingerprint(pixels**2))
    assert load_fingerprints(tmp_path / "prints.npz") == {}
    assert "another method" in caplog.text
