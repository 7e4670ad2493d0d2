"""What clients see of a task's output: this package's own lines, and never a path of the server."""

from __future__ import annotations

import sys

import pytest

from monai_landmark.errors import ConfigurationError, FilmError
from monai_landmark.label.progress import OwnLines, tell_why, without_folders

STEP = "[2026-11-21 12:00:00,001] [17] [MainThread] [INFO] (monai_landmark.label:209) - step 2 of 2: loss 1.5, 3 s left"
OTHERS = [
    "[2026-11-21 12:00:00,001] [17] [MainThread] [INFO] (monailabel.interfaces.utils.app:39) - Initializing App from: "
    "/srv/app; studies: /srv/films",
    '  File "/srv/main.py", line 1, in <module>',
    "monai_landmark.errors.FilmError: /srv/films/Planted_Jane.png: broken",
    "x (monai_landmark.label:209) - /srv/films",
    "(monai_landmark.label:209) - /srv/films",
    "not failed: /srv/films",
]


def test_only_own_lines_are_kept_and_of_them_the_last() -> None:
    lines = OwnLines(maxlen=2)
    for line in [*OTHERS, STEP.replace("step 2", "step 0"), STEP.replace("step 2", "step 1"), STEP, *OTHERS]:
        lines.append(line)
    assert list(lines) == [STEP.replace("step 2", "step 1"), STEP]


def test_a_failure_is_told_without_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigurationError("the training failed (/srv/My films/film 1.png: broken; field: x)", file="/srv/config")
    try:
        raise error
    except ConfigurationError:
        tell_why(*sys.exc_info())  # type: ignore[arg-type]
    told, kept_back = capsys.readouterr()
    lines = OwnLines(maxlen=20)
    for line in [*kept_back.splitlines(), *told.splitlines()]:
        lines.append(line)
    assert list(lines) == ["failed: the training failed (film 1.png: broken; field: x)"]
    assert "Traceback" in kept_back


def test_a_failure_of_the_code_names_its_kind_only(capsys: pytest.CaptureFixture[str]) -> None:
    tell_why(RuntimeError, RuntimeError("/srv/films/Planted_Jane.png"), None)
    assert capsys.readouterr().out == "failed: the server failed (RuntimeError); its log says where\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/a/b c/d.png: broken", "d.png: broken"),
        ("no file '/a/b'; what to do: and/or 1/2", "no file 'b'; what to do: and/or 1/2"),
        ("(/a/b.png), then /c/d/e.png", "(e.png"),
        ("loss 1.5, 3 s left", "loss 1.5, 3 s left"),
        (str(FilmError("no film", file="/a/b.dcm", expected="0.1 mm/px")), "b.dcm: no film; expected: 0.1 mm/px"),
    ],
)
def test_folders_are_left_out(text: str, left: str) -> None:
    assert without_folders(text) == left
