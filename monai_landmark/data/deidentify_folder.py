"""Folders and datalists of films that name no patient: ids are salted, and nothing else of the names is taken over."""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_landmark.data.burned_in import TextLine, find_text
from monai_landmark.data.datalist import Datalist, Item, LeftOut, save_datalist
from monai_landmark.data.datasets.films import Progress
from monai_landmark.data.deidentify import check_copy, deidentify_film
from monai_landmark.data.formats import read_film
from monai_landmark.data.schema import LandmarkSchema, shipped_schemas
from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.files import file_sha256, write_text
from monai_landmark.privacy import pseudonym

__all__ = ["Deidentified", "deidentify_datalist", "deidentify_films", "read_salt", "write_key"]

_KEPT = ("size", "spacing", "spacing_source", "landmarks", "visibility")


@dataclass
class Deidentified:
    """What was done.

    Attributes:
        names: old name of each film -> its new id; whoever has this knows the patients.
        files: new id -> the copy.
        text: new id -> what looks like text burned into the film.
        left_out: films that could not be read; by their old names.
    """

    names: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    text: dict[str, list[TextLine]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def deidentify_films(
    films: Iterable[tuple[str, Path]], out: Path, salt: str, progress: Progress | None = None
) -> Deidentified:
    """Write copies of films, each held against its film.

    Args:
        films: names and files.
        out: folder of the copies.
        salt: a secret; the same one gives the same ids.
        progress: shows how far it is.

    Returns:
        What was done.
    """
    done, known = Deidentified(), list(films)
    for name, file in progress(known, len(known)) if progress else known:
        new = pseudonym(name, salt)
        try:
            copy = deidentify_film(file, out / new, new, salt)
            check_copy(file, copy)
            lines = find_text(read_film(copy).pixels)
        except (DataError, OSError) as error:
            done.left_out.append(LeftOut(name, str(error)))
            continue
        done.names[name], done.files[new] = new, copy
        if lines:
            done.text[new] = lines
    return done


def deidentify_datalist(path: Path, out: Path, salt: str, progress: Progress | None = None) -> Deidentified:
    """Write copies of a datalist's films, and a datalist of them: ``datalist.json`` in the folder.

    Landmarks, spacings, sections, near-duplicates and which films are of one patient stay; names of films, patients,
    readers and folders, notes and reasons do not.

    Args:
        path: the datalist JSON.
        out: folder of the copies.
        salt: a secret; the same one gives the same ids.
        progress: shows how far it is.

    Returns:
        What was done.

    Raises:
        DataError: the datalist is broken.
    """
    datalist = Datalist.load(path)
    films = [(item["id"], datalist.root / item["image"]) for _, item in datalist.items()]
    done = deidentify_films(films, out, salt, progress)
    readers = sorted({reader for _, item in datalist.items() for reader in item.get("readers", {})})
    new_reader = {reader: f"reader {number}" for number, reader in enumerate(readers, start=1)}

    def renamed(item: Item) -> Item:
        """The item of the copy."""
        new = done.names[item["id"]]
        file = done.files[new]
        copy: dict[str, Any] = {"image": file.name, "id": new, "patient": pseudonym(f"patient {item['patient']}", salt)}
        copy |= {key: item[key] for key in _KEPT if key in item} | {"sha256": file_sha256(file)}
        if "readers" in item:
            copy["readers"] = {new_reader[reader]: points for reader, points in item["readers"].items()}
        near = [done.names[other] for other in item.get("near_duplicates", []) if other in done.names]
        return copy | ({"near_duplicates": near} if near else {})

    sections = {
        section: [renamed(item) for item in items if item["id"] in done.names]
        for section, items in datalist.sections.items()
    }
    pairs = [pair for pair in datalist.duplicates if all(film in done.names for film in pair["films"])]
    shared = Datalist(
        name="shared",
        schema=_shared_schema(datalist.schema, out),
        root=out,
        sections={section: items for section, items in sections.items() if items},
        reader=None if datalist.reader is None else new_reader.get(datalist.reader, "mean"),
        duplicates_policy=datalist.duplicates_policy,
        duplicates=[{**pair, "films": [done.names[film] for film in pair["films"]]} for pair in pairs],
        notes=["made by deidentify"],
    )
    save_datalist(shared, out / "datalist.json")
    return done


def _shared_schema(schema: str | None, out: Path) -> str | None:
    """A shipped schema by its name; one's own is copied, for it holds names of landmarks only."""
    if schema is None or schema in shipped_schemas():
        return schema
    LandmarkSchema.load(schema)
    return str(write_text(out / "schema.yaml", Path(schema).read_text(encoding="utf-8")))


def read_salt(path: Path | None) -> str:
    """The secret in a file, which is made when absent; without a file one that nobody will know again.

    Args:
        path: the file.

    Returns:
        The secret.

    Raises:
        ConfigurationError: the file holds less than 16 characters.
    """
    if path is None:
        return secrets.token_hex(32)
    if not path.exists():
        _write_secret(path, secrets.token_hex(32) + "\n")
    salt = path.read_text(encoding="utf-8").strip()
    if len(salt) < 16:
        raise ConfigurationError("the secret is too short", file=path, expected="at least 16 characters")
    return salt


def write_key(path: Path, names: dict[str, str], out: Path) -> None:
    """Write which id is which film; a file that only its owner may read.

    Args:
        path: the CSV.
        names: old name of each film -> its new id.
        out: folder that will be shared, in which the key must not lie.

    Raises:
        ConfigurationError: it would.
    """
    if path.resolve().is_relative_to(out.resolve()):
        raise ConfigurationError(
            "the key would be shared with the films", file=path, field="--key", expected="a file outside of --out"
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("id", "film"))
    writer.writerows((new, old) for old, new in names.items())
    _write_secret(path, table.getvalue())


def _write_secret(path: Path, text: str) -> None:
    opener: Callable[[str, int], int] = lambda name, flags: os.open(name, flags, 0o600)  # noqa: E731 - mode of open()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="", opener=opener) as stream:
        stream.write(text)
