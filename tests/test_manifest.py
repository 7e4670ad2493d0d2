"""What ``run.json`` says, and what it does not."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path

import pytest
import torch

from monai_landmark import __version__
from monai_landmark.engines import ModelSaver
from monai_landmark.manifest import run_manifest, write_manifest


def test_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["train", "--films", "/clinic/Doe Jane/DOE_19630412.dcm", "--epochs", "3"])
    (tmp_path / "datalist.json").write_text("{}")
    inputs = {"datalist": tmp_path / "datalist.json", "initialization": "random", "order": None}
    found = json.loads(write_manifest(tmp_path, inputs, [4]).read_text())
    sha256 = hashlib.sha256(b"{}").hexdigest()
    assert found["inputs"] == {
        "datalist": {"name": "datalist.json", "sha256": sha256},
        "initialization": {"name": "random"},
    }
    assert (found["version"], found["seeds"], found["python"]) == (__version__, [4], platform.python_version())
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"] == torch.__version__
    )
    assert (
        found["command"][3:] == ["--epochs", "3"]
        and "doe" not in str(found).lower()
        and platform.node() not in str(found["machine"])
    )
    assert found["commit"] is None or len(found["commit"]) == 40


def test_without_git(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    found = run_manifest()
    assert found["commit"] is None and found["changed"] is None


def test_beside_a_model(tmp_path: Path):
    class State:
        iteration = 3

    class Engine:
        state = State()

    saver = ModelSaver(torch.nn.Linear(1, 1), tmp_path, {"seed": 7}, inputs={"datalist": "none"})
    saver(Engine())
    saver(Engine())
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["seeds"] == [7] and found["inputs"] == {"datalist": {"name": "none"}}
