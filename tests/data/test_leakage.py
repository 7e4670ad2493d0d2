"""Each kind of leak is planted once between two datalists, and found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_landmark.apps.cli import main
from monai_landmark.data.datalist import Datalist, save_datalist
from monai_landmark.data.datasets.films import open_film
from monai_landmark.data.film_cache import FilmCache

FILMS = {"training": ["a", "b", "c", "d"], "test": ["e", "f"]}


def _film(seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(160, 140)), 4)
    return np.rint(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def _datalist(folder: Path, seeds: dict[str, int], patients: dict[str, str] | None = None) -> Path:
    """Of films made by their seeds; sections as ``FILMS`` has them."""
    folder.mkdir()
    sections: dict[str, list[dict[str, object]]] = {}
    for section, names in FILMS.items():
        for name in names:
            file = folder / f"{name}.png"
            Image.fromarray(_film(seeds[name])).save(file)
            opened = open_film(file, None, FilmCache())
            item = {"image": file.name, "id": f"{folder.name}-{name}", "size": list(opened.size), "spacing": None}
            item |= {"spacing_source": "none", "sha256": opened.sha256, "patient": f"{folder.name} {name}"}
            item |= {"landmarks": [[10 * k, 9 * k] for k in range(1, 7)], "visibility": [2] * 6}
            item["patient"] = (patients or {}).get(name, item["patient"])
            sections.setdefault(section, []).append(item)
    save_datalist(Datalist(folder.name, "chest6", folder, sections), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    first = _datalist(tmp_path / "one", {name: n for n, name in enumerate("abcdef")}, {"d": "Ann"})
    second = _datalist(tmp_path / "two", {name: 100 + n for n, name in enumerate("abcdef")}, {"f": "Ann"})
    return first, second


def _leaks(tmp_path: Path, *words: object) -> tuple[int, list[tuple[str, str, str]]]:
    out = tmp_path / "leaks.json"
    code = main(["leaks", *map(str, words), "--json", str(out)])
    return code, [(leak["trained"], leak["tested"], leak["kind"]) for leak in json.loads(out.read_text())["leaks"]]


def test_patient(lists: tuple[Path, Path], tmp_path: Path):
    assert _leaks(tmp_path, *lists) == (3, [("one-d", "two-f", "same patient")])
    assert _leaks(tmp_path, *lists, "--other-patients") == (0, [])


def _put(datalist: Path, name: str, write) -> None:
    """Another film in place of one; the datalist says so."""
    file = datalist.parent / f"{name}.png"
    write(file)
    content = Datalist.load(datalist)
    for _, item in content.items():
        if item["image"] == file.name:
            opened = open_film(file, None, FilmCache())
            item.update(sha256=opened.sha256, size=list(opened.size))
    save_datalist(content, datalist)


@pytest.mark.parametrize("kind", ["same file", "same picture", "same exposure"])
def test_film(lists: tuple[Path, Path], tmp_path: Path, kind: str):
    first, second = lists
    source = first.parent / "b.png"

    def copy(file: Path) -> None:
        picture = Image.open(source)
        if kind == "same file":
            file.write_bytes(source.read_bytes())
        elif kind == "same picture":
            picture.save(file, compress_level=0)
        else:
            picture.resize((120, 140)).point(lambda value: value * 0.8 + 10).save(file)

    _put(second, "e", copy)
    assert _leaks(tmp_path, first, second, "--other-patients") == (3, [("one-b", "two-e", kind)])
    assert _leaks(tmp_path, first.parent, second, "--other-patients") == (3, [("b.png", "two-e", kind)])


def test_only_what_a_model_was_trained_on(lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = lists
    _put(second, "e", lambda file: file.write_bytes((first.parent / "b.png").read_bytes()))
    model = tmp_path / "model"
    model.mkdir()
    words = (first, second, "--other-patients", "--model-dir", model)
    (model / "model.json").write_text(json.dumps({"films": ["one-a", "one-c"]}))
    assert _leaks(tmp_path, *words) == (0, [])
    (model / "model.json").write_text(json.dumps({"films": ["one-a", "one-b"]}))
    assert _leaks(tmp_path, *words) == (3, [("one-b", "two-e", "same file")])
    for card in ({"films": 7}, {"films": ["one-a", "other"]}):
        (model / "model.json").write_text(json.dumps(card))
        assert main(["leaks", *map(str, words)]) == 1
    assert "1 films that the datalist does not hold" in capsys.readouterr().err


def test_broken_film_is_no_proof(lists: tuple[Path, Path], tmp_path: Path):
    first, second = lists
    (second.parent / "e.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    assert _leaks(tmp_path, first, second, "--other-patients") == (3, [])
    unread = json.loads((tmp_path / "leaks.json").read_text())["unread"]
    assert [entry["film"] for entry in unread] == ["tested: two-e"]
    assert main(["leaks", str(first), str(tmp_path / "absent")]) == 1
