"""Records: every field is there, none is invented, no folder of a machine is told, and a name stands once in a file."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("records")
    sys.modules.pop("records", None)


def test_what_is_not_said_is_told_by_the_run_or_empty(records: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["benchmarks/own.py", "--json", "/home/somebody/docs/own.json", "start=/home/somebody/runs/a b.pt"]
    monkeypatch.setattr(sys, "argv", words)
    made = records.record("a/b", unit="mm", n=3, **records.summary([1.0, 2.0, 6.0]), labels=25)
    assert (made["value"], made["interval"], made["labels"], made["split"]) == (3.0, [1.0, 6.0], 25, None)
    assert made["command"] == "python benchmarks/own.py --json docs/own.json 'start=runs/a b.pt'"
    assert made["date"] == records.today() and made["machine"] == records.machine()
    assert records.record("a/b", 1.0, "mm", 3, commit="abc", seeds=[4])["commit"] == "abc"


def test_a_field_that_no_record_has_is_refused(records: ModuleType) -> None:
    with pytest.raises(TypeError, match="reeder"):
        records.record("a/b", 1.0, "mm", 3, reeder="junior")


def test_a_record_takes_the_place_of_the_one_of_its_name(records: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    records.add_records(file, [records.record("a", 1.0, "mm", 3), records.record("b", 2.0, "mm", 3)])
    records.add_records(file, [records.record("a", 5.0, "mm", 3)])
    assert {one["name"]: one["value"] for one in json.loads(file.read_text())} == {"b": 2.0, "a": 5.0}
