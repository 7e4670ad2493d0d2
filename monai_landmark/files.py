"""Files that a crash cannot spoil: written beside, flushed to disk, then moved into place."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO

__all__ = ["file_sha256", "left_behind", "replace_file", "write_text"]


@contextmanager
def replace_file(path: str | PathLike[str], keep: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of ``path`` when all of it is on disk.

    A new file gets the mode that the user's umask gives, an old one keeps its own. A link stays: the file that it leads
    to is replaced. A device or a pipe, such as ``/dev/stdout``, is written to as it is.

    Args:
        path: the file to write, left as it was if the block raises; its folder is made when absent.
        keep: where the file that is replaced goes; in the same folder.

    Yields:
        A binary file object.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    target = path.resolve()
    temporary = target.with_name(f"{_beginning(target)}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            if keep is not None:
                os.replace(target, keep)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def left_behind(path: str | PathLike[str]) -> list[Path]:
    """What a process that was killed inside :func:`replace_file` left beside a file.

    Args:
        path: the file; nobody else may be writing it now.

    Returns:
        Files that are not needed.
    """
    target = Path(path).resolve()
    return sorted(target.parent.glob(f"{glob.escape(_beginning(target))}{'?' * 16}.tmp"))


def _beginning(target: Path) -> str:
    """Of the temporary file's name; a part of the target's only, for the longest name a file can have must not grow."""
    return f".{target.name[:40]}."


def write_text(path: str | PathLike[str], text: str) -> Path:
    """Write UTF-8 text with line feeds on every system; a reader sees the old file or the new one, never half of it.

    Args:
        path: the file; its folder is made when absent.
        text: its new content.

    Returns:
        The path.
    """
    content = text.encode("utf-8")
    with replace_file(path) as stream:
        stream.write(content)
    return Path(path)


def file_sha256(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it.

    Args:
        path: the file.

    Returns:
        Hexadecimal digest.
    """
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    """Bring a new name to disk, on systems that can open a folder."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
