"""The command line: exit codes, help, and errors that a person can read."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

import monai_landmark
from monai_landmark.apps import cli
from monai_landmark.apps.commands import inspect as inspect_command
from monai_landmark.errors import FilmError


def exit_code(*words: str) -> int:
    """Exit code of the process that these words would start."""
    try:
        return cli.main(words)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: python -m monai_landmark {command}") and cli.COMMANDS[command] in " ".join(
        said.split()
    )


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    said = capsys.readouterr().out
    assert all(command in said for command in cli.COMMANDS)


def test_every_command_module_is_listed() -> None:
    folder = Path(cli.__file__).with_name("commands")
    modules = {path.stem for path in folder.glob("*.py") if "def run(" in path.read_text(encoding="utf-8")}
    assert modules == set(cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.strip() == monai_landmark.__version__


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["no-such-command"],
        ["predict"],
        ["predict", "film.png"],
        ["predict", "film.png", "--out", "o", "--spacing", "0.1"],
        ["synthesize", "folder", "--training", "many"],
    ],
)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*words) == 2
    assert "usage:" in capsys.readouterr().err


def test_failure_is_1_and_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("inspect", str(tmp_path / "absent")) == 1
    said = capsys.readouterr().err
    assert said.startswith("error:") and "absent" in said and "Traceback" not in said


def test_error_text_in_brackets_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets are markup to rich: a value would vanish, a path would raise an error about markup."""

    def fail(args: argparse.Namespace) -> int:
        raise FilmError("bad spacing", file="[/data]/film [old].dcm", value=[float("nan"), 0.1])

    monkeypatch.setattr(inspect_command, "run", fail)
    assert exit_code("inspect", "x") == 1
    said = capsys.readouterr().err
    assert "[/data]/film [old].dcm" in said and "[nan, 0.1]" in said


def test_file_in_the_way_is_1_without_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert exit_code("synthesize", str(tmp_path / "file"), "--training", "1", "--test", "0", "--unlabelled", "0") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_done_is_0_and_left_out_is_3(tmp_path: Path) -> None:
    counts = ["--training", "1", "--test", "0", "--unlabelled", "0"]
    assert exit_code("synthesize", str(tmp_path), *counts) == 0
    assert exit_code("inspect", str(tmp_path / "films")) == 0
    (tmp_path / "films" / "broken.png").write_bytes(b"no film")
    assert exit_code("inspect", str(tmp_path / "films")) == 3


def test_module_hands_its_exit_code_to_the_shell(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "monai_landmark", "inspect", str(tmp_path / "absent")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "error:" in done.stderr


@pytest.mark.parametrize("command", ["inspect", "prepare", "deidentify", "leaks"])
def test_commands_for_films_start_without_torch(command: str) -> None:
    """With it each takes ten times the memory, and seconds before the first film."""
    code = f"import sys, monai_landmark.apps.commands.{command}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
