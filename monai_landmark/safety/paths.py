"""Paths that a file from elsewhere names: they must stay below the folder they are used in."""

from __future__ import annotations

import re

__all__ = ["path_problem"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(//|\\\\)")
_HUB = re.compile(r"(hf[-_]hub|local-dir|file|data|javascript):", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)")


def path_problem(text: str) -> str | None:
    """Why a text may not be used as a path below a folder.

    Args:
        text: any value or archive member; most are no paths and have no problem.

    Returns:
        The reason as a clause, or None.
    """
    parts = re.split(r"[\\/]", text)
    if "\0" in text:
        return "holds a NUL character"
    if _SCHEME.match(text) or _HUB.match(text):
        return "is an address outside this machine's files, or of another kind than a path"
    if text.startswith(("/", "\\")) or _DRIVE.match(text):
        return "is an absolute path"
    if text.startswith("~"):
        return "is a path in somebody's home folder"
    if ".." in (part.strip() for part in parts):
        return "leads out of its folder with '..'"
    if any(re.match(r"\.[A-Za-z_]", part) for part in parts):
        return "is a hidden file or folder"
    return None
