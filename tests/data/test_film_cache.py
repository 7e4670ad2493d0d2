"""What was seen of a film is not looked at again; a film that has changed is."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmark.data import film_cache
from monai_landmark.data.audit import audit_datalist, audit_folder
from monai_landmark.data.datalist import save_datalist
from monai_landmark.data.datasets import films as films_module
from monai_landmark.data.datasets import prepare_folder
from monai_landmark.data.datasets.films import open_film, open_films
from monai_landmark.data.duplicates import find_duplicates, fingerprint
from monai_landmark.data.film_cache import FilmCache, cache_beside
from monai_landmark.data.formats import read_film
from monai_landmark.errors import ConfigurationError


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now count as old."""
    monkeypatch.setattr(film_cache, "_SETTLED_S", -1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six films: number 3 is number 0 brightened, number 4 is number 1 under another name, 5 cannot be read."""
    (tmp_path / "films").mkdir()
    for number in range(6):
        coarse = np.random.default_rng(number % 3).uniform(0, 200, (12, 9)).astype(np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((72, 96), Image.Resampling.BICUBIC)) // 2
        Image.fromarray(pixels + np.uint8(20 * (number == 3))).save(tmp_path / "films" / f"{number}.png")
    (tmp_path / "films" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path / "films"


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((films_module, "read_film"), (film_cache, "file_sha256"), (film_cache, "similar_pairs")):
        monkeypatch.setattr(module, name, lambda *words, **more: pytest.fail(f"{words}"))


def test_the_second_run_says_the_same_and_reads_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = audit_folder(folder).to_json()
    first = audit_folder(folder, cache=tmp_path / "c.sqlite").to_json()
    (folder / "5.png").unlink()
    no_reading(monkeypatch)
    second = audit_folder(folder, cache=tmp_path / "c.sqlite").to_json()
    assert plain == first and len(first["bad"]) == 1
    assert second == {**first, "bad": [], "bad_count": 0}
    pairs = {(pair["first"], pair["second"], pair["identical"]) for pair in second["duplicates"]}
    assert pairs == {("0.png", "3.png", False), ("1.png", "4.png", True)}


def test_pairs_are_those_of_all_films_at_once(folder: Path, tmp_path: Path) -> None:
    prints = {film.name: fingerprint(read_film(film).pixels) for film in sorted(folder.glob("[0-4].png"))}
    for names in (["0.png", "1.png"], ["2.png", "3.png"], ["4.png"]):  # one run after another
        with FilmCache(tmp_path / "c.sqlite") as cache:
            cache.duplicates({name: open_film(folder / name, None, cache).sha256 for name in names})
    with FilmCache(tmp_path / "c.sqlite") as cache:
        hashes = {name: cache.sha256(folder / name) for name in prints}
        assert cache.duplicates(hashes) == find_duplicates(prints)
        assert cache.duplicates({"x": hashes["0.png"]}) == []
        found = cache.copies([hashes["2.png"], hashes["3.png"]], [hashes["0.png"], hashes["1.png"]])
        assert [pair[:2] for pair in found] == [(1, 0)]


@pytest.mark.parametrize("how", ["content", "time", "size"])
def test_a_film_that_has_changed_is_read_again(folder: Path, tmp_path: Path, how: str) -> None:
    film = folder / "0.png"
    with FilmCache(tmp_path / "c.sqlite") as cache:
        before = open_film(film, None, cache)
        stat = film.stat()
        if how == "content":  # of the same length and with the old time of its content
            film.write_bytes(film.read_bytes()[:-12] + b"IEND".rjust(12, b"\0"))
            os.utime(film, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            assert film.stat().st_size == stat.st_size and film.stat().st_mtime_ns == stat.st_mtime_ns
            assert cache.sha256(film) != before.sha256
        elif how == "time":
            os.utime(film, ns=(1, 1))
            assert open_film(film, None, cache) == before
        else:
            film.write_bytes((folder / "1.png").read_bytes())
            assert open_film(film, None, cache).sha256 != before.sha256


def test_a_film_of_this_very_moment_is_not_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_cache, "_SETTLED_S", 60.0)
    with FilmCache(tmp_path / "c.sqlite") as cache:
        first = cache.sha256(folder / "0.png")
        monkeypatch.setattr(film_cache, "file_sha256", lambda film: "another")
        assert (first, cache.sha256(folder / "0.png")) == (first, "another")


def test_a_spacing_that_the_user_knows_is_not_the_films(folder: Path, tmp_path: Path) -> None:
    for spacing in ((0.1, 0.2), None, (0.1, 0.2)):
        with FilmCache(tmp_path / "c.sqlite") as cache:
            assert open_film(folder / "0.png", spacing, cache).spacing_mm == spacing


def test_cache_and_films_move_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FilmCache(folder / "c.sqlite") as cache:
        open_films([folder / "0.png"], folder, cache=cache)
    moved = folder.rename(folder.with_name("moved"))
    no_reading(monkeypatch)
    with FilmCache(moved / "c.sqlite") as cache:
        assert len(open_films([moved / "0.png"], moved, cache=cache)[0]) == 1


@pytest.mark.parametrize("keep", [0, 5000, -200])
def test_a_damaged_file_is_made_anew(folder: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.sqlite"
    first = audit_folder(folder, cache=path).to_json()
    path.write_bytes(path.read_bytes()[:keep])
    assert audit_folder(folder, cache=path).to_json() == first
    assert audit_folder(folder, cache=path).to_json() == first


def test_what_another_method_saw_is_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FilmCache(tmp_path / "c.sqlite") as cache:
        sha256 = open_film(folder / "0.png", None, cache).sha256
        assert cache.facts(sha256) is not None
    monkeypatch.setattr(film_cache, "_method", lambda: "another")
    with FilmCache(tmp_path / "c.sqlite") as cache:
        assert cache.facts(sha256) is None and cache.sha256(folder / "0.png") == sha256


def test_another_file_is_left_alone(folder: Path, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "own.sqlite") as own:
        own.execute("CREATE TABLE mine (value TEXT)")
    own.close()
    for path in (folder / "0.png", tmp_path / "own.sqlite", folder):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ConfigurationError, match="not a cache of films"):
            FilmCache(path)
        assert before is None or path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that cannot be written to")
def test_without_the_right_to_write(folder: Path) -> None:
    folder.chmod(0o500)
    assert len(audit_folder(folder, cache=folder / "c.sqlite").films) == 5
    folder.chmod(0o700)


def test_a_datalist_has_a_cache_of_its_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "datalist.json"
    with FilmCache(cache_beside(path)) as cache:
        save_datalist(prepare_folder(folder, duplicates="mark", cache=cache), path)
    no_reading(monkeypatch)
    assert len(audit_datalist(path).films) == 5
