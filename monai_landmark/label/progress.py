"""What clients are told of a training, a scoring or a batch while it runs: its progress, and why it failed.

MONAI Label hands out the last twenty lines that the task's process printed. Among them are its own start, with the path
of the films, and tracebacks.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from types import TracebackType

from monai_landmark.label.checks import answer
from monai_landmark.label.privacy import LOGGER

__all__ = ["OwnLines", "tell_why", "without_folders"]

_WHY = "failed: "
# MONAI Label's format of a log line, of this package's logger; or what tell_why printed.
_OWN = re.compile(rf"(\[[^\]]*\] ){{4}}\({re.escape(LOGGER.name)}:\d+\) - |{_WHY}")
_FOLDERS = re.compile(r"(?<![\w.])(?:/[^/:;'\"\n]+)*/")


class OwnLines(deque[str]):
    """The last lines of a task's output, of which only this package's own are kept; all else is dropped."""

    def append(self, line: str) -> None:
        """Keep a line, or drop it."""
        if _OWN.match(line):
            super().append(line)


def tell_why(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print why a task failed, in the words that a client may see, and the traceback that it may not.

    To be :data:`sys.excepthook` of the task's process: its output goes to the server, which shows it to clients and
    keeps its words out of the log.

    Args:
        kind: of the error.
        error: which ended the process.
        trace: where it was raised.
    """
    print(f"{_WHY}{without_folders(answer(error)[1])}", flush=True)
    sys.__excepthook__(kind, error, trace)


def without_folders(text: str) -> str:
    """Text with the names of files in place of their paths.

    Args:
        text: a sentence that may hold absolute paths, with blanks in them or not.

    Returns:
        The sentence; where a path follows another one, the words between them may be missing too.
    """
    return _FOLDERS.sub("", text)
