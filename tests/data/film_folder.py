"""Folders of small films with annotations, and what a datalist says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_landmark.data.annotations import Annotation
from monai_landmark.data.datalist import Datalist, save_datalist


def save_film(path: Path, seed: int, size: tuple[int, int] = (60, 48)) -> Path:
    """A film that is like no other of another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).uniform(0, 255, (12, 10)).astype(np.uint8)
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path


def annotation(film: str, points: np.ndarray, reader: str | None = None, names: tuple[str, ...] | None = None):
    seen = np.where(np.isfinite(points).all(1), 2, 0).astype(np.int8)
    return Annotation(film, points.astype(float), seen, names, reader)


def points(seed: int, count: int, size: tuple[int, int] = (60, 48)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, [size[1] - 2, size[0] - 2], (count, 2)).round(2)


def ids(datalist: Datalist, section: str) -> list[str]:
    return [item["id"] for item in datalist.sections.get(section, [])]


def item(datalist: Datalist, name: str) -> dict[str, Any]:
    return next(entry for _, entry in datalist.items() if entry["id"] == name)


def must_save(datalist: Datalist, tmp_path: Path) -> None:
    save_datalist(datalist, tmp_path / "out.json")
    assert [entry["id"] for _, entry in Datalist.load(tmp_path / "out.json").items()] == [
        entry["id"] for _, entry in datalist.items()
    ]
