"""``python -m monai_landmark select``: which films to label first."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monai_landmark.apps.commands.tables import film_table, reason_table, show_progress
from monai_landmark.data.datalist import Datalist, LeftOut, load_datalist
from monai_landmark.data.films import film_items
from monai_landmark.errors import AnnotationError, ConfigurationError, DataError, FilmError, WeightsError
from monai_landmark.files import write_text
from monai_landmark.networks import frozen_features, landmark_network, model_card
from monai_landmark.study.frozen_films import FilmVectors
from monai_landmark.study.selection import STRATEGIES, Choice, choose_films

HELP = "say which films to label first"

_GRID = (320, 256)
_ENCODER = "tf_efficientnet_lite0"
_OFFERED = ("training", "validation", "unlabelled")

Item = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    parser.add_argument("films", type=Path, help="folder of films, or a datalist (.json), whose test films stay out")
    parser.add_argument("--budget", type=int, required=True, help="how many films to choose")
    parser.add_argument("--strategy", choices=STRATEGIES, default="representative", help="default: representative")
    network = parser.add_mutually_exclusive_group()
    network.add_argument("--model-dir", type=Path, help="folder that pretrain or train wrote")
    network.add_argument("--weights", type=Path, metavar="FILE", help="weights (default: timm's from ImageNet)")
    parser.add_argument("--architecture", help=f"of the weights (default: as model.json says; {_ENCODER})")
    parser.add_argument("--spatial-size", nargs=2, type=int, metavar=("H", "W"), help="grid of the network")
    parser.add_argument("--chosen", type=Path, metavar="CSV", help="films chosen before: what an earlier run wrote")
    parser.add_argument(
        "--as-if-unlabelled", action="store_true", help="offer annotated films too, to try a choice on them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random, and of who goes first among equals")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")


def run(args: argparse.Namespace) -> int:
    """Choose films, write the CSV and print it.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0, or 3 if a film could not be read.

    Raises:
        DataError: if there is no film to choose from, or the weights or settings are not possible.
    """
    films = _offered(args.films)
    films.labeled = set() if args.as_if_unlabelled else films.labeled
    films.labeled |= _ids(args.chosen, films.items) if args.chosen else set()
    vectors = None if args.strategy == "random" else _vectors(films, _vector_of(args))
    order = np.random.default_rng(args.seed).permutation(len(films.items)).tolist()
    already = [index for index, item in enumerate(films.items) if item["id"] in films.labeled]
    if len(already) == len(films.items):
        raise ConfigurationError("no film is left to label", file=args.films, value=f"{len(already)} labelled films")
    choices = choose_films(vectors, args.budget, args.strategy, order, already)
    write_text(args.out, _csv(films.items, choices))
    console = Console()
    console.print(_table(films.items, choices, len(already), args.strategy))
    if films.left_out:
        console.print(reason_table("Not offered", films.left_out))
    console.print(escape(f"{len(choices)} of {len(films.items)} films written to {args.out}"))
    return 3 if any(entry.by == "fault" for entry in films.left_out) else 0


@dataclass
class _Films:
    """The films to choose from, those among them that are labelled, and those that are not offered."""

    items: list[Item]
    labeled: set[str] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)


def _offered(path: Path) -> _Films:
    """All films of a folder; of a datalist those that are not measured on, nor copies of such."""
    if path.suffix.lower() != ".json":
        items = film_items([path])
        if not items:
            raise FilmError("no film found", file=path, action="give a folder of films, or a datalist")
        return _Films(items)
    sections = Datalist.load(path).sections
    measured = {item["id"] for item in sections.get("test", [])}
    films = _Films([])
    for item in [item for name in _OFFERED if name in sections for item in load_datalist(path, name)]:
        if copies := measured.intersection(item.get("near_duplicates", [])):
            reason = f"nearly the same picture as test film {', '.join(sorted(copies))}"
            films.left_out.append(LeftOut(item["id"], reason, by="rule"))
        else:
            films.items.append(item)
    films.labeled = {item["id"] for item in films.items if item.get("landmarks")}
    return films


def _ids(file: Path, items: Sequence[Item]) -> set[str]:
    """Films that an earlier run chose."""
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        ids = {row.get("film") for row in csv.DictReader(stream)}
    if unknown := ids - {item["id"] for item in items}:
        raise AnnotationError(
            "films that are not among those to choose from",
            file=file,
            field="film",
            value=sorted(map(str, unknown)),
            action="give the CSV that `select` wrote for these films",
        )
    return {str(film) for film in ids}


def _vector_of(args: argparse.Namespace) -> FilmVectors:
    """The network that was asked for, on its grid."""
    weights = args.model_dir / "model.safetensors" if args.model_dir else args.weights
    card: dict[str, Any] = {} if weights is None else model_card(weights.parent)
    architecture = args.architecture or (_ENCODER if weights is None else "auto")
    try:
        network = landmark_network(1, architecture, "imagenet" if weights is None else weights)
    except OSError as error:  # timm asks its hub
        raise WeightsError(
            f"cannot load the weights ({error})", file=weights, action="give --weights FILE or --model-dir FOLDER"
        ) from error
    return FilmVectors(frozen_features(network), args.spatial_size or card.get("spatial_size", _GRID))


def _vectors(films: _Films, vector_of: FilmVectors) -> NDArray[np.float64]:
    """``(N, D)``; a film that cannot be read is left out, and the others go on."""
    read, vectors = [], []
    for item in show_progress(films.items, len(films.items)):
        try:
            vectors.append(vector_of(item))
            read.append(item)
        except DataError as error:
            films.left_out.append(LeftOut(item["id"], str(error)))
    films.items = read
    if not vectors:
        raise FilmError("no film could be read", file=films.left_out[0].film, value=films.left_out[0].reason)
    return np.stack(vectors)


def _csv(items: Sequence[Item], choices: Sequence[Choice]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["film", "rank", "coverage_gained", "image"])
    for rank, choice in enumerate(choices, start=1):
        item = items[choice.index]
        writer.writerow([item["id"], rank, _number(choice.gained), item["image"]])
    return buffer.getvalue()


def _table(items: Sequence[Item], choices: Sequence[Choice], labeled: int, strategy: str) -> Table:
    table = film_table(
        "rank", "film", "coverage gained", title=f"Label these first ({strategy}; {labeled} labelled before)"
    )
    for rank, choice in enumerate(choices, start=1):
        table.add_row(str(rank), escape(items[choice.index]["id"]), _number(choice.gained))
    return table


def _number(value: float) -> str:
    """Empty where nothing is known."""
    return "" if np.isnan(value) else f"{value:.5f}"
