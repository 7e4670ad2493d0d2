"""A label budget in slices: which labeled slices a run may see, those that validate included."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from monai_landmark.data.scan_list import ScanList, load_scans, slices_of
from monai_landmark.errors import ConfigurationError

__all__ = ["budget_name", "labeled_slices", "slice_count"]

Item = dict[str, Any]
_GOLDEN = (5**0.5 - 1) / 2
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:%|percent)\s*")
_COUNT = re.compile(r"\s*(\d+)\s*(?:slices?)?\s*")


def labeled_slices(
    datalist: str | PathLike[str],
    budget: int | float | str = "all",
    validation: int = 0,
    seed: int = 0,
    part: str = "training",
) -> list[Item]:
    """Labeled slices that a run may use, drawn by its seed; smaller budgets are subsets of larger ones.

    Scans take turns in an order that the seed draws, and each gives one slice at its turn, so that few slices come from
    many scans. Within a scan the slices spread over its length by the golden ratio, from a start that the seed draws,
    and the more organs a slice shows the likelier it is: who can label four slices labels such.

    Args:
        datalist: the list of scans; its sections ``training`` and ``validation`` are drawn from.
        budget: ``4`` or ``"4 slices"``, ``"10 %"`` of the slices that show an organ (rounded up), ``0`` or ``"all"``.
        validation: how many of them validate instead of train.
        seed: of the draw.
        part: ``training`` or ``validation``.

    Returns:
        Items of slices, see :func:`monai_landmark.data.scan_list.slices_of`.

    Raises:
        ConfigurationError: if the budget is none, exceeds the slices there are, or leaves none to train on.
    """
    present = ScanList.load(datalist).sections
    scans = [scan for name in ("training", "validation") if name in present for scan in load_scans(datalist, name)]
    stacks = [stack for scan in scans if (stack := _showing(scan))]
    available = sum(len(stack) for stack in stacks)
    count = slice_count(budget, available)
    if not 0 <= validation < count <= available:
        raise ConfigurationError(
            "label budget does not fit the scans",
            file=datalist,
            field="label_budget, validation_slices",
            value=(budget, validation),
            expected=f"validation_slices < label_budget <= {available} slices that show an organ",
        )
    drawn = list(_drawn(stacks, count, seed))
    return drawn[count - validation :] if part == "validation" else drawn[: count - validation]


def slice_count(budget: int | float | str, available: int) -> int:
    """How many slices a budget is.

    Args:
        budget: see :func:`labeled_slices`.
        available: slices that show an organ.

    Returns:
        The number.

    Raises:
        ConfigurationError: if the budget is none.
    """
    text = str(budget)
    if text in ("0", "all"):
        return available
    if share := _SHARE.fullmatch(text):
        return max(1, math.ceil(round(float(share[1]) * available / 100, 6)))
    if count := _COUNT.fullmatch(text):
        return int(count[1])
    expected = "4, '4 slices', '10 %', 0 or all"
    raise ConfigurationError("not a label budget", field="label_budget", value=budget, expected=expected)


def budget_name(budget: int | float | str) -> str:
    """How folders and records call a budget: ``4``, ``10_percent`` or ``all``."""
    text = str(budget)
    if share := _SHARE.fullmatch(text):
        return f"{share[1]}_percent"
    return "all" if text in ("0", "all") else str(slice_count(budget, 0))


def _showing(scan: Mapping[str, Any]) -> list[tuple[Item, int]]:
    """Slices that show an organ, with the number of organs; all alike where nobody has counted."""
    shown: Sequence[int] = scan.get("shown") or [1] * int(scan["slices"])
    return [(one, shown[one["slice"]]) for one in slices_of(scan) if shown[one["slice"]]]


def _drawn(stacks: Sequence[Sequence[tuple[Item, int]]], count: int, seed: int) -> Iterator[Item]:
    random = np.random.default_rng(seed)
    order = random.permutation(len(stacks))
    turns = [_spread(stacks[index], float(random.random())) for index in order]
    while count:
        for turn in turns:
            one = next(turn, None)
            if one is not None and count:
                count -= 1
                yield one


def _spread(stack: Sequence[tuple[Item, int]], start: float) -> Iterator[Item]:
    """Every slice once: spread over the stack by its organs, then whatever is left."""
    edges = np.cumsum([organs for _, organs in stack], dtype=float)
    left = dict.fromkeys(range(len(stack)))
    for number in range(8 * len(stack)):
        place = int(np.searchsorted(edges, (start + number * _GOLDEN) % 1 * edges[-1], side="right"))
        if place in left:
            del left[place]
            yield stack[place][0]
    for place in left:
        yield stack[place][0]
