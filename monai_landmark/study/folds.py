"""Cross-validation of few films: ``python -m monai_landmark.study.folds --datalist FILE --folds N ...``."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from monai_landmark.data.datalist import Datalist, Item, save_datalist
from monai_landmark.errors import ConfigurationError

__all__ = ["fold_datalists", "main"]


def fold_datalists(datalist: Datalist, folds: int) -> list[Datalist]:
    """Divide the annotated films so that each is measured once, by a network of the others.

    A patient's films, and those that show almost the same picture, stay together. With as many folds as patients each
    patient is left out once.

    Args:
        datalist: its sections but ``unlabelled`` are taken together.
        folds: their number N, at least 2.

    Returns:
        N datalists: the films left out are ``test``, the other annotated ones ``training``.

    Raises:
        ConfigurationError: fewer than two folds, or fewer patients than folds.
    """
    films = [item for section, item in datalist.items() if section != "unlabelled" and item.get("landmarks")]
    groups = _groups(films, datalist)
    order = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if not 2 <= folds <= len(order):
        raise ConfigurationError(
            "the films cannot be divided like this",
            field=f"{datalist.name}, folds",
            value=folds,
            expected=f"2 to {len(order)}, the annotated films of one patient counted as one",
        )
    fold_of = {name: place % folds for place, name in enumerate(order)}
    plain = [{key: value for key, value in item.items() if key != "near_duplicates"} for item in films]
    found = []
    for fold in range(folds):
        sections: dict[str, list[Item]] = {"training": [], "test": []}
        for item, group in zip(plain, groups, strict=True):
            sections["test" if fold_of[group] == fold else "training"].append(item)
        found.append(dataclasses.replace(datalist, sections=sections))
    return found


def _groups(films: Sequence[Item], datalist: Datalist) -> list[str]:
    """For each film the first id of those that must stay together with it."""
    place = {item["id"]: index for index, item in enumerate(films)}
    first_of: dict[str, int] = {}
    pairs = [(first_of.setdefault(item["patient"], index), index) for index, item in enumerate(films)]
    pairs += [(place[a], place[b]) for a, b in (pair["films"] for pair in datalist.duplicates) if {a, b} <= set(place)]
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(films), len(films)))
    labels = connected_components(graph, directed=False)[1]
    return [films[int(np.flatnonzero(labels == label)[0])]["id"] for label in labels]


def main(argv: Sequence[str] | None = None) -> None:
    """Write ``0.json`` to ``N-1.json``.

    Args:
        argv: the command line without the program's name; ``sys.argv`` by default.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--folds", type=int, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args(argv)
    for fold, one in enumerate(fold_datalists(Datalist.load(args.datalist), args.folds)):
        save_datalist(one, args.output_dir / f"{fold}.json")


if __name__ == "__main__":
    main()
