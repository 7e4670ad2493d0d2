"""``python -m monai.bundle run`` takes a misspelled key without a word and buries what is wrong: neither is left so."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, run

from monai_landmark.errors import ConfigurationError, reason_of

__all__ = ["guard_run"]

_TRACKING = {"tracking_uri", "experiment_name", "run_name", "save_execute_config"}
_MONAI = {
    *inspect.signature(run).parameters,
    *inspect.signature(ConfigWorkflow).parameters,
    "workflow_name",
} | _TRACKING


def guard_run(argv: Sequence[str] | None = None) -> None:
    """Refuse keys that no config of this run has, and let an error end with what can be mended.

    For ``initialize`` of a bundle's config. In a process other than ``python -m monai.bundle run`` nothing is done.

    Args:
        argv: the command line, the program first; that of the process by default.

    Raises:
        ConfigurationError: if a key of the command line, or of its ``args_file``, is in none of its configs. A key
            below a component (``train#trainer#max_epochs``) may be new: components take more than a config gives.
    """
    words = list(argv or sys.argv)
    if Path(words[0]).parts[-3:] != ("monai", "bundle", "__main__.py") or words[1:2] != ["run"]:
        return
    sys.excepthook = _tell_reason_last
    given = _options(words[2:])
    if "args_file" in given:
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    if "config_file" in given:
        config = ConfigParser(ConfigParser.load_config_files(given["config_file"]))
        _refuse_unknown((key for key in given if key not in _MONAI), config)


def _options(words: Iterable[str]) -> dict[str, Any]:
    """Keys and values of a command line, as Fire reads them."""
    found: dict[str, Any] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = DefaultParseValue(value) if equals else True
        elif name is not None:
            found[name], name = DefaultParseValue(word), None
    return found


def _refuse_unknown(keys: Iterable[str], config: ConfigParser) -> None:
    """Raise the error of the first key that has no place in the config."""
    for key in keys:
        place = key.removeprefix("+").replace("::", "#")
        parent = place.rpartition("#")[0]
        if place not in config and (not parent or parent not in config):
            close = difflib.get_close_matches(place.split("#")[0], config.get(), n=1)
            raise ConfigurationError(
                "no config of this run has this key",
                field=f"--{key}",
                expected=f"--{close[0]}" if close else None,
                action="see the keys at the top of the config",
            )


def _tell_reason_last(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The traceback of all that MONAI put around an error, and then the error."""
    sys.__excepthook__(kind, error, trace)
    if (reason := reason_of(error)) is not None:
        print(f"\nerror: {reason}", file=sys.stderr)
