"""Films of a command line: ids that are unique and speak of the folder that was named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmark.data.films import film_items, find_films
from monai_landmark.errors import FilmError


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "b/1.png", "2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no film")
    return tmp_path


def test_a_folder_gives_its_films_with_relative_ids(folder: Path) -> None:
    assert [item["id"] for item in find_films(folder)] == ["2", "a/1", "b/1"]


def test_a_given_spacing_is_the_users(folder: Path) -> None:
    item = film_items([folder / "2.png"], (0.2, 0.3))[0]
    assert (item["spacing"], item["spacing_source"]) == ([0.2, 0.3], "user")
    assert "spacing" not in film_items([folder / "2.png"])[0]


def test_two_films_of_one_id_are_refused(folder: Path) -> None:
    with pytest.raises(FilmError, match="same id"):
        film_items([folder / "a/1.png", folder / "b/1.png"])


def test_absent_paths_and_empty_folders_are_refused(folder: Path) -> None:
    with pytest.raises(FilmError, match="no such file"):
        film_items([folder / "nothing.png"])
    (folder / "empty").mkdir()
    with pytest.raises(FilmError, match="no film found"):
        find_films(folder / "empty")
