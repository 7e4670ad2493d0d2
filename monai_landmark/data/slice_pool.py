"""Slices to pre-train on, from lists and folders of scans, with the scans of the evaluation kept out.

The result is the :class:`~monai_landmark.data.pool.Pool` that films have too, so that all after it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_landmark.data.datalist import LeftOut
from monai_landmark.data.pool import Pool
from monai_landmark.data.scan_list import ScanList, load_scans, slices_of
from monai_landmark.data.scan_reader import SCANS, find_scans
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256

__all__ = ["scan_sha256", "slice_pool"]

Item = dict[str, Any]


def slice_pool(
    datalist: str | PathLike[str] | None = None,
    pool: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    evaluation: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    positions: int = 0,
    every: int = 1,
) -> Pool:
    """Collect the slices to pre-train on.

    Scans of the test sections, other scans of their patients, and files equal to theirs are left out; of a list with
    blocks the test blocks, and whatever no section has, are. Labels are not looked at.

    Args:
        datalist: the run's own list of scans.
        pool: further lists, and folders of scans.
        evaluation: further lists, of which the test section counts, and folders, whose scans must not be in the pool.
        positions: number of parts, from feet to head, that a scan is cut into; a slice's part becomes its condition.
            0: slices have no condition.
        every: of so many slices of a scan one is taken.

    Returns:
        The pool: films are slices, with ``scan`` and ``slice``; a patient's slices stay together when some are held
        out.

    Raises:
        ConfigurationError: if no slice is left, or a number is impossible.
    """
    if positions < 0 or every < 1:
        value = {"positions": positions, "every": every}
        raise ConfigurationError("impossible", field="positions, every", value=value, expected="0 or more, 1 or more")
    sources = [*([datalist] if datalist is not None else []), *_paths(pool)]
    kept_out = [scan for path in [*sources, *_paths(evaluation)] for scan in _tested(Path(path), path in sources)]
    patients, hashes = {scan["patient"] for scan in kept_out}, {scan["sha256"] for scan in kept_out}
    scans: dict[tuple[str, str], Item] = {}
    left_out: list[LeftOut] = []
    for path in sources:
        for scan in _offered(Path(path)):
            own_blocks = bool(scan.get("blocks"))  # the list has seen to it that they are apart from the test blocks
            if not own_blocks and (scan["patient"] in patients or scan["sha256"] in hashes):
                left_out.append(LeftOut(scan["id"], "a scan or a patient of the evaluation", by="rule"))
            else:
                scans.setdefault((scan["sha256"], str(scan.get("blocks"))), scan)
    films = [film for scan in scans.values() for film in _films(scan, positions, every)]
    if not films:
        action = "name other scans, or fewer for the evaluation"
        raise ConfigurationError("no slice is left to pre-train on", field="pool", value=sources, action=action)
    names = tuple(Path(path).name for path in sources)
    return Pool(films, names, tuple(f"part {n + 1} of {positions}" for n in range(positions)), None, left_out)


def scan_sha256(path: str | PathLike[str]) -> str:
    """Hash of a scan: of its file, or of the names and contents of a series."""
    import hashlib

    place = Path(path)
    if place.is_file():
        return file_sha256(place)
    digest = hashlib.sha256()
    for file in sorted(one for one in place.iterdir() if one.is_file()):
        digest.update(f"{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _paths(given: Any) -> list[str | PathLike[str]]:
    return [given] if isinstance(given, (str, PathLike)) else list(given)


def _offered(path: Path) -> Iterable[Item]:
    """Scans of a source that may be trained on."""
    if path.is_dir():
        return _of_folder(path)
    sections = [name for name in ScanList.load(path).sections if name != "test"]
    return [scan for name in sections for scan in load_scans(path, name)]


def _tested(path: Path, only_lists: bool) -> Iterable[Item]:
    """Scans of a path that are evaluated on: the test section of a list, all of a folder that is named for that."""
    if path.is_dir():
        return [] if only_lists else _of_folder(path)
    return load_scans(path, "test") if "test" in ScanList.load(path).sections else []


def _of_folder(path: Path) -> list[Item]:
    return [
        {
            **found,
            "patient": found["id"],
            "sha256": scan_sha256(found["image"]),
            "slices": len(SCANS.scan(found["image"])),
        }
        for found in find_scans(path)
    ]


def _films(scan: Mapping[str, Any], positions: int, every: int) -> list[Item]:
    count = int(scan["slices"])
    return [
        {
            **{key: film[key] for key in ("image", "slice", "scan", "id", "patient")},
            "source": 1 + film["slice"] * positions // count if positions else 0,
            "source_name": scan["id"],
        }
        for film in slices_of(scan)
        if film["slice"] % every == 0
    ]
