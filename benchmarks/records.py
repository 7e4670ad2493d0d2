"""The records in docs/results: one JSON list a file, whose entries docs/design.md, section 8, describes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_landmark.files import write_text


def add_records(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Put records into a file, in the place of those of their names."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    names = {record["name"] for record in found}
    kept = [record for record in old if record["name"] not in names]
    write_text(path, json.dumps([*kept, *found], indent=1) + "\n")


def summary(
    values: Sequence[float], digits: int = 3, middle: Callable[[Sequence[float]], float] = statistics.mean
) -> dict[str, Any]:
    """The mean of seeds or rounds, or what ``middle`` makes of them, and the lowest and highest of them."""
    low, high = min(values), max(values)
    return {"value": round(middle(values), digits), "interval": [round(low, digits), round(high, digits)]}
