"""``prepare`` on the command line: options reach the adapters, the exit code says what was left out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from monai_landmark.apps.commands import prepare
from monai_landmark.data.datalist import Datalist, load_datalist
from monai_landmark.errors import AnnotationError, ConfigurationError, DataError, FilmError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return prepare.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Five annotated films and one that is not."""
    folder = tmp_path / "films"
    folder.mkdir()
    lines = ["film,tip_x,tip_y,base_x,base_y"]
    for number in range(6):
        coarse = np.random.default_rng(number).uniform(0, 255, (9, 8)).astype(np.uint8)
        Image.fromarray(coarse).resize((30, 40), Image.Resampling.BICUBIC).save(folder / f"f{number}.png")
        lines += [f"f{number}.png,{number + 1},2,3,4"] if number < 5 else []
    (tmp_path / "marks.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_folder_to_datalist(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lists" / "datalist.json"
    marks = tmp_path / "marks.csv"
    code = run(
        *("folder", films, "--out", out, "--annotations", marks, "--spacing", 0.2, 0.1),
        *("--test-fraction", 0.4, "--validation-fraction", 0.2, "--seed", 3, "--patient-pattern", r"f(\d)"),
    )
    assert code == 0
    sections = {name: len(items) for name, items in Datalist.load(out).sections.items()}
    assert sections == {"training": 2, "validation": 1, "test": 2, "unlabelled": 1}
    first = load_datalist(out, "training")[0]
    assert Path(first["image"]).is_file() and first["spacing"] == [0.2, 0.1] and first["patient"] in "01234"
    base = json.loads(out.read_text())["root"]
    assert len(load_decathlon_datalist(str(out), False, "test", base_dir=base)) == 2
    printed = capsys.readouterr().out
    assert "training" in printed and "seed 3" in printed and "wrote" in printed


def test_exit_code_three_names_the_broken_film(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (films / "f5.png").write_bytes(b"")
    out = tmp_path / "datalist.json"
    assert run("folder", films, "--out", out, "--annotations", tmp_path / "marks.csv") == 3
    assert "f5.png" in capsys.readouterr().out
    assert [entry["film"] for entry in json.loads(out.read_text())["left_out"]] == ["f5.png"]


def test_own_folders_with_copies_are_refused_by_default(films: Path, tmp_path: Path) -> None:
    for number in range(5):
        (films / f"copy{number}.png").write_bytes((films / f"f{number}.png").read_bytes())
    out = tmp_path / "datalist.json"
    arguments = ("folder", films, "--out", out, "--annotations", tmp_path / "marks.csv")
    with pytest.raises(AnnotationError, match="same picture"):
        run(*arguments)
    assert not out.exists()
    assert run(*arguments, "--duplicates", "mark") == 0
    marked = [item["id"] for _, item in Datalist.load(out).items() if "near_duplicates" in item]
    assert len(marked) == 10
    assert run(*arguments, "--duplicates", "drop") == 0
    assert {entry.by for entry in Datalist.load(out).left_out} == {"rule"}
    assert Datalist.load(out).duplicates == []


@pytest.mark.parametrize("spacing", [("0.1", "0"), ("nan", "0.1"), ("-0.1", "0.1"), ("0.1", "9")])
def test_impossible_spacing(films: Path, tmp_path: Path, spacing: tuple[str, str]) -> None:
    with pytest.raises(FilmError, match="--spacing"):
        run("folder", films, "--out", tmp_path / "out.json", "--spacing", *spacing)


@pytest.mark.parametrize(
    "arguments",
    [
        ("folder", "DIR"),
        ("isbi2015", "DIR", "--out", "x", "--reader", "nobody"),
        ("isbi2015", "DIR", "--out", "x", "--spacing", "0.1"),
        ("dha", "DIR", "--out", "x", "--spacing-rule", "0.1"),
        ("folder", "DIR", "--out", "x", "--duplicates", "ignore"),
        ("other", "DIR", "--out", "x"),
        (),
    ],
)
def test_usage_errors(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2


def test_dha_asks_for_a_spacing_rule(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--spacing-rule wrist50"):
        run("dha", tmp_path, "--out", tmp_path / "out.json")


@pytest.mark.parametrize("dataset", ["isbi2015", "chest6", "folder"])
def test_empty_folder(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(DataError):
        run(dataset, tmp_path, "--out", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_hand_sample(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "hand.json"
    assert run("dha", shared_data / "hand", "--out", out, "--spacing-rule", "header") == 0
    assert {item["spacing_source"] for _, item in Datalist.load(out).items()} == {"uncalibrated"}


def test_annotations_that_look_wrong_are_told(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marks, corners = tmp_path / "marks.csv", np.array([[4, 5], [24, 6], [5, 33], [25, 35], [12, 18]], dtype=float)
    header = "film," + ",".join(f"p{k}_{axis}" for k in range(5) for axis in "xy")

    def written(mirrored: int | None) -> str:
        rows = [header]
        for number in range(5):
            points = corners + np.random.default_rng(number).normal(0, 0.4, corners.shape)
            points = [29, 0] + points * [-1, 1] if number == mirrored else points
            rows.append(f"f{number}.png," + ",".join(f"{value:.2f}" for value in points.ravel()))
        marks.write_text("\n".join(rows) + "\n")
        assert run("folder", films, "--out", tmp_path / "datalist.json", "--annotations", marks) == 0
        return capsys.readouterr().out

    assert "look at" not in written(None)
    told = written(2)
    assert "Annotations to look at: 1" in told and "mirrored" in told and "f2" in told
