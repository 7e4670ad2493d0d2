"""Small pieces of HTML: escaped text, numbers, tables and definition lists."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from monai_landmark import __version__

__all__ = ["DASH", "Cell", "definitions", "number", "page", "percent", "section", "table"]

DASH = "\N{EN DASH}"


def number(value: Any, digits: int = 2) -> str:
    """A number for people; a dash where there is none, the infinity sign where a landmark was not found.

    Args:
        value: a number, None or NaN.
        digits: after the decimal point.

    Returns:
        Plain text.
    """
    if value is None or math.isnan(value):
        return DASH
    return "\N{INFINITY}" if math.isinf(value) else f"{value:.{digits}f}"


def percent(value: Any) -> str:
    """A percentage with one digit and its sign, or a dash."""
    text = number(value, 1)
    return text if text == DASH else f"{text} %"


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Args:
        html: content, already escaped.
        sort: what to sort by instead of the text; None or NaN = an empty cell, which sorts last.
        share: 0..1 draws a bar of that width behind the number.
        kind: further class names (``text`` = left-aligned, ``wrap``).
    """

    html: str
    sort: Any = ""
    share: float | None = None
    kind: str = ""

    def __str__(self) -> str:
        classes = " ".join(filter(None, (self.kind, "bar" if self.share is not None else "")))
        attributes = f' class="{classes}"' if classes else ""
        if self.sort != "":
            known = self.sort is not None and self.sort == self.sort
            attributes += f' data-value="{escape(str(self.sort)) if known else ""}"'
        if self.share is not None:
            attributes += f' style="--share:{100 * min(max(self.share, 0.0), 1.0):.1f}%"'
        return f"<td{attributes}>{self.html}</td>"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, text_columns: Iterable[int] = (), kind: str = ""
) -> str:
    """A table that scrolls sideways on narrow screens.

    Args:
        heads: column headings, plain text.
        rows: cells by row.
        text_columns: columns whose heading is left-aligned.
        kind: class of the table; ``sortable`` lets the reader sort.

    Returns:
        HTML.
    """
    left = set(text_columns)
    head = "".join(
        f'<th scope="col"{" class=text" if index in left else ""}>{escape(text)}</th>'
        for index, text in enumerate(heads)
    )
    body = "".join(f"<tr>{''.join(map(str, row))}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def definitions(entries: Iterable[tuple[str, str]]) -> str:
    """Terms and what they are; entries without content are left out.

    Args:
        entries: (term as plain text, content as HTML).

    Returns:
        HTML.
    """
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{html}</dd>" for term, html in entries if html) + "</dl>"


def section(title: str, html: str, *, hint: str = "", kind: str = "") -> str:
    """A titled part of the page.

    Args:
        title: plain text.
        html: content.
        hint: one or two plain sentences below the title.
        kind: class of the section.

    Returns:
        HTML.
    """
    below = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{below}{html}</section>'


def page(title: str, parts: Sequence[str], body: str, *, disclaimer: str, numbers: str) -> str:
    """A whole page that opens from disk without the network.

    Args:
        title: plain text.
        parts: of the subtitle, plain text; empty ones are left out.
        body: content, HTML.
        disclaimer: what the numbers are not for.
        numbers: the files beside the page that hold its numbers.

    Returns:
        HTML.
    """
    folder = Path(__file__).parent
    script = (folder / "report_script.html").read_text(encoding="utf-8")
    # Naming the script's hash in the page's policy keeps every other script from running, whatever a film is called.
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    template = Template((folder / "report_template.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        subtitle=escape(" \N{MIDDLE DOT} ".join(filter(None, parts))),
        script_hash=f"sha256-{digest}",
        script=script,
        body=body,
        footer=escape(
            f"Made by monai_landmark {__version__}. Not a medical device, {disclaimer}. "
            f"All numbers of this page are in {numbers} beside it."
        ),
    )
