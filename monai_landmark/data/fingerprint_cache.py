"""Fingerprints kept on disk, so that the second run on the same films need not read them again."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from monai_landmark.data.duplicates import Fingerprint, fingerprint
from monai_landmark.files import replace_file

__all__ = ["load_fingerprints", "save_fingerprints"]

_LOGGER = logging.getLogger(__name__)
_PROBE = "probe"


def _probe() -> Fingerprint:
    """Fingerprint of a picture that never changes: its stored one differs when the method has changed since."""
    rows, columns = np.mgrid[0:200, 0:150].astype(np.float32)
    return fingerprint(np.asarray(rows * columns % 251 + rows, dtype=np.float32))


def load_fingerprints(path: str | PathLike[str]) -> dict[str, Fingerprint]:
    """Fingerprints of an earlier run.

    Args:
        path: the ``.npz`` file that :func:`save_fingerprints` wrote.

    Returns:
        Fingerprints by SHA-256 of the films' files; none, with a warning where there is a file, when it is absent,
        damaged, or of another method than today's.
    """
    file = Path(path)
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as table:
            columns = [table[name] for name in ("film", "content", "bits", "structure")]
            kept = {
                str(name): Fingerprint(str(content), bits.astype(np.bool_), structure.astype(np.float16))
                for name, content, bits, structure in zip(*columns, strict=True)
            }
        stored, now = kept.pop(_PROBE), _probe()
        same = stored.sha256 == now.sha256 and np.array_equal(stored.bits, now.bits)
        if same and np.array_equal(stored.structure, now.structure):
            return kept
        reason = "made by another method"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {error}"
    _LOGGER.warning("%s is not used and will be written anew (%s)", file, reason)
    return {}


def save_fingerprints(path: str | PathLike[str], prints: Mapping[str, Fingerprint]) -> None:
    """Keep fingerprints for later runs, 33 kB each.

    Args:
        path: an ``.npz`` file; a reader sees the old file or the new one, never half of one.
        prints: fingerprints by SHA-256 of the films' files.
    """
    rows = {_PROBE: _probe(), **prints}
    with replace_file(path) as stream:
        np.savez(
            stream,
            film=np.array(list(rows)),
            content=np.array([print.sha256 for print in rows.values()]),
            bits=np.stack([print.bits for print in rows.values()]),
            structure=np.stack([print.structure for print in rows.values()]),
        )
