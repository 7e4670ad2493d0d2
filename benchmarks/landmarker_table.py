"""landmarker and ours after the same processor time, beside each other: the table, and the result records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from records import record

MEASURES = {"mre_mm": "mm", "median_mm": "mm", "sdr2": "%", "sdr2.5": "%", "sdr3": "%", "sdr4": "%"}
NAMES = {"landmarker": "landmarker's recipe", "ours": "the shipped recipe"}
PREFIXES = {"landmarker": "isbi2015/test1/150/landmarker/equal_time", "ours": "isbi2015/test1/150/best/equal_time"}

Facts = dict[str, Any]


def speeds(facts: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """What a run's facts come to, with units; of several stages the mean over their steps."""
    seconds = sum(number * each for number, each in zip(facts["steps"], facts["step_s"], strict=True))
    recipe_s = sum(number * each for number, each in zip(facts["recipe_steps"], facts["step_s"], strict=True))
    steps = sum(facts["steps"])
    return {
        "parameters": (facts["parameters"], "1"),
        "step_s": (seconds / steps, "s"),
        "films_per_s": (facts["batch"] * steps / seconds, "1/s"),
        "processor_min": (facts["processor_s"] / 60, "min"),
        "steps": (steps, "1"),
        "recipe_share": (steps / sum(facts["recipe_steps"]), "1"),
        "recipe_h": (recipe_s / 3600, "h"),
    }


def table(runs: Mapping[str, tuple[Facts, Facts]]) -> list[str]:
    """Both runs beside each other, as lines of Markdown.

    Args:
        runs: facts and metrics of ``landmarker`` and ``ours``.
    """
    facts = {name: run[0] for name, run in runs.items()}
    speed = {name: speeds(run) for name, run in facts.items()}
    rows = [
        ["weights at the start", *(one["start"] for one in facts.values())],
        ["parameters", *(f"{one['parameters'][0] / 1e6:.2f} M" for one in speed.values())],
        ["grid", *(", then ".join(f"{h} x {w}" for h, w in one["grids"]) for one in facts.values())],
        ["films a step", *(str(one["batch"]) for one in facts.values())],
        ["processor seconds a step", *(", then ".join(f"{s:.2f}" for s in one["step_s"]) for one in facts.values())],
        ["films a processor second", *(f"{one['films_per_s'][0]:.3f}" for one in speed.values())],
        ["processor minutes trained", *(f"{one['processor_min'][0]:.1f}" for one in speed.values())],
        ["steps in that time", *(" + ".join(map(str, one["steps"])) for one in facts.values())],
        ["share of its recipe's steps", *(f"{one['recipe_share'][0]:.1%}" for one in speed.values())],
        ["all steps of its recipe on this processor", *(f"{one['recipe_h'][0]:.1f} h" for one in speed.values())],
    ]
    for part, kind in (("all_films", "all"), ("leak_free", "leak-free")):
        found = [metrics[part] for _, metrics in runs.values() if metrics.get(part)]
        if len(found) == len(runs):
            films = f"{found[0]['films']} films, {kind}"
            rows.append([f"MRE mm, {films}", *(f"{one['mre_mm']:.2f}" for one in found)])
            rates = [" / ".join(f"{one[m]:.1f}" for m in MEASURES if m.startswith("sdr")) for one in found]
            rows.append([f"SDR 2 / 2.5 / 3 / 4 mm %, {films}", *rates])
    lines = ["| | " + " | ".join(NAMES[name] for name in runs) + " |", "| --- " * (len(runs) + 1) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), "", *explained(facts["landmarker"])]


def explained(facts: Mapping[str, Any]) -> list[str]:
    """What the table is, and what it is not."""
    share = sum(facts["steps"]) / sum(facts["recipe_steps"])
    epochs = facts["recipe_epochs"]
    return [
        "Equal processor time, one seed: not what landmarker comes to in the end. Of its recipe's "
        f"{epochs} epochs it had {share * epochs:.1f} ({share:.1%}); after all of them, on a GPU, its example states",
        "1.20 mm, and 84.5 % within 2 mm, on the same 150 films, measured by its own code.",
    ]


def records(runs: Mapping[str, tuple[Facts, Facts]]) -> list[Facts]:
    """Result records, see docs/design.md section 8."""
    found = []
    for name, (facts, metrics) in runs.items():
        speed = speeds(facts)
        grids = ", then ".join(f"{h} x {w}" for h, w in facts["grids"])
        steps = " + ".join(map(str, facts["steps"]))
        notes = (
            f"{NAMES[name]}, {facts['start']}, {grids}, {steps} steps of {facts['batch']} in "
            f"{facts['processor_s'] / 60:.1f} processor minutes, {speed['recipe_share'][0]:.1%} of its recipe's; "
            "native pixels, <=, pooled over points; interval: 95 % bootstrap over films"
        )
        shared = {key: facts[key] for key in ("command", "commit", "date", "machine")}
        shared |= {"seeds": [facts["seed"]], "split": "001-150, test 151-300", "reader": "mean of senior and junior"}
        shared |= {"labels": 150, "notes": notes}
        done = sum(facts["steps"])
        found += [_record(name, key, value, unit, done, None, "", shared) for key, (value, unit) in speed.items()]
        for part, prefix, kept in (("all_films", "", "kept"), ("leak_free", "leakfree_", "left out")):
            if one := metrics.get(part):
                found += [
                    _record(name, prefix + key, one[key], unit, one["films"], one.get(f"{key}_interval"), kept, shared)
                    for key, unit in MEASURES.items()
                ]
    return found


def _record(
    run: str,
    key: str,
    value: float,
    unit: str,
    n: int,
    interval: Sequence[float] | None,
    near_duplicates: str,
    shared: Facts,
) -> Facts:
    ends = None if interval is None else [round(float(end), 4) for end in interval]
    name, facts = f"{PREFIXES[run]}/{key}", {"interval": ends, "near_duplicates": near_duplicates, **shared}
    return record(name, round(float(value), 4), unit, n, **facts)
