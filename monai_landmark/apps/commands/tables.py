"""Tables and progress that the commands for data share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from monai_landmark.data.datalist import LeftOut

__all__ = ["pair_table", "reason_table", "show_progress"]

_MOST_ROWS = 50


def show_progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    """A progress bar on standard error, so that standard output stays clean."""
    return track(items, description="Reading films", total=total, console=Console(stderr=True), transient=True)


def reason_table(title: str, entries: Sequence[LeftOut]) -> Table:
    """Films and the reasons why they are not used.

    Args:
        title: above the table.
        entries: the films; the first 50 are shown, and how many more there are.
    """
    table = Table("film", "reason", title=f"{title}: {len(entries)}", show_lines=False)
    for entry in entries[:_MOST_ROWS]:
        table.add_row(escape(entry.film), escape(entry.reason))
    if len(entries) > _MOST_ROWS:
        table.add_row(f"{len(entries) - _MOST_ROWS} more", "see the JSON")
    return table


def pair_table(pairs: Sequence[tuple[Sequence[str], float, bool]]) -> Table:
    """Films that are (nearly) the same picture.

    Args:
        pairs: the two films, their similarity, and whether every pixel is the same.
    """
    table = Table("film", "film", "similarity", title=f"The same picture twice: {len(pairs)}")
    for (first, second), similarity, identical in pairs[:_MOST_ROWS]:
        table.add_row(escape(first), escape(second), "identical" if identical else f"{similarity:.3f}")
    if len(pairs) > _MOST_ROWS:
        table.add_row(f"{len(pairs) - _MOST_ROWS} more", "see the JSON", "")
    return table
