"""What made a result, as ``run.json`` beside it: versions, commit, command, hashes of what went in, seeds, machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import monai_landmark
from monai_landmark.files import file_sha256, write_text
from monai_landmark.privacy import mask_path, mask_phi

__all__ = ["RUN_FILE", "run_manifest", "short_commit", "write_manifest"]

RUN_FILE = "run.json"
_PACKAGES = (
    *("monai", "torch", "torchvision", "numpy", "scipy", "pytorch-ignite", "timm", "safetensors"),
    *("pydicom", "pillow", "SimpleITK", "nibabel", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls"),
)


def run_manifest(inputs: Mapping[str, Any] | None = None, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Facts of the process that runs.

    Args:
        inputs: by name, files that the result depends on; the datalist holds the hashes of its films. A word that is
            no file stands as it is.
        seeds: of the run.

    Returns:
        Plain dicts, lists, strings and numbers. Words of the command line that are folders, or look like a film's
        path or a person's name, date or number, are masked.
    """
    return {
        "format": "monai-landmark/run",
        "version": monai_landmark.__version__,
        **_source(),
        "command": [mask_path(word) for word in sys.argv],
        "inputs": {name: _input(given) for name, given in (inputs or {}).items() if given is not None},
        "seeds": list(seeds),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": _machine(),
    }


def write_manifest(
    folder: str | PathLike[str], inputs: Mapping[str, Any] | None = None, seeds: Sequence[int] = ()
) -> Path:
    """Write :func:`run_manifest` as :data:`RUN_FILE`.

    Args:
        folder: of the result.
        inputs: see :func:`run_manifest`.
        seeds: likewise.

    Returns:
        The file.
    """
    return write_text(Path(folder) / RUN_FILE, json.dumps(run_manifest(inputs, seeds), indent=1) + "\n")


def _input(given: Any) -> dict[str, str]:
    path = Path(str(given))
    if path.is_file():
        return {"name": mask_phi(path.name), "sha256": file_sha256(path)}
    return {"name": mask_path(str(given))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def short_commit() -> str:
    """Revision of the source that runs, as records state it.

    Returns:
        The abbreviated hash; empty where it is no git checkout.
    """
    return _git("rev-parse", "--short", "HEAD") or ""


def _git(*words: str) -> str | None:
    """What git says of the source that runs; None where it says nothing."""
    command = ["git", "-C", str(Path(monai_landmark.__file__).parent), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - our own
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _source() -> dict[str, Any]:
    """Revision of the source that runs, and whether it was changed since; None where it is no git checkout."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return {"commit": commit, "changed": None if commit is None or changes is None else bool(changes)}


def _machine() -> dict[str, Any]:
    """What it is, not what it is called."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    threads = None if torch is None else torch.get_num_threads()
    kind = f"{platform.system()} {platform.machine()}"
    return {"kind": kind, "cores": os.cpu_count(), "threads": threads, "gpu": gpu}
