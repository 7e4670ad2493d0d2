"""The door through which a bundle's configuration enters: looked at first, or trusted by its hash."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from monai_landmark.errors import ConfigurationError
from monai_landmark.safety.configs import check_config, resolved_config
from monai_landmark.safety.documents import MOST_BYTES, parse_document

__all__ = ["TRUST_HELP", "open_config"]

TRUST_HELP = "SHA-256 of a bundle's configuration that you have read and that may do anything; may be repeated"
_LOGGER = logging.getLogger(__name__)


def open_config(path: str | PathLike[str], trust: Sequence[str] = ()) -> ConfigParser:
    """Read a configuration, refuse what a bundle from elsewhere may not do, and hand over the very bytes looked at.

    Args:
        path: the YAML or JSON file.
        trust: SHA-256 of files that are taken as they are.

    Returns:
        A parser of its content, of which nothing has run yet.

    Raises:
        ConfigurationError: if it is refused; says its hash.
    """
    path = Path(path)
    for word in trust:
        if not re.fullmatch(r"[0-9a-f]{64}", word):
            problem, expected = "no SHA-256", "64 hexadecimal digits, as sha256sum prints them"
            raise ConfigurationError(problem, field="--trust", value=word, expected=expected, action="copy it whole")
    if not path.is_file():
        raise ConfigurationError("no such configuration", file=path, action="give the folder of a bundle")
    with path.open("rb") as stream:
        data = stream.read(max(MOST_BYTES.values()) + 1)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 in trust:
        _LOGGER.warning("trusted, and not looked into: %s, SHA-256 %s", path, sha256)
        content: Any = json.loads(data) if path.suffix.lower() == ".json" else yaml.safe_load(data)
    else:
        content = _looked_at(data, path, sha256)
    parser = ConfigParser()
    parser.read_config(content)
    return parser


def _looked_at(data: bytes, path: Path, sha256: str) -> dict[str, Any]:
    action = f"`python -m monai_landmark verify` lists all; once you have read the file: --trust {sha256}"
    try:
        if len(data) > MOST_BYTES.get(path.suffix.lower(), 0):
            expected = "a .yaml of at most 1 MiB, or a .json of at most 16 MiB"
            raise ConfigurationError("is no configuration", file=path, value=len(data), expected=expected)
        content = resolved_config(parse_document(data, path, path.suffix), path)
        findings = check_config(content, path)
        if findings:
            raise findings[0]
    except ConfigurationError as error:
        raise ConfigurationError(
            f"not opened: {error.problem}",
            file=path,
            field=error.field,
            value=error.value,
            expected=error.expected,
            action=action,
        ) from error
    return content
