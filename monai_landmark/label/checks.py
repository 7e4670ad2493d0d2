"""What a client may ask by name, and what it is told when it may not."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from monai_landmark.errors import DataError

__all__ = [
    "METHOD",
    "MODEL",
    "ORGANS",
    "NotFoundError",
    "RequestError",
    "answer",
    "check_id",
    "check_tag",
    "new_id",
    "whole_number",
]

#: Name of the task that predicts and of the one that trains.
MODEL = "landmarks"
#: Name of both where a server segments scans.
ORGANS = "organs"
#: Name of the task that scores films.
METHOD = "expected_error"

_LONGEST = 200
_TAG = re.compile(r"[A-Za-z0-9_-]{1,40}")


class RequestError(DataError):
    """A request that cannot be served as it is.

    Attributes:
        status: the HTTP status code that says so.
    """

    status = 400


class NotFoundError(RequestError):
    """A request for something that is not there."""

    status = 404


def answer(error: BaseException) -> tuple[int, str]:
    """What a client is told about an error: never a path of the server, never a traceback.

    Args:
        error: what was raised.

    Returns:
        HTTP status code and a sentence.
    """
    if isinstance(error, json.JSONDecodeError):
        return 400, "the request is not valid JSON; what to do: send a JSON object"
    stumbled = isinstance(error, TypeError | ValueError | KeyError) and not isinstance(error, DataError)
    if stumbled and _raised_in_endpoint(error):
        return 400, "the request holds a value of the wrong kind; what to do: see /docs for what is expected"
    if not isinstance(error, DataError):
        return 500, f"the server failed ({type(error).__name__}); its log says where"
    status = error.status if isinstance(error, RequestError) else 422
    parts = [error.problem]
    parts += [f"field: {error.field}"] if error.field else []
    parts += [f"expected: {error.expected}"] if error.expected else []
    parts += [f"what to do: {error.action}"] if error.action else []
    return status, "; ".join(parts)


def _raised_in_endpoint(error: BaseException) -> bool:
    """Whether MONAI Label stumbled over the request itself, before anything of this package was asked."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("monailabel.endpoints.")


def check_id(text: str, field: str = "image") -> str:
    """An id of a film, which becomes part of file names.

    Args:
        text: the id.
        field: where it was found.

    Returns:
        The id.

    Raises:
        RequestError: if it is empty, too long, or could lead out of a folder.
    """
    leads_out = ".." in text or text.startswith(".") or any(sign in "/\\:\0" or ord(sign) < 32 for sign in text)
    if not 0 < len(text) <= _LONGEST or leads_out:
        expected = f"1 to {_LONGEST} characters without / \\ : and .."
        raise RequestError("not an id of a film", field=field, expected=expected, action="take an id from /datastore/")
    return text


def check_tag(text: str, field: str = "tag") -> str:
    """A tag of a label, which becomes a folder's name.

    Args:
        text: the tag, e.g. ``final`` or ``original``.
        field: where it was found.

    Returns:
        The tag.

    Raises:
        RequestError: if it holds anything but letters, digits, ``_`` and ``-``.
    """
    if not _TAG.fullmatch(text):
        raise RequestError("not a tag of a label", field=field, expected="1 to 40 letters, digits, _ or -, e.g. final")
    return text


def new_id() -> str:
    """An id for a film that a client sends; what the client calls it may name a patient."""
    return f"film-{secrets.token_hex(8)}"


def whole_number(values: dict[str, Any], key: str, default: int, most: int) -> int:
    """A setting that a client may choose.

    Args:
        values: what the client sent.
        key: of the setting.
        default: where the client did not send it.
        most: that the server allows; the least is 1.

    Returns:
        The number.

    Raises:
        RequestError: if it is not a whole number from 1 to ``most``.
    """
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise RequestError("not a possible setting", field=key, expected=f"a whole number from 1 to {most}")
    return value
