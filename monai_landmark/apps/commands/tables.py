"""Tables and progress that the commands for data share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from monai_landmark.data.datalist import LeftOut

if TYPE_CHECKING:
    from monai_landmark.results.label_audit import Suspicion

__all__ = ["film_table", "first_rows", "pair_table", "reason_table", "show_progress", "suspicion_table"]

_MOST_ROWS = 50


def show_progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    """A progress bar on standard error, so that standard output stays clean."""
    return track(items, description="Reading films", total=total, console=Console(stderr=True), transient=True)


def film_table(*headers: str, title: str | None = None) -> Table:
    """A table in which no film's name is cut: what is too long for its column goes on in the next line.

    Args:
        headers: of the columns.
        title: above the table.
    """
    return Table(*(Column(header, overflow="fold") for header in headers), title=title)


def first_rows(headers: Sequence[str], title: str, rows: Sequence[Sequence[str]]) -> Table:
    """The first 50 rows under a title that counts all; how many more there are.

    Args:
        headers: of the columns.
        title: above the table.
        rows: texts of a row each.
    """
    table = film_table(*headers, title=f"{title}: {len(rows)}")
    for row in rows[:_MOST_ROWS]:
        table.add_row(*map(escape, row))
    if len(rows) > _MOST_ROWS:
        table.add_row(f"{len(rows) - _MOST_ROWS} more", "see the JSON")
    return table


def reason_table(title: str, entries: Sequence[LeftOut]) -> Table:
    """Films and the reasons why they are not used.

    Args:
        title: above the table.
        entries: the films.
    """
    return first_rows(("film", "reason"), title, [(entry.film, entry.reason) for entry in entries])


def pair_table(pairs: Sequence[tuple[Sequence[str], float, bool]]) -> Table:
    """Films that are (nearly) the same picture.

    Args:
        pairs: the two films, their similarity, and whether every pixel is the same.
    """
    rows = [(*films, "identical" if identical else f"{similarity:.3f}") for films, similarity, identical in pairs]
    return first_rows(("film", "film", "similarity"), "The same picture twice", rows)


def suspicion_table(suspicions: Sequence[Suspicion]) -> Table:
    """Annotations that look wrong beside the others.

    Args:
        suspicions: what is strange.
    """
    rows = [(suspicion.film, suspicion.kind, suspicion.reason) for suspicion in suspicions]
    return first_rows(("film", "what", "reason"), "Annotations to look at", rows)
