"""``select`` on the command line: the CSV, the next round, and what is never offered."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from monai_landmark.apps.cli import main
from monai_landmark.data.budget import labeled_films
from monai_landmark.data.datalist import Datalist, save_datalist
from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.networks import EncoderLandmarkUNet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `pretrain` leaves it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_file(EncoderLandmarkUNet(1, "test_efficientnet").state_dict(), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps({"architecture": "test_efficientnet", "spatial_size": [96, 64]}))
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_synthetic_dataset(folder, training=2, test=1, unlabelled=4, size=(240, 216))
    return folder


def select(*words: object) -> int:
    return main(["select", *map(str, words)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_folder_and_the_next_round(
    films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (films / "films", "--model-dir", model)
    assert select(*words, "--budget", 2, "--out", tmp_path / "first.csv") == 0
    assert "coverage gained" in capsys.readouterr().out
    first = rows(tmp_path / "first.csv")
    assert [row["rank"] for row in first] == ["1", "2"]
    assert float(first[0]["coverage_gained"]) > float(first[1]["coverage_gained"]) > 0
    assert all(Path(row["image"]).stem == row["film"] for row in first)
    again = ("--budget", 2, "--chosen", tmp_path / "first.csv", "--out", tmp_path / "second.csv")
    assert select(*words, *again) == 0
    assert select(*words, "--budget", 4, "--out", tmp_path / "both.csv") == 0
    assert [row["film"] for row in first + rows(tmp_path / "second.csv")] == [
        row["film"] for row in rows(tmp_path / "both.csv")
    ]


def test_weights_file_and_grid_give_what_the_folder_gives(films: Path, model: Path, tmp_path: Path) -> None:
    assert select(films / "films", "--model-dir", model, "--budget", 3, "--out", tmp_path / "a.csv") == 0
    words = ("--weights", model / "model.safetensors", "--architecture", "test_efficientnet", "--spatial-size", 96, 64)
    assert select(films / "films", *words, "--budget", 3, "--out", tmp_path / "b.csv") == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_datalist_labelled_films_count_and_test_films_stay_out(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "chosen.csv"
    assert select(films / "datalist.json", "--strategy", "random", "--budget", 4, "--out", out) == 0
    unlabelled = {item["id"] for item in Datalist.load(films / "datalist.json").sections["unlabelled"]}
    assert {row["film"] for row in rows(out)} == unlabelled and rows(out)[0]["coverage_gained"] == ""
    assert select(films / "datalist.json", "--strategy", "random", "--budget", 5, "--out", out) == 1


def test_annotated_films_are_offered_where_that_is_asked_for(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "order.csv"
    words = ("--strategy", "random", "--budget", 6, "--as-if-unlabelled", "--out", out)
    assert select(films / "datalist.json", *words) == 0
    annotated = {item["id"] for item in Datalist.load(films / "datalist.json").sections["training"]}
    order = [row["film"] for row in rows(out) if row["film"] in annotated]
    assert len(order) == 2 and [film["id"] for film in labeled_films(films / "datalist.json", order=out)] == order


def test_copy_of_a_test_film_is_not_offered(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datalist = Datalist.load(films / "datalist.json")
    copy, test = datalist.sections["unlabelled"][0], datalist.sections["test"][0]
    copy["near_duplicates"], test["near_duplicates"] = [test["id"]], [copy["id"]]
    save_datalist(datalist, tmp_path / "datalist.json")
    words = (tmp_path / "datalist.json", "--strategy", "random", "--out", tmp_path / "chosen.csv")
    assert select(*words, "--budget", 3) == 0
    assert copy["id"] not in {row["film"] for row in rows(tmp_path / "chosen.csv")}
    assert "same picture as test film" in " ".join(capsys.readouterr().out.split())


def test_broken_film_is_named_and_the_others_go_on(model: Path, films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for file in sorted((films / "films").glob("*.png"))[:2]:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "broken.png").write_bytes(b"no film")
    assert select(folder, "--model-dir", model, "--budget", 2, "--out", tmp_path / "chosen.csv") == 3
    assert "broken" not in {row["film"] for row in rows(tmp_path / "chosen.csv")}
    for file in folder.glob("synthetic*"):
        file.unlink()
    assert select(folder, "--model-dir", model, "--budget", 1, "--out", tmp_path / "none.csv") == 1


def test_without_a_network_connection(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("hub not reached")

    monkeypatch.setattr("monai_landmark.apps.commands.select.landmark_network", offline)
    assert select(films / "films", "--budget", 1, "--out", tmp_path / "chosen.csv") == 1
    assert "hub not reached" in (said := capsys.readouterr().err) and "--weights FILE" in said


def test_wrong_requests(films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "chosen.csv")
    (tmp_path / "empty").mkdir()
    assert select(tmp_path / "empty", "--budget", 1, *out) == 1
    (tmp_path / "strange.csv").write_text("film\nelsewhere\n")
    words = (films / "films", "--model-dir", model, "--chosen", tmp_path / "strange.csv", "--budget", 1)
    assert select(*words, *out) == 1
    assert "elsewhere" in capsys.readouterr().err
    assert select(films / "films", "--budget", 1, "--weights", tmp_path / "absent.pt", *out) == 1
    for file in sorted((films / "films").glob("*.png"))[:1]:
        (tmp_path / "empty" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "chosen_before.csv").write_text(f"film\n{file.stem}\n")
    words = (tmp_path / "empty", "--strategy", "random", "--chosen", tmp_path / "chosen_before.csv", "--budget", 1)
    assert select(*words, *out) == 1
    assert "no film is left" in capsys.readouterr().err
    assert not (tmp_path / "chosen.csv").exists()
