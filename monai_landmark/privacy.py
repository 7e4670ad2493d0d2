"""Words that may name a patient, kept out of logs and of what is made for sharing.

The readers never look at attributes that name a patient, so what is left are names of files and folders, which people
make of names, dates and numbers. Logs of this package call a film by a salted id; :class:`PhiFilter` is a second line
for words that come from elsewhere, such as the text of an exception. What a command prints for the person at the desk
is not a log: it calls films by their names. For films, datalists and results that leave the house there is
``python -m monai_landmark deidentify``.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets

__all__ = ["PhiFilter", "log_name", "mask_path", "mask_phi", "pseudonym", "without_path"]

_SALT = "MONAI_LANDMARK_LOG_SALT"  # handed on to the processes of trainings, so that a film has one name in all logs
_NAMES = "MONAI_LANDMARK_LOG_NAMES"
_FORMATTER = logging.Formatter()


def pseudonym(film: str, salt: str | None = None) -> str:
    """What a film or patient is called where its name must not be.

    Args:
        film: its id; often a file name, which may name a patient.
        salt: a secret, without which the name of nobody can be tried out; None: one that this process and those that it
            starts have in common, or what the environment variable ``MONAI_LANDMARK_LOG_SALT`` says.

    Returns:
        Eight hexadecimal digits; sixteen with a salt of one's own, enough for a million films.
    """
    secret = os.environ.setdefault(_SALT, secrets.token_hex(16)) if salt is None else salt
    digest = hmac.new(secret.encode(), film.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
    return digest[: 8 if salt is None else 16]


def log_name(film: str) -> str:
    """What the log calls a film: its pseudonym, or itself where ``MONAI_LANDMARK_LOG_NAMES=1`` allows that.

    Args:
        film: its id.

    Returns:
        The word for the log.
    """
    return film if os.environ.get(_NAMES) == "1" else pseudonym(film)


def without_path(reason: str, film: str | os.PathLike[str]) -> str:
    """A sentence for the log without the path of the film that it is about.

    Args:
        reason: such as an error's text.
        film: the path.

    Returns:
        The sentence; as it was where ``MONAI_LANDMARK_LOG_NAMES=1`` allows names.
    """
    if os.environ.get(_NAMES) == "1":
        return reason
    return reason.replace(f"{film}: ", "").replace(str(film), "its file")


_YEAR = r"(?:19|20)\d\d"
_MONTH_DAY = r"(?:0[1-9]|1[0-2])[-./_]?(?:0[1-9]|[12]\d|3[01])"
_SUFFIXES = r"dcm|dicom|dic|png|jpe?g|jp2|j2k|tiff?|bmp|mha|nrrd|nii(?:\.gz)?"
_PATTERNS = (
    # a film's file, with the folders in front of it
    ("film", re.compile(rf"(?:[A-Za-z]:)?[^\s'\"<>|;,]*?\.(?:{_SUFFIXES})\b", re.IGNORECASE)),
    ("uid", re.compile(r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){4,}(?![\d.])")),
    ("name", re.compile(r"[^\W\d_][\w'-]*\^[\w'^-]*")),
    ("date", re.compile(rf"(?<![\d.]){_YEAR}[-./_]?{_MONTH_DAY}(?:\d{{6}}(?:\.\d+)?)?(?![\d.]*\d)")),
    ("date", re.compile(rf"(?<![\d.])(?:0?[1-9]|[12]\d|3[01])[-./](?:0?[1-9]|1[0-2])[-./]{_YEAR}(?!\d)")),
    ("number", re.compile(r"(?<![\w.])[A-Za-z]{0,4}[-_]?\d{6,}(?![\w.])")),
)


def mask_phi(text: str) -> str:
    """Text without what looks like a film's path, a DICOM UID, a person's name, a date or a patient's number.

    Args:
        text: any.

    Returns:
        The text with ``[film 1a2b3c4d]`` and the like in their places; the same words give the same id.
    """
    for kind, pattern in _PATTERNS:
        text = pattern.sub(lambda found, kind=kind: f"[{kind} {pseudonym(found[0])}]", text)  # type: ignore[misc]
    return text


def mask_path(word: str) -> str:
    """A word of a command line that may be a path: folders are often called after patients, datalists are not.

    Args:
        word: any.

    Returns:
        ``[folder 1a2b3c4d]`` in the place of a folder, or of the one in front of a file; code and configuration keep
        theirs; then what :func:`mask_phi` does.
    """
    folder, name = os.path.split(word)
    if word.endswith((".py", ".yaml", ".yml")) or (not folder and not os.path.isdir(word)):
        return mask_phi(word)
    if not name or "." not in name or os.path.isdir(word):
        return f"[folder {pseudonym(word)}]"
    return f"[folder {pseudonym(folder)}]/{mask_phi(name)}"


class PhiFilter(logging.Filter):
    """Filter that masks a record's message and the text of its exception."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record in place.

        Args:
            record: what was logged.

        Returns:
            True: no record is dropped.
        """
        record.msg, record.args = mask_phi(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = mask_phi(_FORMATTER.formatException(record.exc_info))
            record.exc_info = None
        return True
