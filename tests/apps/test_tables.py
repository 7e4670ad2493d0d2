"""Tables of films: no name is cut, a long table says how long it is."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.table import Table

from monai_landmark.apps.commands.tables import first_rows, reason_table
from monai_landmark.data.datalist import LeftOut


def shown(table: Table) -> str:
    text = StringIO()
    Console(width=40, file=text).print(table)
    return text.getvalue()


def test_long_names_are_folded():
    name = "a_very_long_folder_name/film_of_the_left_hand_0001.dcm"
    text = shown(reason_table("Could not be used", [LeftOut(name, f"{name}: [no] pixels")]))
    cells = [line.split("│")[1:3] for line in text.splitlines() if "│" in line]
    film, reason = ("".join(column).replace(" ", "") for column in zip(*cells, strict=True))
    assert (film, reason) == (name, f"{name}:[no]pixels")


def test_more_than_fit():
    text = shown(first_rows(("film", "what"), "Leaks", [(f"film {n}", "copy") for n in range(53)]))
    assert "Leaks: 53" in text and "film 49" in text and "film 50" not in text and "3 more" in text
