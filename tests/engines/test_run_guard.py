"""A misspelled key ends a run before it begins, and what can be mended is the last line of its error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monai_landmark.engines import guard_run
from monai_landmark.errors import ConfigurationError, FilmError, reason_of

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "xray_landmarks" / "configs"
PROGRAM = "/somewhere/monai/bundle/__main__.py"


@pytest.fixture(autouse=True)
def _hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes of the process' hook ends with it."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


def command(*words: str, configs: str = str(CONFIGS / "train.yaml")) -> list[str]:
    return [PROGRAM, "run", "train", "--config_file", configs, *words]


@pytest.mark.parametrize(
    "words",
    [
        ["--label_budget", "10", "--epochs=3", "--label-order", "a.csv"],
        ["--train#trainer#max_epochs", "3", "--validate::evaluator::mode", "eval"],
        ["--train#trainer#anything_that_a_trainer_takes", "3"],
        ["--run_id", "run", "--logging_file", "x.conf", "--tracking", "mlflow", "--tracking_uri", "file:x"],
        ["--resume"],
    ],
)
def test_keys_of_the_config_and_of_monai_pass(words: list[str]) -> None:
    guard_run(command(*words))
    assert sys.excepthook is not sys.__excepthook__


@pytest.mark.parametrize(
    ("words", "key", "meant"),
    [
        (["--label_buget", "10"], "--label_buget", "--label_budget"),
        (["--epoch=3"], "--epoch", "--epochs"),
        (["--trian#trainer#max_epochs", "3"], "--trian#trainer#max_epochs", "--train"),
        (["--xyzzy", "3"], "--xyzzy", None),
    ],
)
def test_another_key_is_refused(words: list[str], key: str, meant: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        guard_run(command(*words))
    assert caught.value.field == key and caught.value.expected == meant


def test_all_configs_and_the_file_of_arguments_count(tmp_path: Path) -> None:
    both = f"['{CONFIGS / 'train.yaml'}','{CONFIGS / 'multi_gpu.yaml'}']"
    guard_run(command("--backend", "gloo", configs=both))
    with pytest.raises(ConfigurationError):
        guard_run(command("--backend", "gloo"))
    arguments = tmp_path / "arguments.yaml"
    arguments.write_text(f"config_file: {CONFIGS / 'train.yaml'}\nepoch: 3\n")
    with pytest.raises(ConfigurationError, match="--epoch"):
        guard_run([PROGRAM, "run", "train", "--args_file", str(arguments)])


def test_other_programs_are_let_alone() -> None:
    guard_run(["/somewhere/pytest/__main__.py", "run", "--config_file", "none.yaml", "--epoch", "3"])
    guard_run([PROGRAM, "ckpt_export", "--epoch", "3"])


def test_the_reason_is_found_inside() -> None:
    reason = FilmError("not a film", file="a.png")
    outer = RuntimeError("wrapped")
    outer.__cause__ = KeyError("x")
    outer.__cause__.__context__ = reason
    assert reason_of(outer) is reason and reason_of(reason) is reason and reason_of(RuntimeError("bare")) is None


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["--label_buget", "10"], "field: --label_buget; expected: --label_budget"),
        (["--dataset_dir", "nowhere"], "nowhere/datalist.json: cannot be read"),
    ],
)
def test_a_real_run_ends_with_the_reason(words: list[str], last: str, tmp_path: Path) -> None:
    config = ["--config_file", str(CONFIGS / "train.yaml"), "--output_dir", str(tmp_path)]
    run = [sys.executable, "-m", "monai.bundle", "run", "train", *config, "--bundle_root", str(CONFIGS.parent), *words]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    final = done.stderr.strip().splitlines()[-1]
    assert final.startswith("error: ") and last in final and "what to do: " in final
