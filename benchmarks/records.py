"""The records in docs/results: one JSON list a file, whose entries docs/design.md, section 8, describes."""

from __future__ import annotations

import datetime
import json
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from monai_landmark.files import write_text
from monai_landmark.manifest import short_commit

commit = cache(short_commit)  # git is asked once for all records of a run
WHERE = ("interval", "seeds", "split", "reader", "labels", "near_duplicates", "notes")


def record(name: str, value: float, unit: str, n: int, **fields: Any) -> dict[str, Any]:
    """A record with every field: made now, here, by the command that runs, unless ``fields`` say otherwise."""
    made = now()
    if unknown := set(fields) - set(made) - set(WHERE):
        raise TypeError(f"not fields of a record: {sorted(unknown)}")
    return {"name": name, "value": value, "unit": unit, "n": n, **dict.fromkeys(WHERE), **made, **fields}


def now() -> dict[str, Any]:
    """The fields that the run itself tells."""
    return {"command": command(), "commit": commit(), "date": today(), "machine": machine()}


def command() -> str:
    """The command that runs, as one would type it in the repository; of other folders the last two parts of paths."""

    def shown(word: str) -> str:
        name, equals, path = word.rpartition("=")
        return name + equals + "/".join(Path(path).parts[-2:]) if Path(path).is_absolute() else word

    return shlex.join(["python", *map(shown, sys.argv)])


def today() -> str:
    """The date."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


@cache
def machine() -> str:
    """Processor, or GPU where there is one, threads and library versions."""
    import torch  # half a gigabyte that the workers of a benchmark may do without

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    chip = names[0] if names else platform.processor() or platform.machine()
    chip += f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{chip}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, torch {torch.__version__}"


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
