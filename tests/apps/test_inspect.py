"""``inspect`` on the command line: a report whatever is broken, and an exit code that says so."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmark.apps.commands import inspect
from monai_landmark.data.datalist import save_datalist
from monai_landmark.data.datasets import prepare_folder
from monai_landmark.errors import ConfigurationError, DataError, FilmError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    return inspect.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(3):
        coarse = np.random.default_rng(number).uniform(0, 255, (9, 8)).astype(np.uint8)
        Image.fromarray(coarse).resize((30, 40), Image.Resampling.BICUBIC).save(folder / f"f{number}.png")
    return folder


def test_good_folder(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "reports" / "report.json"
    assert run(films, "--json", report, "--spacing", 0.2, 0.1) == 0
    content = json.loads(report.read_text())
    assert content["film_count"] == 3 and content["counts"]["spacing source"] == {"user": 3}
    printed = capsys.readouterr().out
    assert "3 films read" in printed and "40 x 30" in printed and "0.2 x 0.1 mm" in printed


def test_one_broken_film_still_gets_a_report(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (films / "f1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(films, "--json", tmp_path / "report.json") == 3
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["film_count"] == 2 and [entry["film"] for entry in content["bad"]] == ["f1.png"]
    assert "2 films read, 1 left out" in capsys.readouterr().out


def test_copies_and_missing_landmarks_are_shown(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (films / "copy.png").write_bytes((films / "f0.png").read_bytes())
    (tmp_path / "marks.csv").write_text("film,tip_x,tip_y\nf0.png,1,2\nf1.png,,\nf2.png,3,4\n")
    assert run(films, "--annotations", tmp_path / "marks.csv") == 0
    printed = capsys.readouterr().out
    assert "identical" in printed and "copy.png" in printed and "2 films annotated" in printed and "tip" in printed


def test_datalist_and_single_film(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "datalist.json"
    save_datalist(prepare_folder(films), path)
    assert run(path) == 0 and "unlabelled" in capsys.readouterr().out
    assert run(films / "f0.png") == 0
    (films / "f2.png").unlink()
    assert run(path) == 3
    with pytest.raises(ConfigurationError, match="brings its own"):
        run(path, "--spacing", 0.1, 0.1)


def test_names_with_brackets_are_printed_as_they_are(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (films / "[bold]x.png").write_bytes(b"")
    assert run(films) == 3
    assert "[bold]x.png" in capsys.readouterr().out


def test_errors(films: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        run(tmp_path / "nothing")
    with pytest.raises(FilmError, match="--spacing"):
        run(films, "--spacing", 0, 0.1)
    with pytest.raises(SystemExit):
        run()
