"""The jobs of a study: each pre-trains, or trains and measures, in its own folder, by the bundle's own commands."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

import monai_landmark
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256, write_text
from monai_landmark.manifest import short_commit
from monai_landmark.study.grid import SELF_TAUGHT, Cell, Initialization, Study, StudyDataset

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Outcome", "Task", "cell_task", "run_task", "study_tasks"]

WORK = "{work}"  # stands for the study's folder in a command, so that the folder can move

Command = tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A job.

    Attributes:
        name: its folder in the study's.
        commands: run one after another, each ``python -m ...`` without the first two words.
        needs: names of the tasks that must be done before.
        inputs: files that it reads besides what the tasks before it wrote.
    """

    name: str
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``folds``, ``pretrained``, ``sources`` or ``cells``."""
        return self.name.split("/", 1)[0]

    def identity(self) -> str:
        """Hash of all that its result depends on besides the tasks before it and the installed versions.

        Raises:
            ConfigurationError: if an input is absent.
        """
        for file in self.inputs:
            if not Path(file).is_file():
                raise ConfigurationError("no such file", file=file, field=self.name)
        facts = [self.commands, self.needs, [_content(file) for file in self.inputs]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        name: of the task.
        error: what went wrong; empty if it is done.
        seconds: that it took now; 0 where it was done before.
    """

    name: str
    error: str = ""
    seconds: float = 0.0


def study_tasks(study: Study) -> list[Task]:
    """All jobs of a study, each after those that it needs.

    Args:
        study: the study.

    Returns:
        The divisions into folds, pre-trainings, trainings on source data, and cells.
    """
    found: dict[str, Task] = {}
    for cell in study.cells():
        for one in (*reversed(_teachers(study, cell)), cell):
            for task in (*_preparations(study, one), cell_task(study, one)):
                found[task.name] = task
    return list(found.values())


def _teachers(study: Study, cell: Cell) -> list[Cell]:
    """The cell's teacher, the teacher's, and so on."""
    name = study.initializations[cell.initialization].teacher
    if name is None:
        return []
    teacher = dataclasses.replace(cell, initialization=name, mode="full")
    return [teacher, *_teachers(study, teacher)]


def cell_task(study: Study, cell: Cell) -> Task:
    """The job of one cell: train, further stages, measure.

    Args:
        study: the study.
        cell: which cell.

    Returns:
        Its task; the commands leave ``model`` and ``evaluation`` in its folder.
    """
    row, dataset, folder = study.initializations[cell.initialization], _films(study, cell), f"{WORK}/{cell.name}"
    before = _preparations(study, cell)
    start = next((f"{WORK}/{task.name}/model.safetensors" for task in before if task.kind != "folds"), row.start)
    if row.baseline:
        commands = [_baseline(study, cell, start, dataset.section, f"{folder}/evaluation")]
    else:
        commands = _cell_training(study, cell, start, folder)
        commands.append(_evaluation(study, dataset, f"{folder}/model", dataset.section, f"{folder}/evaluation"))
    needs = [task.name for task in before]
    if teachers := _teachers(study, cell):
        commands.insert(0, _teaching(study, teachers[0], f"{folder}/teacher"))
        needs.append(teachers[0].name)
    files = [dataset.datalist, start, *filter(None, [dataset.label_order])]
    return Task(cell.name, tuple(commands), tuple(needs), _inputs(commands, *files))


def run_task(task: Task, work: str, threads: int = 0) -> Outcome:
    """Run a job unless it is done; a job that was killed goes on where its trainings left their checkpoints.

    Args:
        task: the job.
        work: the study's folder, the same for every machine that runs a part of it.
        threads: processor threads of it; 0: as many as there are.

    Returns:
        How it ended. ``log.txt`` in its folder has all that its commands said, ``done.json`` what they were.
    """
    folder = Path(work) / task.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(folder / "log.txt", "a", encoding="utf-8") as log:
            _wait_for_others(log)
            return Outcome(task.name) if is_done(task, work) else _run_commands(task, work, threads, log)
    except ConfigurationError as error:
        return Outcome(task.name, str(error))


def _wait_for_others(log: IO[str]) -> None:
    """Hold a job alone: a command shares its log, and thereby the lock, even when what started it was killed."""
    if fcntl is not None:  # not on Windows
        fcntl.flock(log, fcntl.LOCK_EX)


def _run_commands(task: Task, work: str, threads: int, log: IO[str]) -> Outcome:
    folder = Path(work) / task.name
    commands = [[word.replace(WORK, str(work)) for word in command] for command in task.commands]
    facts: dict[str, Any] = {"identity": task.identity(), "commands": commands, "needs": task.needs}
    write_text(folder / "task.json", json.dumps(facts, indent=2) + "\n")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else dict(os.environ)
    began = time.monotonic()
    for words in commands:
        print("python -m", *words, file=log, flush=True)
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)  # noqa: S603 - our own
        if done.returncode:
            return Outcome(task.name, f"exit code {done.returncode}, see {folder / 'log.txt'}")
    seconds = time.monotonic() - began
    facts |= {"seconds": round(seconds, 1), "threads": threads, **_machine()}
    write_text(folder / "done.json", json.dumps(facts, indent=2) + "\n")
    return Outcome(task.name, seconds=seconds)


def is_done(task: Task, work: str) -> bool:
    """Whether a job was finished, with the very settings that it has now.

    Args:
        task: the job.
        work: the study's folder.

    Returns:
        Whether it is.

    Raises:
        ConfigurationError: if its folder holds the work of other settings, which nobody has asked to overwrite.
    """
    folder = Path(work) / task.name
    for name in ("done.json", "task.json"):
        file = folder / name
        if file.is_file():
            if json.loads(file.read_text(encoding="utf-8"))["identity"] != task.identity():
                raise ConfigurationError(
                    "this folder holds a job of other settings, films or weights",
                    file=file,
                    action="choose another folder for the study, or remove this one",
                )
            return name == "done.json"
    return False


def _films(study: Study, cell: Cell) -> StudyDataset:
    """The films of a cell: its dataset's, or a fold of them."""
    dataset = study.datasets[cell.dataset]
    if not dataset.folds:
        return dataset
    return dataclasses.replace(dataset, datalist=f"{WORK}/folds/{cell.dataset}/{cell.seed}.json", section="test")


def _preparations(study: Study, cell: Cell) -> list[Task]:
    """What must be done before a cell: once for all budgets and seeds."""
    row, dataset = study.initializations[cell.initialization], study.datasets[cell.dataset]
    found = []
    if dataset.folds:
        name = f"folds/{cell.dataset}"
        keys = {"datalist": dataset.datalist, "folds": dataset.folds, "output_dir": f"{WORK}/{name}"}
        command = ("monai_landmark.study.folds", *_options(keys))
        found.append(Task(name, (command,), (), _inputs([command], dataset.datalist)))
    if row.pretrain is not None:
        found.append(_pretraining(study, cell, row.pretrain))
    elif row.source is not None:
        found.append(_source_training(study, cell, row.source))
    return found


def _pretraining(study: Study, cell: Cell, own: Mapping[str, Any]) -> Task:
    """On the films of a cell's dataset, unless a pool says otherwise."""
    row, datalist = study.initializations[cell.initialization], study.datasets[cell.dataset].datalist
    name = f"pretrained/{cell.dataset}/{cell.initialization}"
    keys = {"datalist": datalist, "output_dir": f"{WORK}/{name}", "architecture": row.architecture}
    keys |= {} if row.start == "random" else {"initialization": row.start}
    grid = {key: value for key, value in _train_keys(study, cell).items() if key == "spatial_size"}
    command = _bundle(study, "pretrain", {**keys, **grid, **study.pretrain, **own})
    return Task(name, (command,), (), _inputs([command], datalist, row.start))


def _source_training(study: Study, cell: Cell, source: str) -> Task:
    """On all annotated films of another dataset."""
    row, dataset = study.initializations[cell.initialization], study.datasets[source]
    name = f"sources/{source}/{cell.initialization}"
    keys = {**study.train, **dataset.train, **row.train, "label_budget": 0, "seed": 0}
    commands = _trainings(study, row, dataset, row.start, keys, f"{WORK}/{name}")
    return Task(name, tuple(commands), (), _inputs(commands, dataset.datalist, row.start))


def _cell_training(study: Study, cell: Cell, start: str, folder: str) -> list[Command]:
    """The trainings of a cell; a frozen network has one."""
    study = study.for_budget(cell.labels)
    keys: dict[str, Any] = {
        **_train_keys(study, cell),
        "label_budget": cell.labels,
        "validation_films": study.validation_films(cell.labels),
        "seed": cell.seed,
        "frozen": cell.mode == "frozen",
    }
    row, dataset = study.initializations[cell.initialization], _films(study, cell)
    if dataset.label_order:
        keys["label_order"] = dataset.label_order
    if row.teacher:
        keys["pseudo_labels"] = f"{folder}/teacher"
    stages = study.stages if cell.mode == "full" else ()
    return _trainings(study, row, dataset, start, keys, f"{folder}/model", stages)


def _teaching(study: Study, teacher: Cell, output: str) -> Command:
    """The command by which a teacher predicts the films that may be trained on."""
    row, dataset = study.initializations[teacher.initialization], _films(study, teacher)
    if row.baseline:
        return _baseline(study, teacher, row.start, "training", output)
    return _evaluation(study, dataset, f"{WORK}/{teacher.name}/model", "training", output)


def _evaluation(study: Study, dataset: StudyDataset, model: str, section: str, output: str) -> Command:
    """The command that measures a trained network."""
    keys = {"datalist": dataset.datalist, "section": section, "model_dir": model, "output_dir": output}
    return _bundle(study, "evaluate", {**keys, **study.evaluate})


def _baseline(study: Study, cell: Cell, start: str, section: str, output: str) -> Command:
    """The command that measures a detector without training."""
    row, dataset = study.initializations[cell.initialization], _films(study, cell)
    keys = {"datalist": dataset.datalist, "section": section, "labels": cell.labels, "seed": cell.seed}
    keys |= {"architecture": row.architecture, "initialization": start, "output_dir": output}
    keys |= {"label_order": dataset.label_order} if dataset.label_order else {}
    if grid := row.train.get("spatial_size"):
        keys["spatial_size"] = grid
    return ("monai_landmark.study.measure", row.baseline or "", *_options(keys))


def _train_keys(study: Study, cell: Cell) -> dict[str, Any]:
    """Keys of ``train.yaml``, from the general to the particular."""
    row = study.initializations[cell.initialization]
    return {**study.train, **study.datasets[cell.dataset].train, **row.train}


def _trainings(
    study: Study,
    row: Initialization,
    dataset: StudyDataset,
    start: str,
    keys: Mapping[str, Any],
    model: str,
    stages: Sequence[Mapping[str, Any]] = (),
) -> list[Command]:
    """A training and its further stages, each from the one before; the last one leaves the model."""
    commands, before = [], ""
    for number, stage in enumerate([{}, *stages], start=1):
        own = dict(stage)
        if own.pop(SELF_TAUGHT, False) and keys["label_budget"]:  # with all labels no film is left
            own["pseudo_labels"] = f"{before}_teaches"
            commands.append(_evaluation(study, dataset, before, "training", own["pseudo_labels"]))
        output = model if number > len(stages) else f"{model}_stage{number}"
        words = {"datalist": dataset.datalist, "output_dir": output, "architecture": row.architecture}
        commands.append(_bundle(study, "train", {**words, "initialization": start, **keys, **own}))
        start, before = f"{output}/model.safetensors", output
    return commands


def _bundle(study: Study, name: str, keys: Mapping[str, Any]) -> Command:
    """``monai.bundle run`` of one of the bundle's configs."""
    config = f"{study.bundle}/configs/{name}.yaml"
    return ("monai.bundle", "run", name, "--config_file", config, *_options(keys))


def _options(keys: Mapping[str, Any]) -> list[str]:
    """``--key value``, as Python writes values that are not text."""
    return [word for key, value in keys.items() for word in (f"--{key}", str(value))]


def _inputs(commands: Sequence[Command], *files: str) -> tuple[str, ...]:
    """The configs, and those files that are the user's, not names or what another task will write."""
    configs = [words[words.index("--config_file") + 1] for words in commands if "--config_file" in words]
    own = [file for file in files if file not in ("random", "imagenet") and not file.startswith(WORK)]
    return tuple(dict.fromkeys([*configs, *own]))


def _content(file: str) -> Any:
    """What a file means: a config without its comments, the hash of any other."""
    return yaml.safe_load(Path(file).read_text(encoding="utf-8")) if file.endswith(".yaml") else file_sha256(file)


def _machine() -> dict[str, Any]:
    """Where and with which versions a job was run."""
    import torch  # takes seconds, which what only plans and starts jobs need not wait for

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    return {
        "machine": f"{platform.machine()}, {device}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "version": monai_landmark.__version__,
        "commit": short_commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
