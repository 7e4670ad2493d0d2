"""A bundle or a weights file from elsewhere, looked at from end to end without running any of it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.files import file_sha256
from monai_landmark.safety.archives import MOST_BYTES, MOST_FILES, check_archive, extract_archive
from monai_landmark.safety.configs import check_config, resolved_config
from monai_landmark.safety.documents import read_document
from monai_landmark.safety.facts import (
    check_card,
    check_facts,
    check_large_files,
    check_logging,
    check_metadata,
    read_hashes,
)
from monai_landmark.safety.paths import path_problem
from monai_landmark.safety.tensors import check_array, check_weights

__all__ = ["Verification", "verify"]

_WEIGHTS = {".safetensors", ".pt", ".pth", ".ckpt"}
_DOCUMENTS = {".json", ".yaml", ".yml"}
_TEXTS = {".md", ".txt", ".rst", ".csv", ".png", ".jpg", ".jpeg", ".gif"}
_NAMES = {"LICENSE", "NOTICE", "README", "SHA256SUMS", ".gitattributes", ".gitignore"}
_DEEPEST = 8
_WHY = {
    ".py": "is code",
    ".so": "is code",
    ".sh": "is code",
    ".pyc": "is code",
    ".pkl": "is a pickle, which is code",
    ".pickle": "is a pickle, which is code",
    ".joblib": "is a pickle, which is code",
    ".ts": "is TorchScript, a program",
    ".pt2": "is an exported program",
    ".onnx": "is a graph that may name other files",
    ".zip": "is an archive in a bundle",
    ".npz": "is an archive in a bundle",
}


@dataclass
class Verification:
    """What was found.

    Attributes:
        path: what was looked at.
        findings: each with file, field, value and what to do; none: nothing in it runs, writes elsewhere or takes more
            memory than its size.
        sha256: of every file that was looked at, by its path below the bundle.
        recorded: where the bundle itself states a file's hash, by the file's path: ``SHA256SUMS`` or ``model.json``.
    """

    path: str
    findings: list[DataError] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)
    recorded: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """As plain values.

        Returns:
            ``path``, ``clean``, ``findings`` and ``files``.
        """
        keys = ("file", "field", "problem", "value", "expected", "action")
        findings = [{key: getattr(each, key) for key in keys} for each in self.findings]
        for each in findings:
            each["value"] = None if each["value"] is None else str(each["value"])[:200]
        files = {name: {"sha256": sha, "recorded_in": self.recorded.get(name)} for name, sha in self.sha256.items()}
        return {"path": self.path, "clean": self.clean, "findings": findings, "files": files}


def verify(path: str | PathLike[str]) -> Verification:
    """Look at a bundle's folder, a zip of it, or one weights, configuration or array file.

    Args:
        path: the folder or file.

    Returns:
        What was found.

    Raises:
        ConfigurationError: if there is nothing at the path.
    """
    place = Path(path)
    done = Verification(str(place))
    if place.is_dir():
        _look_at_folder(place, done)
    elif not place.is_file():
        raise ConfigurationError("nothing is here", file=place, action="give a bundle's folder, a zip of it, or a file")
    elif place.suffix.lower() == ".zip":
        done.findings += check_archive(place)
        if done.clean:
            with tempfile.TemporaryDirectory(prefix="monai_landmark_verify_") as folder:
                _look_at_archive(place, Path(folder), done)
    else:
        _look_at_file(place, place.name, done, {})
        done.sha256[place.name] = file_sha256(place)
    return done


def _look_at_archive(place: Path, folder: Path, done: Verification) -> None:
    try:
        _look_at_folder(extract_archive(place, folder), done)
    except ConfigurationError as error:
        done.findings.append(error)


def _look_at_folder(root: Path, done: Verification) -> None:
    documents: dict[str, dict[str, Any]] = {}
    for name, file in _files(root, done.findings):
        _look_at_file(file, name, done, documents)
        done.sha256[name] = file_sha256(file)
    for name, content in documents.items():
        others = {key: value for each in documents.values() if each is not content for key, value in each.items()}
        done.findings += check_config(content, name, others)
    _compare_hashes(root, done)


def _files(root: Path, findings: list[DataError]) -> Iterator[tuple[str, Path]]:
    """Plain files below a folder; whatever else is there becomes a finding, and is not entered."""
    count = total = 0
    for folder, folders, names in os.walk(root):
        inside = Path(folder)
        for name in sorted(names + folders):
            file = inside / name
            place = file.relative_to(root).as_posix()
            problem = _place_problem(file, root, place)
            if problem is not None:
                findings.append(ConfigurationError(problem, file=place, action="remove it"))
                folders[:] = [each for each in folders if each != name]
            elif name in names:
                count, total = count + 1, total + file.stat().st_size
                if count > MOST_FILES or total > MOST_BYTES:
                    problem, expected = "is too large for a bundle", f"at most {MOST_FILES} files, {MOST_BYTES} bytes"
                    findings.append(ConfigurationError(problem, file=root, expected=expected, action="do not use it"))
                    return
                yield place, file


def _place_problem(file: Path, root: Path, place: str) -> str | None:
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        # links to folders could go in circles
        inside = file.is_file() and file.resolve().is_relative_to(root.resolve())
        return None if inside else "is a link that leads out of the bundle, to a folder, or nowhere"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "is a device, a pipe or a socket"
    if file.name not in _NAMES and (problem := path_problem(place)):
        return f"has a name that {problem}"
    return "is nested too deep" if place.count("/") > _DEEPEST else None


def _look_at_file(file: Path, name: str, done: Verification, documents: dict[str, dict[str, Any]]) -> None:
    kind = file.suffix.lower()
    try:
        if kind in _WEIGHTS:
            check_weights(file, name)
        elif kind == ".npy":
            check_array(file, name)
        elif kind == ".conf":
            done.findings += check_logging(file, name)
        elif kind in _DOCUMENTS:
            _look_at_document(file, name, done, documents)
        elif kind not in _TEXTS and file.name not in _NAMES and file.stat().st_size and not _is_curve(file):
            problem = _WHY.get(kind, "is of a kind that is not looked into")
            raise ConfigurationError(problem, file=name, action="remove it, or use it outside the bundle")
    except DataError as error:
        done.findings.append(error)


def _is_curve(file: Path) -> bool:
    """What TensorBoard left of a training; nothing here opens it."""
    return file.name.startswith("events.out.tfevents.")


def _look_at_document(file: Path, name: str, done: Verification, documents: dict[str, dict[str, Any]]) -> None:
    content = read_document(file, name)
    if file.name == "metadata.json":
        done.findings += check_metadata(content, name)
    elif file.name == "model.json":
        done.findings += check_card(content, name)
    elif file.stem.startswith("large_files"):
        done.findings += check_large_files(content, name)
    elif name.startswith("configs/"):
        documents[name] = resolved_config(content, name)
    elif "/" not in name and done.path.endswith(name):  # a single file
        done.findings += check_config(resolved_config(content, name), name)
    else:
        done.findings += check_facts(content, name)


def _compare_hashes(root: Path, done: Verification) -> None:
    """Hold every file against the hash that the bundle states of it."""
    for name in [each for each in done.sha256 if each.split("/")[-1] == "SHA256SUMS"]:
        try:
            stated = read_hashes(root / name, name)
        except ConfigurationError as error:
            done.findings.append(error)
            continue
        for place, sha256 in stated.items():
            _compare(place, sha256, name, done)
        missing = [each for each in done.sha256 if Path(each).suffix in _WEIGHTS | _DOCUMENTS and each not in stated]
        for place in missing:
            done.findings.append(ConfigurationError("is not listed", file=place, field=name, action="add its hash"))
    for name in [each for each in done.sha256 if each.split("/")[-1] == "model.json"]:
        _compare_card(root, name, done)


def _compare_card(root: Path, name: str, done: Verification) -> None:
    weights = (Path(name).parent / "model.safetensors").as_posix()
    try:
        stated = read_document(root / name, name).get("sha256")
    except ConfigurationError:
        return  # found before
    if stated is not None and weights in done.sha256:
        _compare(weights, str(stated), name, done)


def _compare(place: str, stated: str, source: str, done: Verification) -> None:
    found = done.sha256.get(place)
    done.recorded[place] = source
    if found != stated:
        problem = "is not the file whose hash is recorded" if found else "is recorded but not there"
        expected, action = f"{stated}, from {source}", "get it again from where it was published"
        done.findings.append(
            ConfigurationError(problem, file=place, field="sha256", value=found, expected=expected, action=action)
        )
