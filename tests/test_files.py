"""Files that a crash cannot spoil."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
import torch

from monai_landmark.files import file_sha256, replace_file, write_text
from monai_landmark.networks import read_state_dict


def write_without_end(file):
    """Body of a process that is to be killed."""
    number = 0
    while True:
        number += 1
        with replace_file(file) as stream:
            torch.save({"weight": torch.full((16, 256), float(number))}, stream)


class TestReplaceFile:
    def test_writes_and_makes_folders(self, tmp_path):
        mask = os.umask(0o022)
        with replace_file(tmp_path / "a" / "b" / "file") as stream:
            stream.write(b"new")
        os.umask(mask)
        assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"
        assert os.stat(tmp_path / "a" / "b" / "file").st_mode & 0o777 == 0o644
        assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["file"]

    def test_the_old_file_stands_until_the_new_one_is_whole(self, tmp_path):
        (tmp_path / "file").write_bytes(b"old")
        with replace_file(tmp_path / "file") as stream:
            stream.write(b"new")
            stream.flush()
            assert (tmp_path / "file").read_bytes() == b"old"
        assert (tmp_path / "file").read_bytes() == b"new"

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_an_exception_leaves_the_old_file(self, tmp_path, error):
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(type(error)), replace_file(tmp_path / "file") as stream:
            stream.write(b"half")
            raise error
        assert (tmp_path / "file").read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["file"]

    def test_twenty_kills_leave_a_readable_file(self, tmp_path):
        file, written = tmp_path / "weights.pt", set()
        for kill in range(20):
            # forked, for a new interpreter would take seconds to import torch
            writer = multiprocessing.get_context("fork").Process(target=write_without_end, args=(file,), daemon=True)
            last = file.stat().st_mtime_ns if file.exists() else 0
            writer.start()
            while not file.exists() or file.stat().st_mtime_ns == last:
                time.sleep(0.001)
            time.sleep(0.002 * (kill % 10))
            assert writer.is_alive() and writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
            assert writer.exitcode == -signal.SIGKILL
            weight = read_state_dict(file)["weight"]
            assert weight.shape == (16, 256) and (weight == weight[0, 0]).all()
            written.add(file.stat().st_mtime_ns)
        assert len(written) == 20, "the kills must come while the file is being replaced"

    @pytest.mark.parametrize("old", [None, 0o600, 0o664])
    def test_mode_by_umask_or_that_of_the_old_file(self, tmp_path, old):
        if old is not None:
            (tmp_path / "file").write_bytes(b"old")
            (tmp_path / "file").chmod(old)
        mask = os.umask(0o027)
        with replace_file(tmp_path / "file") as stream:
            stream.write(b"new")
        os.umask(mask)
        assert (tmp_path / "file").stat().st_mode & 0o777 == (old or 0o640)

    def test_a_link_stays_and_leads_to_the_new_file(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "file").write_bytes(b"old")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
        with replace_file(tmp_path / "link") as stream:
            stream.write(b"new")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "file").read_bytes() == b"new"
        assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["file"]

    def test_a_pipe_is_written_to(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        with replace_file(tmp_path / "pipe") as stream:
            stream.write(b"new")
        assert os.read(reader, 10) == b"new" and (tmp_path / "pipe").is_fifo()
        os.close(reader)

    def test_the_longest_name(self, tmp_path):
        name = "f" * 200 + "\u00fc" * 25 + ".json"
        assert write_text(tmp_path / name, "text").read_text() == "text"


class TestWriteText:
    def test_utf8_with_line_feeds(self, tmp_path):
        assert write_text(tmp_path / "a" / "file", "H\u00fcfte\n").read_bytes() == b"H\xc3\xbcfte\n"

    def test_text_that_is_not_unicode_leaves_the_old_file(self, tmp_path):
        write_text(tmp_path / "file", "old")
        with pytest.raises(UnicodeEncodeError):
            write_text(tmp_path / "file", "\udcff")
        assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_hash_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert file_sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
