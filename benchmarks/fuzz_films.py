"""Damaged films, by the hundred thousand: none may hurt, none may be read as another film without a word.

    python benchmarks/fuzz_films.py --count 100000 --seed 0 [--json docs/results/fuzz_films.json]

Sound films in every format are damaged (see ``fuzz_mutations``) and read in a worker process, which is watched from
outside: a crash, a film that takes more than two seconds, more than 512 MB, an exception that is not a ``FilmError``,
and a film that is read with another spacing or polarity than the sound one are counted; apart from these, changes that
the damaged file itself states well-formed (a bit flipped within the number, the attribute cut out), which no reader can
know in a format without checksums. Each mutant follows from the
seed and its number; the log in ``--work`` makes a later call go on where an earlier one ended.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing as mp
import os
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_corpus import Base, build_corpus
from fuzz_mutations import mutate
from pydicom import dcmread
from records import add_records, record

from monai_landmark.data.film import Film
from monai_landmark.data.formats import read_film
from monai_landmark.data.spacing import SPACING_TAGS
from monai_landmark.errors import FilmError

HANG_S, KILL_S = 2.0, 60.0
MEMORY_MB = 512
_START_S = 600.0
_STATING = (*SPACING_TAGS, "PhotometricInterpretation", "PresentationLUTShape", "RescaleSlope", "PixelRepresentation")
_ADDRESS_SPACE = 4 * 2**30


def judge(data: bytes, base: Base, sound: Film, stated: bool, work: Path) -> dict[str, Any]:
    """Read one mutant.

    Args:
        data: its bytes.
        base: the sound film.
        sound: what reading that gives.
        stated: see :class:`fuzz_mutations.Mutant`.
        work: folder for the file.

    Returns:
        ``outcome`` (same, changed, refused, other exception), ``seconds``, ``cpu_s``, ``peak_mb``, and what was found.
    """
    file = work / f"mutant{base.suffix}"
    file.write_bytes(data)
    _reset_peak()
    began, worked = time.perf_counter(), time.process_time()
    try:
        film = read_film(file)
        found = _compare(film, sound, stated)
        if found["outcome"] == "changed" and not stated and base.kind == "dicom":
            found["gone"] = _attribute_gone(base.data, data)
    except FilmError as error:
        found = {"outcome": "refused", "problem": error.problem}
    except Exception as error:
        found = {"outcome": "other exception", "type": type(error).__name__, "text": str(error)[:200]}
    spent = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - worked}
    return {**found, **{name: round(value, 4) for name, value in spent.items()}, "peak_mb": _peak_mb()}


def _compare(film: Film, sound: Film, stated: bool) -> dict[str, Any]:
    """Whether spacing and polarity are those of the sound film."""
    old, new = sound.spacing, film.spacing
    changes = []
    if (old.mm is None) != (new.mm is None):
        changes.append("spacing lost" if new.mm is None else "spacing found")
    elif old.mm is not None and new.mm is not None and not np.allclose(old.mm, new.mm, rtol=1e-6):
        changes.append("spacing")
    elif old.source != new.source:
        changes.append("source")
    same_size = film.size == sound.info["size"]
    pixels = film.pixels[:: sound.info["step"], :: sound.info["step"]]
    if film.info.get("inverted") != sound.info.get("inverted") or (same_size and _inverted(pixels, sound.pixels)):
        changes.append("polarity")
    if not changes:
        return {"outcome": "same", **({} if same_size else {"size": list(film.size)})}
    seen = f"{old.mm} {old.source} -> {new.mm} {new.source}"
    return {"outcome": "changed", "changes": changes, "stated": stated, "seen": seen}


def _attribute_gone(sound: bytes, data: bytes) -> bool:
    """Whether the damage left a well-formed file, in which an attribute is absent and none has another value."""
    old, new = (dcmread(io.BytesIO(content), stop_before_pixels=True) for content in (sound, data))
    pairs = [(old.get(keyword), new.get(keyword)) for keyword in _STATING]
    return all(value is None or value == before for before, value in pairs)


def _inverted(pixels: Any, sound: Any) -> bool:
    if np.ptp(pixels) == 0:
        return False
    with np.errstate(all="ignore"):
        return bool(np.corrcoef(pixels.ravel(), sound.ravel())[0, 1] < -0.5)


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not on Linux: the peak is then that of the worker's whole life
        return


def _peak_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _worker(pipe: Connection, seed: int, work: str, real: str | None) -> None:
    """Read the mutants whose numbers come through the pipe."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError):
        print("no memory limit on this platform", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write to it
    folder = Path(work)
    corpus, sound = sound_films(folder, None if real is None else Path(real))
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        mutant = mutate(corpus, seed, number)
        base = mutant.base
        found = judge(mutant.data, base, sound[base.name], mutant.stated, folder)
        pipe.send({"number": number, "base": base.name, "kind": mutant.kind, **found})


def sound_films(work: Path, real: Path | None) -> tuple[list[Base], dict[str, Film]]:
    """The sound films that are read, and what reading them gives; a real film that is refused is left out."""
    sound = {}
    corpus = build_corpus(work, real)
    for base in corpus:
        file = work / f"sound{base.suffix}"
        file.write_bytes(base.data)
        try:
            film = read_film(file)
            step = max(1, film.size[0] // 128)  # whole films of all bases would count as the readers' memory
            info = {"inverted": film.info.get("inverted"), "size": film.size, "step": step}
            sound[base.name] = Film(film.pixels[::step, ::step].copy(), film.spacing, info)
        except FilmError:
            if not base.name.startswith("real-"):
                raise
    return [base for base in corpus if base.name in sound], sound


class Pool:
    """One worker, started again when it dies.

    Args:
        seed: of the run.
        work: folder for files.
        real: folder of real films, or None.
    """

    def __init__(self, seed: int, work: Path, real: Path | None) -> None:
        self._arguments = (seed, str(work), None if real is None else str(real))
        self._start()

    def _start(self) -> None:
        context = mp.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_worker, args=(far, *self._arguments), daemon=True)
        self._process.start()
        far.close()
        if not self._pipe.poll(_START_S) or self._pipe.recv() != "ready":
            raise TimeoutError("the worker does not start")

    def judge(self, number: int) -> dict[str, Any]:
        """Have one mutant read; a worker that dies or does not come back is the finding."""
        self._pipe.send(number)
        try:
            if self._pipe.poll(KILL_S):
                return dict(self._pipe.recv())
            found = {"number": number, "outcome": "hang", "seconds": KILL_S}
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self._process.join()
            found = {"number": number, "outcome": "crash", "exit": self._process.exitcode}
        self.close()
        self._start()
        return found

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def run(count: int, seed: int, work: Path, real: Path | None, minutes: float = math.inf) -> list[dict[str, Any]]:
    """Read mutants, those of earlier calls aside.

    Args:
        count: number of mutants in all.
        seed: of the run.
        work: folder of the log.
        real: folder of real films, or None.
        minutes: end after this time.

    Returns:
        What was found, by this call and the earlier ones.
    """
    work.mkdir(parents=True, exist_ok=True)
    log = work / f"seed{seed}.jsonl"
    known: dict[int, dict[str, Any]] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            entry = json.loads(line)
            known[entry["number"]] = entry
        except (ValueError, KeyError):  # a line that an interrupted run left half written
            continue
    pool, end = Pool(seed, work, real), time.monotonic() + 60 * minutes
    try:
        with log.open("a") as stream:
            for number in range(count):
                if number in known:
                    continue
                if time.monotonic() > end:
                    break
                known[number] = pool.judge(number)
                stream.write(json.dumps(known[number]) + "\n")
                if number % 1000 == 0:
                    print(f"{number} of {count}", file=sys.stderr, flush=True)
    finally:
        pool.close()
    return [known[number] for number in sorted(known) if number < count]


def summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of all that matters."""
    outcomes = Counter(entry["outcome"] for entry in entries)
    changed = [entry for entry in entries if entry["outcome"] == "changed"]
    silent = [entry for entry in changed if not entry["stated"] and not entry.get("gone")]
    return {
        "mutants": len(entries),
        "same": outcomes["same"],
        "other_size": sum("size" in entry for entry in entries),
        "refused": outcomes["refused"],
        "crashes": outcomes["crash"],
        "hangs": outcomes["hang"] + sum(entry.get("cpu_s", 0) > HANG_S for entry in entries),
        "other_exceptions": outcomes["other exception"],
        "silent_spacing": sum(entry["changes"] != ["polarity"] for entry in silent),
        "silent_polarity": sum("polarity" in entry["changes"] for entry in silent),
        "stated_changes": sum(entry["stated"] for entry in changed),
        "attribute_gone": sum(bool(entry.get("gone")) for entry in changed),
        "peak_mb": max((entry.get("peak_mb", 0.0) for entry in entries), default=0.0),
        "slowest_s": max((entry.get("cpu_s", entry.get("seconds", 0.0)) for entry in entries), default=0.0),
    }


def main() -> int:
    """Run, print what was found, write records when asked; 1 when a film did harm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"), help="folder of the log (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after this time, to go on later")
    parser.add_argument("--json", type=Path, help="write result records")
    args = parser.parse_args()
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    real = Path(os.environ.get("MONAI_LANDMARK_DATA", default)).resolve()
    entries = run(args.count, args.seed, args.work, real if real.is_dir() else None, args.minutes)
    found = summary(entries)
    for name, value in found.items():
        print(f"{name:18} {value}")
    refusals = Counter(entry["problem"] for entry in entries if entry["outcome"] == "refused")
    for problem, films in refusals.most_common():
        print(f"{films:8} {problem}")
    stated = Counter(entry["kind"] for entry in entries if entry["outcome"] == "changed" and entry["stated"])
    print("changes that the damaged file states:", ", ".join(f"{kind} {films}" for kind, films in stated.most_common()))
    if args.json:
        write_records(found, {"refused": refusals, "stated_changes": stated}, args)
    harm = ("crashes", "hangs", "other_exceptions", "silent_spacing", "silent_polarity")
    return int(any(found[name] for name in harm) or found["peak_mb"] >= MEMORY_MB)


def write_records(found: dict[str, Any], parts: dict[str, Counter[str]], args: argparse.Namespace) -> None:
    """One record for each count."""
    units = {"peak_mb": "MB", "slowest_s": "s"}
    notes = {
        name: "of these: " + "; ".join(f"{count} {what}" for what, count in counted.most_common(14))
        for name, counted in parts.items()
    }
    shared = {"seeds": [args.seed], "split": "synthetic films and real DICOM samples, damaged"}
    records = [
        record(
            f"robustness/fuzz/{name}",
            value,
            units.get(name, "films"),
            found["mutants"],
            notes=notes.get(name),
            **shared,
        )
        for name, value in found.items()
        if name != "mutants"
    ]
    add_records(args.json, records)


if __name__ == "__main__":
    raise SystemExit(main())
