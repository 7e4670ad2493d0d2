"""Does anything that this package writes name a patient? Planted words, every command, the server, and a search.

    python benchmarks/robustness.py phi --label-python .venv-label/bin/python      # the record is made there

What is searched for which words is the rule of docs/security.md: logs and what is made for others for all of them; what
the people of the clinic are told, and their own files, for what stands in the films' attributes.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml
from phi_plants import FOLDERS, NAMED, TAGGED, found, write_clinic, write_film

from monai_landmark.apps import cli

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "xray_landmarks"
STEP = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "spatial_size": [64, 64], "precision": "float32"}
SHORT = ("inspect", "prepare", "leaks", "deidentify", "train", "predict", "report", "select", "verify")
LONG = (*SHORT[:5], "pretrain", "calibrate", "predict", "evaluate", "infer", *SHORT[6:], "study", "label")


class Clinic:
    """A clinic's folders: films, own files, models, what is for others, and logs.

    Args:
        work: where to make them.
        label_python: the interpreter that has MONAI Label.
    """

    def __init__(self, work: Path, label_python: str) -> None:
        shutil.rmtree(work, ignore_errors=True)
        self.films, self.own, self.model, self.shared, self.logs = (
            work / name for name in ("films", "own", "model", "shared", "logs")
        )
        self.points = write_clinic(self.films)
        self.work, self.label_python = work, label_python
        self.datalist, self.salt = self.own / "datalist.json", self.own / "salt"
        for folder in (self.own, self.shared, self.logs):
            folder.mkdir()

    def run(self, command: str) -> None:
        """One command, as a user types it."""
        begun = time.process_time()
        getattr(self, f"_{command}")()
        print(f"{command}: {time.process_time() - begun:.0f} s of processor time", flush=True)

    def _tell(self, *words: object, codes: tuple[int, ...] = (0,), out: Path | None = None) -> None:
        """A command of this package; what it prints is for the person at the desk, what it logs is a log."""
        name = str(words[0])
        with said(out or self.own / f"{name}.stdout.txt", self.logs / f"{name}.stderr.txt"):
            code = cli.main([str(word) for word in words])
        assert code in codes, f"{words} ended with {code}: {(self.logs / f'{name}.stderr.txt').read_text()}"

    def _bundle(self, name: str, **keys: object) -> None:
        """A command of the bundle: all that it says is a log."""
        words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
        config = ["run", name, "--config_file", str(BUNDLE / "configs" / f"{name.replace('infer', 'inference')}.yaml")]
        sys.argv = ["monai.bundle", *config, "--bundle_root", str(BUNDLE), *words]
        log = self.logs / f"{name}.txt"
        with said(log, log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_module("monai.bundle", run_name="__main__")

    # ---- films and datalists ---------------------------------------------------------------------------------------
    def _inspect(self) -> None:
        keep = ["--json", self.own / "inspect.json", "--cache", self.own / "films.sqlite"]
        self._tell("inspect", self.films, "--annotations", self.points, "--schema", "synthetic", *keep)

    def _prepare(self) -> None:
        words = ["--annotations", self.points, "--schema", "synthetic", "--duplicates", "mark"]
        words += ["--patient-pattern", r"^(.*)_\d+\.", "--test-fraction", "0.25", "--validation-fraction", "0.25"]
        self._tell("prepare", "folder", self.films, "--out", self.datalist, *words)

    def _leaks(self) -> None:
        self._tell("leaks", self.datalist, self.films, "--json", self.own / "leaks.json", codes=(3,))

    def _deidentify(self) -> None:
        key = ["--salt", self.salt, "--key", self.own / "key.csv"]
        told = self.shared / "deidentify.stdout.txt"
        self._tell("deidentify", self.films, "--out", self.shared / "films", *key, out=told)
        self._tell("deidentify", self.datalist, "--out", self.shared / "dataset", *key, out=told)

    # ---- networks --------------------------------------------------------------------------------------------------
    def _train(self) -> None:
        """One film has become unreadable since, and two are not trained on."""
        listed = json.loads(self.datalist.read_text())
        items = [*listed["training"], *listed["validation"]]
        item = items[np.random.default_rng(0).permutation(len(items))[0]]  # the first that is drawn
        film = self.films / item["image"]
        whole = film.read_bytes()
        film.write_bytes(whole[: len(whole) // 2])
        start = {
            "architecture": "diffusion-tiny",
            "broken_share": 0.5,
            "label_budget": len(items) - 1,
            "validation_films": 1,
        }
        self._bundle("train", datalist=self.datalist, output_dir=self.model, **start, **STEP)
        film.write_bytes(whole)
        assert "cannot be read" in (self.logs / "train.txt").read_text()

    def _pretrain(self) -> None:
        """From a datalist and a folder, in which there is an evaluation film that has to go."""
        more = self.work / "more films" / FOLDERS[0]
        more.mkdir(parents=True)
        for number in (10, 11, 12):
            write_film(more / f"{FOLDERS[2]}_{number}.dcm", number)
        tested = json.loads(self.datalist.read_text())["test"][0]["image"]
        shutil.copyfile(self.films / tested, more / f"{FOLDERS[3]}.dcm")
        pool = f"[{{'path': '{more.parent}', 'name': 'archive'}}]"
        keys = {"architecture": "diffusion-tiny", "samples": 2, "held_out_films": 2, "on_evaluation_film": "drop"}
        self._bundle("pretrain", datalist=self.datalist, output_dir=self.work / "pretrained", pool=pool, **keys, **STEP)

    def _calibrate(self) -> None:
        words = ["--model-dir", self.model, "--datalist", self.datalist, "--bundle", BUNDLE]
        self._tell("calibrate", *words, "--level", "0.5", "--risk", "0.5", "--scale-share", "0")

    def _predict(self) -> None:
        known = ["--model-dir", self.model, "--bundle", BUNDLE]
        self._tell("predict", self.films / FOLDERS[1], *known, "--out", self.own / "predicted")
        copies, out = self.shared / "films", self.shared / "predicted"
        dicom = ["--dicom", "sr", "gsps"] if have_highdicom() else []
        told = self.shared / "predict.stdout.txt"
        self._tell("predict", sorted(copies.glob("*.dcm"))[0], *known, "--out", out, *dicom, out=told)

    def _evaluate(self) -> None:
        self._bundle("evaluate", datalist=self.datalist, model_dir=self.model, output_dir=self.own / "evaluation")

    def _infer(self) -> None:
        films = self.films / FOLDERS[1]
        self._bundle("infer", films=f"$monai_landmark.data.films.find_films('{films}')", model_dir=self.model,
                     output_dir=self.own / "inferred")  # fmt: skip

    def _report(self) -> None:
        """From the evaluation where there is one, else from predictions."""
        results = next(path for path in (self.own / "evaluation", self.own / "predicted") if path.is_dir())
        words = ["--datalist", self.datalist] if results.name == "evaluation" else ["--films", self.films]
        share = ["--share", "--salt", self.salt, "--out", self.shared / "report"]
        self._tell("report", results, *words, *share, out=self.shared / "report.stdout.txt")
        self._tell("report", results, *words, "--out", self.own / "report")

    def _select(self) -> None:
        words = ["--budget", 2, "--as-if-unlabelled", "--model-dir", self.model, "--out", self.own / "select.csv"]
        self._tell("select", self.datalist, *words)

    def _verify(self) -> None:
        told = self.shared / "verify.stdout.txt"
        self._tell("verify", self.model, "--json", self.shared / "verify.json", codes=(0, 1), out=told)

    def _study(self) -> None:
        work, steps = self.work / "study", {key: value for key, value in STEP.items() if key != "precision"}
        content = {"name": "planted", "bundle": str(BUNDLE), "datasets": {"clinic": {"datalist": str(self.datalist)}}}
        content |= {"budgets": [2], "seeds": [0], "initializations": {"random": {"architecture": "diffusion-tiny"}}}
        file = self.own / "study.yaml"
        file.write_text(yaml.safe_dump({**content, "train": steps}))
        self._tell("study", file, "--out", work, out=self.logs / "study.stdout.txt")
        for path in (*work.glob("table.*"), work / "figures"):
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, self.shared / f"study_{path.name}")
        for number, path in enumerate(sorted(work.rglob("*.log"))):
            shutil.copyfile(path, self.logs / f"study_{number}.txt")

    def _label(self) -> None:
        """The real server, in the environment that has MONAI Label."""
        folder = self.work / "server"
        (folder / "films").mkdir(parents=True)
        for number, film in enumerate(sorted(self.films.rglob("*.dcm"))[:3]):
            shutil.copyfile(film, folder / "films" / f"{NAMED[12]}_{NAMED[1]}_{number}.dcm")
        shutil.copyfile(next(self.films.rglob("*.png")), folder / "films" / f"{NAMED[5]}_{NAMED[3]}.png")
        shutil.copytree(self.model, folder / "model")
        words = [self.label_python, __file__, str(folder)]
        subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=3000)
        shutil.copyfile(folder / "server.log", self.logs / "server.txt")
        shutil.copyfile(folder / "shown.txt", self.logs / "server_progress.txt")
        shutil.copyfile(folder / "answers.txt", self.own / "server_answers.txt")
        shutil.copytree(folder / "model", self.work / "server_model")

    # ---- the search ------------------------------------------------------------------------------------------------
    def surfaces(self) -> Iterator[tuple[str, tuple[str, ...], bytes]]:
        """Name, words that must not be there, and content of every file that was written."""
        everything = (*TAGGED, *NAMED)
        private = ("datalist.json", "datalist.films.sqlite")  # of the server's rounds: they lie beside the models
        places = ((self.logs, everything), (self.shared, everything), (self.own, TAGGED))
        places += tuple((self.work / name, everything) for name in ("model", "pretrained", "server_model"))
        for folder, words in places:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                known = TAGGED if path.name in private and folder.name == "server_model" else words
                yield f"{folder.name}/{path.relative_to(folder)}", known, path.read_bytes()


@contextlib.contextmanager
def said(out: Path, err: Path) -> Iterator[None]:
    """What this process and those that it starts print goes to files."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, targets = [os.dup(1), os.dup(2)], {}
    try:
        for number, path in ((1, out), (2, err)):
            targets[path] = targets.get(path) or os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(targets[path], number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        for target in targets.values():
            os.close(target)


def have_highdicom() -> bool:
    """Whether DICOM results can be written here."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        return False
    return True


def search(work: Path, commands: tuple[str, ...], label_python: str = sys.executable) -> tuple[list[str], int, int]:
    """Run commands and look for planted words.

    Args:
        work: a folder, made anew.
        commands: of :data:`LONG`.
        label_python: the interpreter that has MONAI Label.

    Returns:
        What was found, how many words were looked for in all files together, and how many files there are.
    """
    clinic = Clinic(work, label_python)
    planted = [
        (path.relative_to(clinic.films), path.read_bytes()) for path in clinic.films.rglob("*") if path.is_file()
    ]
    there = {word for name, content in planted for word in found((*TAGGED, *NAMED), str(name), content)}
    assert there == {*TAGGED, *NAMED}, f"not planted: {({*TAGGED, *NAMED}) - there}"
    for command in commands:
        clinic.run(command)
    leaks, looked_for, files = [], 0, 0
    for name, words, content in clinic.surfaces():
        leaks += [f"{name}: {word}" for word in found(words, name, content)]
        looked_for, files = looked_for + len(words), files + 1
    return leaks, looked_for, files


# ---- the server, in its own environment ------------------------------------------------------------------------------
def serve(folder: Path) -> None:
    """Start the server on a clinic's films, do with it what users do, and keep what it answers."""
    from label_server import JSON, answered, ask, form, infer, inside, save, server

    answers: list[bytes] = []

    def kept(answer: tuple[int, bytes]) -> tuple[int, bytes]:
        """An answer, which is written down."""
        answers.append(answer[1])
        return answer

    def post(target: str, content: dict[str, Any]) -> dict[str, Any]:
        """An action with settings."""
        return answered(kept(ask(port, "POST", target, json.dumps(content).encode(), JSON)))

    shown: list[bytes] = []

    def wait(target: str) -> None:
        """Until a task has ended; what users are told of it counts as a log."""
        while (task := answered(ask(port, "GET", target)))["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(1)
        shown.append(json.dumps(task).encode())
        assert task["status"] == "DONE", task

    with server(folder) as (port, _):
        films = sorted(answered(ask(port, "GET", "/datastore/?output=all"))["objects"])
        assert len(films) == 4, films
        for film in films:
            told = answered(kept(infer(port, film)))["result"]
            answered(kept(save(port, film, *inside(told))))
        sent = (folder / "films" / f"{films[0]}.dcm").read_bytes()
        address = "/infer/landmarks?output=json"
        assert kept(form(port, "POST", address, "file", sent, f"{NAMED[5]}.dcm"))[0] == 200
        assert kept(form(port, "POST", address, "file", sent[:3000], f"{NAMED[5]}.dcm"))[0] == 422
        assert kept(infer(port, NAMED[0]))[0] in (400, 404)
        assert kept(form(port, "PUT", "/datastore/image", "file", sent, f"{NAMED[5]}.dcm"))[0] == 200
        post("/batch/infer/landmarks?images=all&run_sync=true", {"device": "cpu"})
        post("/train/landmarks", {"max_epochs": 1, "steps_per_epoch": 2, "batch_size": 1})
        wait("/train/")
        for target in ("/info/", "/review/", "/review/api/films", f"/review/api/points?image={quote(films[0])}"):
            kept(ask(port, "GET", target))
        assert kept(ask(port, "GET", f"/review/api/pixels?image={quote(films[0])}"))[0] == 200
        assert kept(ask(port, "GET", f"/review/api/pixels?image={quote(NAMED[1])}"))[0] == 404
    (folder / "answers.txt").write_bytes(b"\n".join(answers))
    (folder / "shown.txt").write_bytes(b"\n".join(shown))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
