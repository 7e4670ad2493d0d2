"""Planted names, dates, numbers and UIDs in films and their folders: no command tells those that it must not."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
_RUN = """
import json, sys
from pathlib import Path
import phi
work = Path(sys.argv[1])
leaks, looked_for, files = phi.search(work, phi.SHORT)
(work / "found.json").write_text(json.dumps([leaks, looked_for, files]))
"""


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import phi_plants

    return phi_plants


def test_nothing_that_was_planted_is_told(tmp_path: Path) -> None:
    """The commands that take seconds; the server and the others are in ``benchmarks/robustness.py phi``."""
    words = [sys.executable, "-c", _RUN, str(tmp_path / "work")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])}
    done = subprocess.run(
        words, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    leaks, looked_for, files = json.loads((tmp_path / "work" / "found.json").read_text())
    assert leaks == [] and files > 40 and looked_for > 1500


def packed(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "hide",
    [
        lambda word: f"x {word.lower()} y".encode(),
        lambda word: word.encode("utf-16-le"),
        lambda word: b64encode(f"ab{word} and more".encode()),
        lambda word: f"%20{word.replace('^', '%5E')}".encode(),
        lambda word: word.encode().hex().encode(),
        lambda word: packed(word.encode()),
        lambda word: gzip.compress(word.encode()),
        lambda word: b'<img src="data:x;base64,' + b64encode(packed(word.encode() + bytes(200))) + b'">',
        lambda word: word.split("^")[0].encode(),
    ],
)
def test_the_search_would_find_it(plants: ModuleType, hide: Callable[[str], bytes]) -> None:
    word = plants.TAGGED[0]
    assert plants.found(plants.TAGGED[:2], "file", hide(word)) == [word]
    assert plants.found((word,), f"folder/{word}.png", b"") == [word]


def test_the_search_takes_no_number_for_a_date(plants: ModuleType) -> None:
    (date,) = (word for word in plants.TAGGED if word == "19310111")
    assert len({*plants.TAGGED, *plants.NAMED}) == 50
    assert plants.found((date,), "", b"0.19310111, 319310111, 193101110") == []
    assert plants.found((date,), "", b"born 11.01.1931") == plants.found((date,), "", b"DA19310111\0") == [date]
