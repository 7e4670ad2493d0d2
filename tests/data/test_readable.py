"""Broken films in a training: left out and named; too many end the process with exit code 3."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from monai.data import list_data_collate
from monai.transforms import Compose, RandAffined
from torch.utils.data import DataLoader

from monai_landmark.data.budget import labeled_films
from monai_landmark.data.datalist import Datalist, save_datalist
from monai_landmark.data.pool import pretraining_pool
from monai_landmark.data.readable import TooManyBrokenFilmsError, broken_film, readable_films
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.engines import DrawSampler, KeyedDataset
from monai_landmark.errors import ConfigurationError
from monai_landmark.privacy import log_name
from monai_landmark.transforms import LoadRadiographd

_FILMS = 20


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write_synthetic_dataset(folder, training=_FILMS, test=1, unlabelled=0, size=(200, 216))
    return folder


@pytest.fixture
def films(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "films"))


def _break(folder: Path, count: int) -> list[str]:
    """Cut the first training films short; their ids."""
    items = Datalist.load(folder / "datalist.json").sections["training"][:count]
    for item in items:
        file = folder / item["image"]
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return [item["id"] for item in items]


def test_five_percent_are_left_out_and_named(films: Path, caplog: pytest.LogCaptureFixture):
    (broken,) = _break(films, 1)
    with caplog.at_level(logging.WARNING):
        used = labeled_films(films / "datalist.json")
    assert len(used) == _FILMS - 1 and broken not in {film["id"] for film in used}
    line = caplog.messages[0]
    assert log_name(broken) in line and "broken, cut short" in line
    assert broken not in caplog.text and str(films) not in caplog.text  # a name may be a patient's


def test_loader_workers_give_the_same_numbers_without_the_broken_films(films: Path):
    """Workers 0, 2 and 4: the films that are left, augmented, batch by batch to the last bit."""
    _break(films, 1)
    used = labeled_films(films / "datalist.json")
    augmentation = Compose([LoadRadiographd("image"), RandAffined("image", prob=1, rotate_range=0.2, scale_range=0.1)])
    runs = []
    for workers in (0, 2, 4):
        items = [{"image": film["image"], "id": film["id"]} for film in used]
        data, sampler = KeyedDataset(items, augmentation, seed=1), DrawSampler(len(items), 8, seed=1)
        loader = DataLoader(data, 4, sampler=sampler, num_workers=workers, collate_fn=list_data_collate)
        runs.append([(batch["id"], torch.as_tensor(batch["image"]).numpy().tobytes()) for batch in loader])
    assert len(runs[0]) == 2 and runs[0] == runs[1] == runs[2]


def test_the_draw_stays_the_same(films: Path):
    before = [film["id"] for film in labeled_films(films / "datalist.json", 10, 2, seed=3)]
    broken = _break(films, 1)
    after = [film["id"] for film in labeled_films(films / "datalist.json", 10, 2, seed=3, broken_share=0.5)]
    assert after == [film for film in before if film not in broken]


def test_too_many_end_the_process(films: Path, caplog: pytest.LogCaptureFixture):
    broken = _break(films, 3)
    with pytest.raises(TooManyBrokenFilmsError, match="3 of 20 films cannot be read") as caught:
        labeled_films(films / "datalist.json")
    assert caught.value.code == 3 and sorted(film.film for film in caught.value.left_out) == sorted(broken)
    assert all(log_name(film) in caplog.text for film in broken)
    assert len(labeled_films(films / "datalist.json", broken_share=0.15)) == _FILMS - 3
    with pytest.raises(SystemExit):
        labeled_films(films / "datalist.json", broken_share=0)
    with pytest.raises(ConfigurationError, match="broken_share"):
        labeled_films(films / "datalist.json", broken_share=1.5)


def test_pool(films: Path):
    (broken,) = _break(films, 1)
    pool = pretraining_pool(films / "datalist.json")
    assert len(pool.films) == _FILMS - 1
    assert [entry.film for entry in pool.left_out if entry.by == "fault"] == [broken]
    with pytest.raises(TooManyBrokenFilmsError):
        pretraining_pool(films / "datalist.json", broken_share=0.01)


def test_pool_of_a_folder(films: Path):
    """Films that nothing is known of are read."""
    _break(films, 3)
    with pytest.raises(TooManyBrokenFilmsError, match="3 of"):
        pretraining_pool(pool=[films])
    assert sum(entry.by == "fault" for entry in pretraining_pool(pool=[films], broken_share=0.5).left_out) == 3


def test_a_film_that_was_prepared_is_not_read_again(films: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("monai_landmark.data.readable.read_film", pytest.fail)
    assert len(labeled_films(films / "datalist.json")) == _FILMS


def test_reasons(films: Path):
    datalist = Datalist.load(films / "datalist.json")
    item = dict(datalist.sections["training"][0])
    item["image"] = str(films / item["image"])
    assert broken_film(item) is None
    assert "not the one that was prepared" in str(broken_film({**item, "sha256": "0", "size": [1, 2]}))
    assert broken_film({**item, "sha256": "0"}) is None  # saved again, the same picture
    assert "No such file" in str(broken_film({**item, "image": str(films / "absent.png")}))


def test_all_broken(tmp_path: Path):
    items = [{"id": "a", "image": str(tmp_path / "a.png")}]
    with pytest.raises(TooManyBrokenFilmsError, match="1 of 1"):
        readable_films(items, 1.0)
    assert readable_films([], 0.1) == ([], [])


def test_datalist_without_hashes(films: Path):
    """They are optional, and such films are read."""
    file = films / "datalist.json"
    datalist = Datalist.load(file)
    for _, item in datalist.items():
        item.pop("sha256", None)
    save_datalist(datalist, file)
    (broken,) = _break(films, 1)
    assert broken not in {film["id"] for film in labeled_films(file)}
