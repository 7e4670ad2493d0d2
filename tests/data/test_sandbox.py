"""Films read in a process of their own: the same films, the same refusals, and what happens when it dies."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import ramp, write_film
from PIL import Image

from monai_landmark.data import formats
from monai_landmark.data.formats import read_film, read_films_by
from monai_landmark.data.sandbox import FilmSandbox
from monai_landmark.errors import FilmError


@pytest.fixture(scope="module")
def sandbox():
    with FilmSandbox() as one:
        yield one


def test_same_film(tmp_path: Path, sandbox: FilmSandbox):
    path = write_film(tmp_path / "film.dcm", kind="DX", ImagerPixelSpacing=[0.2, 0.1])
    here, there = read_film(path, apply_voi=False), sandbox.read(path, None, False)
    assert np.array_equal(here.pixels, there.pixels) and there.pixels.flags.writeable
    assert (here.spacing, here.info) == (there.spacing, there.info)
    assert sandbox.read(path, (0.3, 0.4)).spacing == read_film(path, (0.3, 0.4)).spacing


def test_same_refusal(tmp_path: Path, sandbox: FilmSandbox):
    path = write_film(tmp_path / "film.dcm", raw={"PixelSpacing": "nan\\0.1"})
    with pytest.raises(FilmError) as here:
        read_film(path)
    with pytest.raises(FilmError) as there:
        sandbox.read(path)
    assert str(here.value) == str(there.value)
    with pytest.raises(FilmError, match="no such file"):
        sandbox.read(tmp_path / "absent.dcm")


def test_worker_that_dies_is_replaced(tmp_path: Path, sandbox: FilmSandbox):
    path = write_film(tmp_path / "film.dcm")
    sandbox.read(path)
    assert sandbox._process is not None
    sandbox._process.kill()
    sandbox._process.wait()
    assert sandbox.read(path).size == (64, 96)


def test_crash_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A worker that ends in the middle of a film."""
    path = write_film(tmp_path / "film.dcm")
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\necho '{\"limits_memory\": true}'\nread line\nkill -SEGV $$\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    with FilmSandbox() as one, pytest.raises(FilmError, match="failed badly"):
        one.read(path)


def test_too_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_film(tmp_path / "film.dcm")
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\necho '{\"limits_memory\": true}'\nread line\nexec sleep 60\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    with FilmSandbox(seconds=0.5) as one, pytest.raises(FilmError, match=r"more than 0\.5 s"):
        one.read(path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_too_much_memory(tmp_path: Path):
    Image.fromarray(np.tile(ramp(bits=8).astype(np.uint8), (60, 40))).save(tmp_path / "film.png")
    with FilmSandbox(memory_bytes=2**25) as one:
        with pytest.raises(FilmError, match=r"memory|failed badly|MemoryError"):
            one.read(tmp_path / "film.png")
        assert one.limits_memory
        assert one.read(write_film(tmp_path / "small.dcm")).size == (64, 96)


def test_threads_get_their_own_films(tmp_path: Path, sandbox: FilmSandbox):
    paths = [write_film(tmp_path / f"{n}.dcm", np.full((20, 10 + n), 100 + n, np.uint16)) for n in range(8)]
    found: dict[int, tuple[int, float]] = {}

    def read(number: int) -> None:
        film = sandbox.read(paths[number])
        found[number] = (film.size[1], float(film.pixels[0, 0]))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (10 + number, 100.0 + number) for number in range(8)}


def test_all_films_of_a_process(tmp_path: Path, sandbox: FilmSandbox):
    path = write_film(tmp_path / "film.dcm")
    asked = []

    def read(file: Path, spacing_mm, apply_voi: bool):
        asked.append(os.fspath(file))
        return sandbox.read(file, spacing_mm, apply_voi)

    read_films_by(read)
    try:
        read_film(path)
    finally:
        read_films_by(None)
    assert asked == [str(path)] and formats._reader is formats._read_here
