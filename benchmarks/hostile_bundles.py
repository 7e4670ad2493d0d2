"""Hostile bundles and weights, opened by `verify` and by stock software, each in a process of its own.

    python benchmarks/hostile_bundles.py [--json docs/results/hostile_bundles.json] [--only TEXT]

The kinds are those of the tests (tests/bundle/hostile.py). What a process does is told by Python's audit events: a
program started, a debugger opened, a connection, a file written outside the folder it may write to; and by a file, the
canary, that the hostile content tries to make. Each process has 20 s and 2 GiB beyond what it has when it begins. Linux
only.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import re
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps.utils import extractall
from monai.bundle import ConfigWorkflow, download_large_files, verify_net_in_out
from monai.data import NumpyReader
from records import add_records, record
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from monai_landmark.errors import DataError
from monai_landmark.networks import read_state_dict
from monai_landmark.safety import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bundle"))
hostile = importlib.import_module("hostile")

SECONDS, MEMORY = 20, 2 << 30
hostile.BOMB_MIB = 400
OLD_LOAD = "torch.load, weights_only=False"
RAN = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "builtins.breakpoint", "socket.connect"}
Opener = Callable[[Path], Any]


@dataclass
class Outcome:
    """What a process did: ``did`` is executed, wrote, hung, memory, refused or opened, and ``words`` say more."""

    did: str
    words: str
    seconds: float
    memory_mib: float


def ours(path: Path, reason: str = "") -> None:
    """`verify`, and for weights the reader of the networks too; both must refuse. Of several reasons the asked one."""
    found = verify(path)
    if path.suffix in (".pt", ".safetensors"):
        with contextlib.suppress(DataError):
            read_state_dict(path)
            raise AssertionError("read_state_dict opened what verify looks at")
    asked = [each for each in found.findings if re.search(reason, str(each))]
    for each in asked + found.findings:
        raise each


def stock(kind: str) -> dict[str, Opener]:
    """How stock software would open a kind."""
    workflow = {"ConfigWorkflow": run_workflow}
    return {
        "config": workflow,
        "none": workflow,
        "logging": {"ConfigWorkflow": lambda path: run_workflow(path, path / "configs" / "logging.conf")},
        "metadata": {"verify_net_in_out": check_network},
        "large_files": {"download_large_files": lambda path: download_large_files(str(path))},
        "torch": {
            "torch.load": lambda path: torch.load(path),
            OLD_LOAD: lambda path: torch.load(path, weights_only=False),
        },
        "safetensors": {"safetensors": lambda path: load_file(path)},
        "numpy": {"numpy.load": np.load, "NumpyReader": lambda path: NumpyReader().read(str(path))},
        "zip": {
            "monai.bundle.download": lambda path: extractall(path, path.parent / "unpacked", has_base=False),
            "zipfile": lambda path: zipfile.ZipFile(path).extractall(path.parent / "unpacked"),
        },
    }[kind]


def run_workflow(path: Path, logging_file: Path | None = None) -> None:
    """What `python -m monai.bundle run` does in the bundle's folder."""
    if path.suffix == ".zip":
        extractall(path, path.parent / "unpacked", has_base=False)
        path = path.parent / "unpacked" / "bundle"
        (path / "configs" / "metadata.json").write_text("{}", encoding="utf-8")
    os.chdir(path)
    sys.path.insert(0, str(path))
    workflow = ConfigWorkflow(
        config_file=str(path / "configs" / "inference.yaml"),
        meta_file=str(path / "configs" / "metadata.json"),
        logging_file=None if logging_file is None else str(logging_file),
        workflow_type="infer",
    )
    workflow.initialize()
    workflow.run()


def check_network(path: Path) -> None:
    """`python -m monai.bundle verify_net_in_out`."""
    configs = path / "configs"
    verify_net_in_out("network_def", str(configs / "metadata.json"), str(configs / "inference.yaml"), device="cpu")


def in_process(opener: Opener, path: Path, canary: Path, may_write: list[Path]) -> Outcome:
    """Open something in a forked process."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    start = time.perf_counter()
    process = context.Process(target=_child, args=(opener, path, may_write, sender))
    process.start()
    sender.close()
    told: tuple[str, str, list[str], float] | None = None
    if receiver.poll(SECONDS):
        with contextlib.suppress(EOFError):
            told = receiver.recv()
    seconds = time.perf_counter() - start
    if told is None and process.is_alive():
        process.kill()
        process.join()
        return Outcome("hung", f"stopped after {SECONDS} s", seconds, 0)
    process.join()
    if told is None:
        return Outcome("memory" if process.exitcode == -9 else "crashed", f"exit code {process.exitcode}", seconds, 0)
    did, words, events, memory = told
    if canary.exists() or events:
        made = "made the canary" if canary.exists() else ""
        ran = any(not event.startswith("write") for event in events) or (made and "zip" not in path.suffix)
        return Outcome("executed" if ran else "wrote", ", ".join(filter(None, [made, *events[:2]])), seconds, memory)
    return Outcome(did, words, seconds, memory)


def _child(opener: Opener, path: Path, may_write: list[Path], sender: Connection) -> None:
    """Runs the opener with a memory limit, and tells what it did."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    events: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event in RAN:
            events.append(event)
        elif event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            target = Path(os.path.abspath(arguments[0]))
            if target != Path(os.devnull) and not any(target.is_relative_to(folder) for folder in may_write):
                events.append(f"write {target.name}")

    sys.addaudithook(watch)
    try:
        opener(path)
        did, words = "opened", ""
    except MemoryError:
        did, words = "memory", f"more than {MEMORY >> 20} MiB"
    except BaseException as error:
        deepest: BaseException = error
        while (deeper := deepest.__cause__ or deepest.__context__) is not None:
            deepest = deeper
        shown = error if isinstance(error, DataError) else deepest
        did, words = "refused", f"{type(shown).__name__}: {' '.join(str(shown).split())}"
        if "can't allocate memory" in words:
            did = "memory"
    watching.clear()
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    unpacked = sum(file.stat().st_size for folder in may_write for file in folder.rglob("*") if file.is_file()) >> 20
    if did == "opened" and (memory > 100 or unpacked > 100):
        words = (
            f"taking {memory:.0f} MiB of memory, {unpacked} MiB of disk, for a file of {path.stat().st_size >> 10} KiB"
        )
    sender.send((did, words[:300], events, memory))
    sender.close()
    os._exit(0)


def measure(name: str) -> tuple[Outcome, dict[str, Outcome]]:
    """One kind: ours, and every stock way."""
    kind = hostile.KINDS[name]
    outcomes = {}
    for label, opener in {"ours": partial(ours, reason=kind.reason), **stock(kind.stock)}.items():
        with tempfile.TemporaryDirectory(prefix="hostile_") as root:
            folder, canary = Path(root) / "elsewhere", Path(root) / "canary"
            folder.mkdir()
            path = kind.build(folder, canary)
            allowed = [Path(root) / "unpacked", folder / "unpacked", Path(root) / "temporary"]
            (Path(root) / "temporary").mkdir()
            tempfile.tempdir = str(Path(root) / "temporary")
            outcomes[label] = in_process(opener, path, canary, allowed)
            own = (f"{root}/", root, f"{sys.prefix}/", f"{Path.cwd()}/")
            for prefix in own:
                outcomes[label].words = outcomes[label].words.replace(prefix, "")
            tempfile.tempdir = None
    return outcomes.pop("ours"), outcomes


def records(found: dict[str, tuple[Outcome, dict[str, Outcome]]]) -> list[dict[str, Any]]:
    """Counts over all kinds, and one record a kind."""
    own = Counter(mine.did for mine, _ in found.values())
    as_it_is = [[each for label, each in theirs.items() if label != OLD_LOAD] for _, theirs in found.values()]
    other = Counter(worst(outcomes) for outcomes in as_it_is)
    old = sum(theirs[OLD_LOAD].did == "executed" for _, theirs in found.values() if OLD_LOAD in theirs)
    count, rows = len(found), []

    def add(name: str, value: float, unit: str, notes: str, n: int = count) -> None:
        rows.append(record(f"robustness/hostile/{name}", value, unit, n, notes=notes))

    add(
        "executed", own["executed"] + own["wrote"], "kinds", "verify and read_state_dict: ran a program or wrote a file"
    )
    add("refused", own["refused"], "kinds", "with the reason, the file, the field and what to do")
    seconds = max(mine.seconds for mine, _ in found.values())
    add("longest_s", round(seconds, 2), "s", "of one kind, the process's start included")
    add(
        "memory_mib",
        round(max(mine.memory_mib for mine, _ in found.values()), 1),
        "MiB",
        "most memory taken for one kind",
    )
    stock_notes = "worst of the stock ways to open each kind: " + ", ".join(
        f"{n} {did}" for did, n in other.most_common()
    )
    add("stock_executed", other["executed"], "kinds", stock_notes)
    add("stock_executed_old_load", old, "kinds", f"of those that {OLD_LOAD} opens, torch's default before 2.6")
    add("stock_hung", other["hung"], "kinds", stock_notes)
    add("stock_opened", other["opened"], "kinds", stock_notes)
    add("stock_wrote", other["wrote"], "kinds", "outside the folder it was told to write to, " + stock_notes)
    for name, (mine, theirs) in found.items():
        notes = "; ".join(
            f"{label}: {each.did} {each.words}".strip() for label, each in {"ours": mine, **theirs}.items()
        )
        add(f"kind/{name}", float(mine.did == "refused"), "refused", notes, 1)
    return rows


def worst(outcomes: Any) -> str:
    """The gravest of some outcomes."""
    order = ("executed", "wrote", "crashed", "hung", "memory", "opened", "refused")
    return min((each.did for each in outcomes), key=order.index)


def main() -> int:
    """Measure, print the table, write the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--only", default="", help="only kinds with this in their name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: measure(name) for name in hostile.KINDS if args.only in name}
    table = Table("kind", "ours", "reason", "stock")
    for name, (mine, theirs) in found.items():
        stock_words = "\n".join(f"{label}: {each.did} {each.words}"[:110] for label, each in theirs.items())
        table.add_row(name, mine.did, mine.words.split("; what to do")[0][:160], stock_words)
    console = Console(width=None if sys.stdout.isatty() else 220, markup=False)
    console.print(table)
    bad = [name for name, (mine, _) in found.items() if mine.did != "refused"]
    console.print(f"{len(found)} kinds, ours: {len(found) - len(bad)} refused, not refused: {bad or 'none'}")
    if args.json:
        add_records(args.json, records(found))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
