"""Logs that name no patient: what this package did not write itself is reduced to where in the code it was said."""

from __future__ import annotations

import logging
from typing import Any

from monai_landmark.privacy import pseudonym

__all__ = ["LOGGER", "PrivateLog", "keep_logs_private", "log_config", "pseudonym"]

#: Only what is said through this logger keeps its words; none of them comes from a film, a file name or a request.
LOGGER = logging.getLogger("monai_landmark.label")


class PrivateLog(logging.Filter):
    """Filter that withholds all words but those of :data:`LOGGER`.

    MONAI Label logs requests, file names and results, and an exception's text may hold any of them. Which of their
    words are harmless cannot be told, so none is let through: of a record from elsewhere remain its level, its place
    in the code, and the type of the exception.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record in place.

        Args:
            record: what was logged.

        Returns:
            True: no record is dropped.
        """
        if record.name != LOGGER.name or record.exc_info:
            raised = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
            place = f"{record.name} line {record.lineno}"
            record.msg = f"{place}: {raised.__name__ if raised else 'message'} (words withheld)"
            record.args, record.exc_info, record.exc_text, record.stack_info = (), None, None, None
        return True


def keep_logs_private() -> None:
    """Put the filter on every handler there is, whoever set it up."""
    known = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    for handler in {handler for logger in known for handler in logger.handlers}:
        if not any(isinstance(filter_, PrivateLog) for filter_ in handler.filters):
            handler.addFilter(PrivateLog())
    LOGGER.setLevel(logging.INFO)


def log_config() -> dict[str, Any]:
    """Logging for the whole server: to the terminal, through the filter.

    Returns:
        What :func:`logging.config.dictConfig` takes.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"private": {"()": f"{__name__}.PrivateLog"}},
        "formatters": {"plain": {"format": "[%(asctime)s] [%(levelname)s] %(message)s"}},
        "handlers": {"terminal": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["private"]}},
        "root": {"level": "WARNING", "handlers": ["terminal"]},
        "loggers": {LOGGER.name: {"level": "INFO"}},
    }
