"""Films read in a process of their own, under limits of time and memory: for films that strangers send.

The readers of this package refuse what they can see to be broken, but the decoders below them are written in C, and no
test of them is complete. A decoder that crashes, never ends or takes all memory takes this worker with it, and not the
program that asked. What comes back is numbers and text, never pickled objects, so that a decoder that was taken over
cannot reach further.

The limit of time holds everywhere. That of memory needs ``resource.setrlimit`` and a system that minds it, which is
Linux; elsewhere :attr:`FilmSandbox.limits_memory` is False once the worker runs, and a log line says so.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np

from monai_landmark.data.film import Film, check_film_file
from monai_landmark.data.formats import read_film
from monai_landmark.data.spacing import FilmSpacing
from monai_landmark.errors import FilmError

__all__ = ["FilmSandbox"]

_LOGGER = logging.getLogger(__name__)
_START_S = 60.0
_FIELDS = ("problem", "field", "value", "expected", "action")


class FilmSandbox:
    """A worker process that reads films; started when it is first needed, and again after it died.

    ``read_films_by(FilmSandbox().read)`` (:mod:`monai_landmark.data.formats`) has it read all films of a process.

    Args:
        seconds: that one film may take; the largest ones take about ten.
        memory_bytes: that reading one film may take, beyond what the worker has when it is idle.
    """

    def __init__(self, seconds: float = 30.0, memory_bytes: int = 2**30) -> None:
        self.seconds, self.memory_bytes = seconds, memory_bytes
        self.limits_memory = True
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def read(self, path: Path, spacing_mm: Any = None, apply_voi: bool = True) -> Film:
        """Read one film; calls from several threads wait for each other.

        Args:
            path: the film.
            spacing_mm: see :func:`monai_landmark.data.formats.read_film`.
            apply_voi: likewise.

        Returns:
            The film.

        Raises:
            FilmError: the film cannot be read, or reading it crashed, took too long or too much memory.
        """
        file = check_film_file(path)
        spacing = None if spacing_mm is None else [float(mm) for mm in spacing_mm]
        asked = json.dumps({"path": str(file.absolute()), "spacing_mm": spacing, "apply_voi": apply_voi})
        with self._lock:
            process = self._started()
            expired = threading.Event()

            def expire() -> None:
                """End the worker; the pipe then ends, too."""
                expired.set()
                process.kill()

            timer = threading.Timer(self.seconds, expire)
            timer.start()
            try:
                return _exchange(process, asked, file)
            except (OSError, EOFError, ValueError) as error:
                if isinstance(error, FilmError):
                    raise
                self._stop()
                raise self._lost(file, expired.is_set()) from None
            except BaseException:  # an answer left unread must not become the next film's
                self._stop()
                raise
            finally:
                timer.cancel()

    def close(self) -> None:
        """End the worker; a later call starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> FilmSandbox:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        command = [sys.executable, "-m", __name__, str(self.memory_bytes)]
        # a worker's decoders may print what is in a film
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._process = process
        timer = threading.Timer(_START_S, process.kill)
        timer.start()
        try:
            self.limits_memory = bool(json.loads(_line(process.stdout))["limits_memory"])
        except (OSError, EOFError, ValueError, KeyError):
            self._stop()
            raise FilmError(
                "the process that reads films does not start", action="see whether memory is left"
            ) from None
        finally:
            timer.cancel()
        if not self.limits_memory:
            _LOGGER.warning("this system cannot limit the memory of the process that reads films; its time is limited")
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was left to write has no reader
                    continue

    def _lost(self, file: Path, expired: bool) -> FilmError:
        problem = f"reading the film took more than {self.seconds:g} s" if expired else "reading the film failed badly"
        return FilmError(
            f"{problem}, and was ended", file=file, action="leave this film out, or export it again in another format"
        )


class _Shown(str):
    """A value as the worker would have printed it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _exchange(process: subprocess.Popen[bytes], asked: str, file: Path) -> Film:
    if process.stdin is None or process.stdout is None:
        raise OSError("no pipe")
    process.stdin.write(asked.encode() + b"\n")
    process.stdin.flush()
    answer = json.loads(_line(process.stdout))
    if "error" in answer:
        told = {key: None if text is None else str(text) for key, text in answer["error"].items() if key in _FIELDS}
        value = told.pop("value", None)
        raise FilmError(told.pop("problem") or "", file=file, value=None if value is None else _Shown(value), **told)
    rows, columns = (int(side) for side in answer["size"])
    data = process.stdout.read(rows * columns * 4)
    if len(data) != rows * columns * 4:
        raise EOFError("half an answer")
    pixels = np.frombuffer(data, dtype=np.float32).reshape(rows, columns)
    return Film(pixels.copy(), FilmSpacing(*answer["spacing"]), dict(answer["info"]))


def _line(stream: IO[bytes] | None) -> bytes:
    line = stream.readline(2**16) if stream is not None else b""
    if not line.endswith(b"\n"):
        raise EOFError("the worker has ended")
    return line


def _answer(asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        film = read_film(asked["path"], asked["spacing_mm"], apply_voi=asked["apply_voi"])
    except FilmError as error:
        told = {key: getattr(error, key) for key in _FIELDS}
        told["value"] = None if error.value is None else repr(error.value)[:1000]
        return {"error": told}, b""
    spacing = [film.spacing.row_mm, film.spacing.col_mm, film.spacing.source]
    head = {"size": film.size, "spacing": spacing, "info": film.info}
    return head, np.ascontiguousarray(film.pixels, dtype=np.float32).tobytes()


def _limit_memory(extra_bytes: int) -> bool:
    """Let this process have only so much more than it has now; whether that is possible."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump holds the film
    except (ImportError, OSError, ValueError):
        return False
    return True


def _import_decoders() -> None:
    """What readers import late, before memory is measured and limited."""
    import nibabel  # noqa: F401
    import SimpleITK  # noqa: F401
    from PIL import Image
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

    Image.init()
    for syntax in (JPEG2000Lossless, JPEGLosslessSV1, RLELossless):
        get_decoder(syntax)


def main() -> None:
    """The worker: a JSON line for each film comes in; a JSON line and the pixels go out."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get among the answers
    _import_decoders()
    limited = _limit_memory(int(sys.argv[1]))
    answers.write(json.dumps({"limits_memory": limited}).encode() + b"\n")
    answers.flush()
    for line in sys.stdin.buffer:
        head, pixels = _answer(json.loads(line))
        answers.write(json.dumps(head).encode() + b"\n")
        answers.write(pixels)
        answers.flush()


if __name__ == "__main__":
    main()
