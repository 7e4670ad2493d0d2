"""The errors a user sees: each names the file, the field, the value found, what was expected and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

__all__ = [
    "AnnotationError",
    "ConfigurationError",
    "DataError",
    "FilmError",
    "NonFiniteLossError",
    "ScanError",
    "WeightsError",
    "reason_of",
    "unwrapped",
]


class DataError(ValueError):
    """Bad input, described so that the reader can mend it.

    Args:
        problem: what is wrong, as a plain clause without a full stop.
        file: the file in which it was found.
        field: the tag, column or key concerned, e.g. ``"PixelSpacing (0028,0030)"``.
        value: the value found there; printed with ``repr`` and cut at 80 characters.
        expected: what would have been right.
        action: what the user should do next.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        field: str | None = None,
        value: Any = None,
        expected: str | None = None,
        action: str | None = None,
    ) -> None:
        self.problem, self.file, self.field = problem, None if file is None else str(file), field
        self.value, self.expected, self.action = value, expected, action
        super().__init__(self._message())

    def _message(self) -> str:
        text = repr(self.value)
        shown = text if len(text) <= 80 else text[:77] + "..."
        parts = [f"{self.file}: {self.problem}" if self.file else self.problem]
        parts += [f"field: {self.field}"] if self.field else []
        parts += [f"found: {shown}"] if self.value is not None else []
        parts += [f"expected: {self.expected}"] if self.expected else []
        parts += [f"what to do: {self.action}"] if self.action else []
        return "; ".join(parts)


class FilmError(DataError):
    """A film that cannot be read truthfully: broken, not a single grey film, or with an impossible tag."""


class ScanError(DataError):
    """A scan that cannot be read truthfully: broken, slices missing or mixed, or with an impossible geometry."""


class AnnotationError(DataError):
    """An annotation, schema or datalist that does not say what it must."""


class WeightsError(DataError):
    """Weights that do not fit the network they are meant for."""


class ConfigurationError(DataError):
    """A setting that contradicts another one or the data."""


class NonFiniteLossError(RuntimeError):
    """Training met a loss that is not a finite number and was stopped before the weights were touched."""


def reason_of(error: BaseException) -> DataError | None:
    """The refusal inside an error, for MONAI wraps what components, expressions and transforms raise.

    Args:
        error: as it was caught.

    Returns:
        The nearest :class:`DataError` among it and its causes; None where there is none.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DataError):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the refusal itself in place of the ``RuntimeError`` that MONAI puts around it."""
    try:
        yield
    except RuntimeError as error:
        if (reason := reason_of(error)) is None:
            raise
        raise reason from error
