"""What was seen of films, kept on disk: where a film's file is the same, a later run need not read it again.

A file counts as the same while its name, size and times (of content and of inode) are; one that was changed in the last
seconds is hashed again, for its times might not tell a further change. All else is kept by the file's hash. It is one
SQLite file, so that memory does not grow with the pictures, a run that was killed loses its last seconds only, and
several runs may share it. It names the films by their paths, as a datalist does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import monai_landmark
from monai_landmark.data.duplicates import (
    MIN_SIMILARITY,
    SIDE,
    DuplicatePair,
    Fingerprint,
    fingerprint,
    similar_pairs,
)
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256

__all__ = ["FilmCache", "cache_beside"]

_LOGGER = logging.getLogger(__name__)
_MAGIC = b"SQLite format 3\0"
_KIND = 0x6D6C6D31  # SQLite's application_id of such a file
_SETTLED_S = 2.0  # the coarsest times that file systems keep
_COMMIT_S = 2.0
_WAIT_S = 30.0  # for another process that writes
_STRUCTURES = 1024  # kept in memory, 33 kB each
_TABLES = """
CREATE TABLE method (name TEXT);
CREATE TABLE files (path BLOB PRIMARY KEY, size INT, changed INT, touched INT, sha256 TEXT) WITHOUT ROWID;
CREATE TABLE films (sha256 TEXT, asked TEXT, facts TEXT, content TEXT, PRIMARY KEY (sha256, asked)) WITHOUT ROWID;
CREATE TABLE prints (content TEXT PRIMARY KEY, bits BLOB, compared INT) WITHOUT ROWID;
CREATE TABLE structures (content TEXT PRIMARY KEY, structure BLOB);
CREATE TABLE pairs (first TEXT, second TEXT, similarity REAL, PRIMARY KEY (first, second)) WITHOUT ROWID;
"""


def cache_beside(datalist: str | PathLike[str]) -> Path:
    """Where what was seen of a datalist's films is kept.

    Args:
        datalist: the datalist JSON.

    Returns:
        A file beside it.
    """
    return Path(datalist).with_suffix(".films.sqlite")


class FilmCache:
    """What was seen of films; may be used by several threads.

    Args:
        path: the file; made when absent, and made anew when it is damaged or of another method than today's. None: a
            temporary one, which is gone at the end.

    Raises:
        ConfigurationError: the file is something else.
    """

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._lock, self._committed = threading.RLock(), time.monotonic()
        self._database = self._open()
        self._structure = lru_cache(_STRUCTURES)(self._read_structure)

    # ---- a film --------------------------------------------------------------------------------------------------
    def sha256(self, film: str | PathLike[str]) -> str:
        """Hash of a film's file; it is read only where it is not the one that was read before.

        Args:
            film: its path.

        Raises:
            OSError: the file cannot be read.
        """
        found = os.stat(film)
        stamp, key = (found.st_size, found.st_mtime_ns, found.st_ctime_ns), self._key(film)
        known = self._row("SELECT size, changed, touched, sha256 FROM files WHERE path = ?", key)
        if known is not None and known[:3] == stamp:
            return str(known[3])
        begun = time.time()
        digest = file_sha256(film)
        if begun - max(stamp[1:]) / 1e9 > _SETTLED_S:
            self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", key, *stamp, digest)
        return digest

    def facts(self, sha256: str, asked: Any = None) -> dict[str, Any] | None:
        """What :meth:`keep` was told.

        Args:
            sha256: of the film's file.
            asked: how the film was to be read.

        Returns:
            The facts, not to be changed: films that are alike share them. None where nothing is known.
        """
        query = "SELECT facts FROM films WHERE sha256 = ? AND asked = ? AND content IS NOT NULL"
        row = self._row(query, sha256, json.dumps(asked))
        return None if row is None else _facts(row[0])

    def has_read(self, sha256: str, asked: Any = None) -> bool:
        """Whether a film could be read.

        Args:
            sha256: of its file.
            asked: how it was to be read.

        Returns:
            False also where nobody has tried.
        """
        query = "SELECT 1 FROM films WHERE sha256 = ? AND asked = ?"
        return self._row(query, sha256, json.dumps(asked)) is not None

    def keep_read(self, sha256: str, asked: Any = None) -> None:
        """Keep that a film could be read.

        Args:
            sha256: of its file.
            asked: how it was read.
        """
        self._write("INSERT OR IGNORE INTO films VALUES (?, ?, NULL, NULL)", sha256, json.dumps(asked))

    def keep(self, sha256: str, asked: Any, facts: Mapping[str, Any], print: Fingerprint) -> None:
        """Keep what was seen of a film.

        Args:
            sha256: of the film's file.
            asked: how the film was to be read; plain JSON types.
            facts: likewise.
            print: its fingerprint.
        """
        bits, structure = np.packbits(print.bits).tobytes(), print.structure.astype("<f2").tobytes()
        self._write("INSERT OR IGNORE INTO prints VALUES (?, ?, 0)", print.sha256, bits)
        self._write("INSERT OR IGNORE INTO structures VALUES (?, ?)", print.sha256, structure)
        row = (sha256, json.dumps(asked), json.dumps(facts, default=_plain), print.sha256)
        self._write("INSERT OR REPLACE INTO films VALUES (?, ?, ?, ?)", *row)

    # ---- pairs ---------------------------------------------------------------------------------------------------
    def copies(self, first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int, float, bool]]:
        """Pairs of a film and another group's film that are (nearly) the same picture.

        Args:
            first: SHA-256 of the files of one group; :meth:`keep` was told of all of them.
            second: likewise of the other.

        Returns:
            Place in the first group, place in the second, similarity, and whether every pixel is the same.
        """
        content, bits = self._contents(), dict(self._rows("SELECT content, bits FROM prints"))
        names = [content[sha256] for sha256 in (*first, *second)]
        if not first or not second:
            return []
        packed = np.frombuffer(b"".join(bits[name] for name in names), np.uint8).reshape(len(names), -1)
        found = []
        for i, j, value in similar_pairs(packed, lambda k: self._structure(names[k]), len(first), len(first)):
            same = names[i] == names[j]
            if same or value >= MIN_SIMILARITY:
                found.append((i, j - len(first), 1.0 if same else round(min(value, 1.0), 4), same))
        return sorted(found)

    def duplicates(self, films: Mapping[str, str]) -> list[DuplicatePair]:
        """Every pair of identical or near-identical films; what was compared before is not compared again.

        Args:
            films: SHA-256 of each film's file, by its id; :meth:`keep` was told of all of them.

        Returns:
            As :func:`~monai_landmark.data.duplicates.find_duplicates`.
        """
        self._compare()
        content = self._contents()
        names: dict[str, list[int]] = defaultdict(list)
        for index, sha256 in enumerate(films.values()):
            names[content[sha256]].append(index)
        found = [(*pair, 1.0, True) for same in names.values() for pair in combinations(same, 2)]
        for first, second, similarity in self._rows("SELECT first, second, similarity FROM pairs"):
            for i in names.get(first, ()):
                found += [(min(i, j), max(i, j), similarity, False) for j in names.get(second, ())]
        ids = list(films)
        return [DuplicatePair(ids[i], ids[j], value, same) for i, j, value, same in sorted(found)]

    def _contents(self) -> dict[str, str]:
        """File -> picture."""
        return dict(self._rows("SELECT sha256, content FROM films WHERE content IS NOT NULL"))

    def _compare(self) -> None:
        """Hold every film that is new against all."""
        rows = self._rows("SELECT content, bits, compared FROM prints ORDER BY compared DESC, content")
        names, old = [row[0] for row in rows], sum(row[2] for row in rows)
        if old == len(rows):
            return
        packed = np.frombuffer(b"".join(row[1] for row in rows), np.uint8).reshape(len(rows), -1)
        for i, j, value in similar_pairs(packed, lambda index: self._structure(names[index]), columns_from=old):
            if value >= MIN_SIMILARITY:
                row = (names[i], names[j], round(min(value, 1.0), 4))
                self._write("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", *row)
        for name in names[old:]:  # and no others, which another process may have added meanwhile
            self._write("UPDATE prints SET compared = 1 WHERE content = ?", name)
        self.commit()

    # ---- the file ------------------------------------------------------------------------------------------------
    def commit(self) -> None:
        """Bring to disk what was kept; it happens every few seconds without asking."""
        with self._lock, self._told():
            self._database.commit()
            self._committed = time.monotonic()

    def close(self) -> None:
        """Bring to disk what was kept, and let go of the file."""
        with self._lock:
            self.commit()
            self._database.close()

    def __enter__(self) -> FilmCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _key(self, film: str | PathLike[str]) -> bytes:
        """Relative to the cache where the film lies below it, so that both can move together."""
        path = os.path.abspath(film)
        folder = None if self._path is None else f"{self._path.parent}{os.sep}"
        return os.fsencode(path[len(folder) :] if folder and path.startswith(folder) else path)

    def _read_structure(self, content: str) -> NDArray[np.float16]:
        row = self._row("SELECT structure FROM structures WHERE content = ?", content)
        if row is None:
            raise self._unusable("a fingerprint is missing")
        return np.frombuffer(row[0], "<f2").reshape(SIDE, SIDE).astype(np.float16)

    def _row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        with self._lock, self._told():
            row: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
            return row

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._lock, self._told():
            return self._database.execute(query).fetchall()

    def _write(self, query: str, *values: Any) -> None:
        with self._lock, self._told():
            self._database.execute(query, values)
            if time.monotonic() - self._committed > _COMMIT_S:
                self.commit()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors in a sentence."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error

    def _unusable(self, reason: str) -> ConfigurationError:
        where = self._path or "the folder for temporary files"
        action = "make room there, or delete the file; it holds nothing that the films do not tell"
        return ConfigurationError(f"the cache of films cannot be used ({reason})", file=where, action=action)

    # ---- opening it ----------------------------------------------------------------------------------------------
    def _open(self) -> sqlite3.Connection:
        """The file's database, or a temporary one where no file can be written."""
        if self._path is not None:
            self._refuse_another_file(self._path)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                return self._opened(self._path)
            except (sqlite3.OperationalError, OSError) as error:
                _LOGGER.info("no cache of films is kept: %s", error)
            except sqlite3.DatabaseError as error:
                _LOGGER.warning("the cache of films is damaged, and will be written anew: %s", error)
                self._path.unlink()
                return self._opened(self._path)
        database = sqlite3.connect("", check_same_thread=False)
        database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
        return database

    def _opened(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
        try:
            (kind,), (pages,) = (
                database.execute(f"PRAGMA {fact}").fetchone() for fact in ("application_id", "page_count")
            )
            if kind == 0 and pages == 0:
                database.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_KIND}; COMMIT;")
            elif kind != _KIND:
                raise self._other_file(path)
            self._check_method(database)
        except BaseException:
            database.close()
            raise
        return database

    def _check_method(self, database: sqlite3.Connection) -> None:
        """What was seen by another method than today's is not used; the hashes of files stay true."""
        now = _method()
        if database.execute("SELECT name FROM method").fetchall() == [(now,)]:
            return
        for table in ("method", "films", "prints", "structures", "pairs"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        database.execute("INSERT INTO method VALUES (?)", (now,))
        database.commit()

    def _refuse_another_file(self, path: Path) -> None:
        if path.is_dir():
            raise self._other_file(path)
        if path.is_file():
            with path.open("rb") as stream:
                beginning = stream.read(len(_MAGIC))
            if beginning and beginning != _MAGIC:
                raise self._other_file(path)

    @staticmethod
    def _other_file(path: Path) -> ConfigurationError:
        return ConfigurationError("not a cache of films", file=path, action="name a new file, it will be made")


@lru_cache(4096)
def _facts(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _method() -> str:
    """Tells this way of seeing films from others: what it makes of a picture that never changes, and the version."""
    rows, columns = np.mgrid[0:200, 0:150].astype(np.float32)
    seen = fingerprint(np.asarray(rows * columns % 251 + rows, dtype=np.float32))
    digest = hashlib.sha256(seen.sha256.encode() + seen.bits.tobytes() + seen.structure.tobytes())
    return f"{monai_landmark.__version__} {digest.hexdigest()}"


def _plain(value: Any) -> Any:
    """For JSON."""
    return value.item() if isinstance(value, np.generic) else str(value)
