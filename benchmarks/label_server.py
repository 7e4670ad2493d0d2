"""The label server under load, then the full loop: predict, correct, train, predict anew. All over HTTP.

    python benchmarks/label_server.py --model-dir runs/model --isbi ../shared/data/isbi2015 [--json FILE]

Each client predicts a film, looks at the list of films as the review page does, and saves a label, over and over. Films
are the training films of ISBI 2015 (not part of this repository), or synthetic ones of the same size. The server is the
real one in a process of its own; run this in the environment that `make label` makes. The model's folder is copied.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil
from PIL import Image
from records import add_records, machine, record

from monai_landmark.data.synthetic import synthesize_film

SIZE = (2400, 1935)
JSON = {"Content-Type": "application/json"}
SPACING = ("0.1", "0.1")
Answer = tuple[int, bytes]
Times = dict[str, list[float]]
Found = dict[str, tuple[float, str, int]]  # name -> value, unit, number of requests


def main() -> None:
    """Print what was measured, and write it as result records when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--isbi", type=Path, help="folder with jpg, 400_senior and 400_junior")
    parser.add_argument("--films", type=int, default=150)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, default=4, help="of the training; 0: none")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = write_films(folder / "films", args.isbi, args.films)
        shutil.copytree(args.model_dir, folder / "model", ignore=shutil.ignore_patterns("rounds", "checkpoint*"))
        with server(folder) as (port, process):
            answered(infer(port, films[0]))  # loads the network
            used = processor_seconds(process)
            times, failures, seconds = load(port, films, args.clients, args.seconds)
            used = processor_seconds(process) - used
            notes = (
                f"{args.clients} clients begin anew for {args.seconds:g} s: predict, look at the list, save a label; "
            )
            notes += (
                f"{seconds:.0f} s until the last was served, in which the server got {used:.0f} s of processor time"
            )
            report(summary(times, failures, seconds), notes, args)
            print("\n".join(sorted(set(failures))[:5]), flush=True)
            if args.steps:
                notes = f"then once: predict, correct 5 films, train {args.steps} steps, predict by the new model"
                report(loop(port, films, args.isbi, args.steps), notes, args)


def report(found: Found, notes: str, args: argparse.Namespace) -> None:
    """Print, and add to the records."""
    for key, (value, unit, count) in found.items():
        print(f"{key} {value:g} {unit} (n = {count})")
    print(notes, flush=True)
    if args.json:
        add_records(args.json, records(found, notes, args))


# ---- the server ------------------------------------------------------------------------------------------------------
def write_films(folder: Path, isbi: Path | None, count: int) -> list[str]:
    """Films 001 and on of ISBI 2015, or synthetic ones; their ids."""
    folder.mkdir()
    ids = [f"{number:03d}" for number in range(1, count + 1)]
    for number, film in enumerate(ids):
        file = folder / f"{film}.jpg"
        if isbi is not None:
            shutil.copyfile(isbi / "jpg" / file.name, file)
            continue
        pixels = (synthesize_film(number).pixels >> 8).astype(np.uint8)
        Image.fromarray(pixels).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(file, quality=95)
    return ids


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run it; its port and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = ["--studies", folder / "films", "--model-dir", folder / "model", "--port", port, "--device", "cpu"]
    command = [sys.executable, "-m", "monai_landmark", "label", "start", *map(str, words), "--spacing", *SPACING]
    environment = {**os.environ, "HOME": str(folder)}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until_up(port, process, folder / "server.log")
        yield port, process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Of the server so far; on a machine that does other work too it says how much of it the server got."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def wait_until_up(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers."""
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the server did not start: {log.read_text()}")
        try:
            if ask(port, "GET", "/info/")[0] == 200:
                return
        except OSError:
            time.sleep(0.5)


def ask(port: int, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """One request, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def form(port: int, method: str, target: str, key: str, value: bytes, file: str = "") -> Answer:
    """A request with a form of one field."""
    cut, name = uuid.uuid4().hex, f'; filename="{file}"' if file else ""
    head = f'--{cut}\r\nContent-Disposition: form-data; name="{key}"{name}\r\n\r\n'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={cut}"}
    return ask(port, method, target, head + value + f"\r\n--{cut}--\r\n".encode(), headers)


def infer(port: int, film: str) -> Answer:
    """A prediction as JSON."""
    return form(port, "POST", f"/infer/landmarks?image={quote(film)}&output=json", "params", b"{}")


def save(port: int, film: str, names: list[str], points: list[Any]) -> Answer:
    """A final label in the package's plain form."""
    label = {"films": [{"film": film, "landmarks": dict(zip(names, points, strict=True))}]}
    target = f"/datastore/label?image={quote(film)}&tag=final"
    return form(port, "PUT", target, "label", json.dumps(label).encode(), "label.json")


# ---- many clients ----------------------------------------------------------------------------------------------------
def load(port: int, films: list[str], clients: int, seconds: float) -> tuple[Times, list[str], float]:
    """All clients at once, until the time is over; seconds of each request, what went wrong, and how long it took."""
    times: Times = {"infer": [], "look": [], "save": []}
    failures: list[str] = []
    began = time.monotonic()

    def timed(kind: str, request: Any) -> dict[str, Any]:
        start = time.monotonic()
        try:
            status, body = request()
            problem = "" if status == 200 else f"{kind}: {status} {body[:200]!r}"
        except OSError as error:
            body, problem = b"{}", f"{kind}: {error!r}"
        times[kind].append(time.monotonic() - start)
        failures.extend([problem] if problem else [])
        return {} if problem else dict(json.loads(body))

    def client(number: int) -> None:
        draw = np.random.default_rng(number)
        while time.monotonic() - began < seconds:
            film = films[draw.integers(len(films))]
            result = timed("infer", lambda film=film: infer(port, film)).get("result")
            timed("look", lambda: ask(port, "GET", "/review/api/films"))
            if result is not None:
                timed("save", lambda film=film, result=result: save(port, film, *inside(result)))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return times, failures, time.monotonic() - began


def inside(result: dict[str, Any]) -> tuple[list[str], list[Any]]:
    """A prediction's names and points, as a user might leave them; a label may not reach beyond the film."""
    rows = result["landmarks"]
    height, width = result["original_size"]
    points = [np.clip((row["x_px"], row["y_px"]), 0, (width - 1, height - 1)).tolist() for row in rows]
    return [row["name"] for row in rows], points


def summary(times: Times, failures: list[str], seconds: float) -> Found:
    """Errors, requests a second, and percentiles of each request's seconds."""
    total = sum(map(len, times.values()))
    found: Found = {"errors": (float(len(failures)), "", total), "requests_per_s": (total / seconds, "1/s", total)}
    for kind, taken in times.items():
        found |= {f"{kind}_p{part}_s": (float(np.percentile(taken, part)), "s", len(taken)) for part in (50, 95)}
    return found


# ---- the loop --------------------------------------------------------------------------------------------------------
def loop(port: int, films: list[str], isbi: Path | None, steps: int) -> Found:
    """Predict, correct, train, predict anew; raises where a step fails."""
    began = time.monotonic()
    before = answered(infer(port, films[-1]))["result"]
    for film in films[:5]:
        names, points = inside(answered(infer(port, film))["result"])
        answered(save(port, film, names, points if isbi is None else readers_mean(isbi, film)))
    start = time.monotonic()
    settings = {"max_epochs": 1, "steps_per_epoch": steps, "batch_size": 2}
    answered(ask(port, "POST", "/train/landmarks", json.dumps(settings).encode(), JSON))
    while (task := answered(ask(port, "GET", "/train/")))["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(0.5)
    if task["status"] != "DONE":
        raise RuntimeError(f"the training failed: {task['details']}")
    trained = time.monotonic() - start
    after = answered(infer(port, films[-1]))["result"]
    if after["model"] == before["model"] or after["landmarks"] == before["landmarks"]:
        raise RuntimeError("the prediction after the training is not the new model's")
    return {"train_s": (trained, "s", steps), "loop_s": (time.monotonic() - began, "s", 1)}


def readers_mean(isbi: Path, film: str) -> list[Any]:
    """The truth of a film: the mean of both readers, 19 points in pixels."""
    readers = [isbi / reader / f"{film}.txt" for reader in ("400_senior", "400_junior")]
    read = [np.loadtxt(file, delimiter=",", max_rows=19) for file in readers]
    return list(np.mean(read, axis=0).tolist())


def answered(answer: Answer) -> dict[str, Any]:
    """The JSON of an answer that must not be an error."""
    status, body = answer
    if status != 200:
        raise RuntimeError(f"{status}: {body[:500]!r}")
    return dict(json.loads(body))


def records(found: Found, notes: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Result records, see docs/design.md section 8."""
    load_average = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    films = "ISBI 2015, 001 and on" if args.isbi else "synthetic"
    shared = {"machine": machine() + load_average, "split": f"{args.films} films, {films}", "notes": notes}
    name = f"label/cpu/clients{args.clients}"
    return [
        record(f"{name}/{key}", round(value, 3), unit, count, **shared) for key, (value, unit, count) in found.items()
    ]


if __name__ == "__main__":
    main()
