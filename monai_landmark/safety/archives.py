"""Archives from elsewhere: names, links and sizes are looked at before a byte is unpacked."""

from __future__ import annotations

import stat
import zipfile
import zlib
from os import PathLike
from pathlib import Path, PurePosixPath

from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.safety.paths import path_problem

__all__ = ["MOST_BYTES", "MOST_FILES", "check_archive", "extract_archive"]

MOST_FILES = 2000
MOST_BYTES = 16 << 30
_MOST_GROWTH = 200  # deflate makes at most 1032 of one byte; text and weights stay below 20
_FREE_GROWTH = 1 << 20  # a small file may be packed well
_BLOCK = 1 << 20


def check_archive(path: str | PathLike[str]) -> list[DataError]:
    """What an archive would do when it is unpacked, beyond files in a new folder.

    Args:
        path: a zip file.

    Returns:
        Findings, none where it can be unpacked by :func:`extract_archive`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        problem, action = "is no zip archive", "give a bundle's folder, a zip of it, or a weights file"
        return [ConfigurationError(problem, file=path, value=str(error), action=action)]
    if len(members) > MOST_FILES:
        expected, action = f"at most {MOST_FILES}", "check where it comes from"
        problem = "has too many files"
        return [ConfigurationError(problem, file=path, value=len(members), expected=expected, action=action)]
    problems: list[tuple[str, str, object]] = []
    seen: set[str] = set()
    for member in members:
        problems += [(problem, member.filename, value) for problem, value in _member_problems(member)]
        place = str(PurePosixPath(member.filename)).casefold()
        if place in seen:
            problems.append(("names a file twice; which one counts depends on the system", member.filename, None))
        seen.add(place)
    if (total := sum(member.file_size for member in members)) > MOST_BYTES:
        problems.append((f"unpacks to more than {MOST_BYTES} bytes", "", total))
    if sum(member.compress_size for member in members) > Path(path).stat().st_size:
        problems.append(("has files that share their bytes: a bomb", "", None))
    action = "do not unpack it"
    return [
        ConfigurationError(text, file=path, field=name or None, value=v, action=action) for text, name, v in problems
    ]


def _member_problems(member: zipfile.ZipInfo) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    mode = member.external_attr >> 16
    name = member.orig_filename
    if problem := path_problem(name):
        found.append((f"has a name that {problem}", name))
    elif "\\" in name or any(ord(letter) < 32 for letter in name):
        found.append(("has a name with a backslash or control character", name))
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        found.append(("is a link or a device", oct(mode)))
    if member.flag_bits & 1:
        found.append(("is encrypted", None))
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found.append(("is packed by another method than deflate", member.compress_type))
    if member.file_size > _FREE_GROWTH and member.file_size > _MOST_GROWTH * max(1, member.compress_size):
        found.append((f"unpacks to more than {_MOST_GROWTH} times its size: a bomb", member.file_size))
    return found


def extract_archive(path: str | PathLike[str], folder: str | PathLike[str]) -> Path:
    """Unpack an archive in which :func:`check_archive` found nothing.

    Args:
        path: a zip file.
        folder: an empty folder.

    Returns:
        The folder; its only folder where there is one and no file beside it.

    Raises:
        ConfigurationError: if a file is damaged, or longer than the archive says.
    """
    root = Path(folder).resolve()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            target = (root / member.filename).resolve()
            if not target.is_relative_to(root):
                raise ConfigurationError("leads out of its folder", file=path, field=member.filename)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(member) as source, target.open("xb") as sink:
                    while block := source.read(_BLOCK):
                        sink.write(block)
            except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
                problem = "cannot be unpacked"
                raise ConfigurationError(problem, file=path, field=member.filename, value=str(error)) from error
    entries = list(root.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else root
