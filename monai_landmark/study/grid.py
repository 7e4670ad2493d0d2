"""A study file: datasets x label budgets x initializations x full or frozen x seeds, as the cells that it asks for."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from monai_landmark.errors import ConfigurationError

__all__ = ["BASELINES", "Cell", "Initialization", "Study", "StudyDataset"]

Mode = Literal["full", "frozen"]
BASELINES = ("mean_shape", "nearest_film")  # see monai_landmark.study.baselines
SELF_TAUGHT = "self_taught"
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class StudyDataset:
    """Films of a study.

    Attributes:
        datalist: the datalist JSON that ``prepare`` wrote.
        section: part of it that is measured.
        split: what that part is called in the records, e.g. ``test1``; the section's name by default.
        label_order: the CSV of ``select``: every seed and budget takes its films first; by default the seed draws.
        folds: 0, or N: cross-validation of few films, each of them measured once by a network of the others (see
            :func:`monai_landmark.study.folds.fold_datalists`). The folds stand in place of the seeds, and each takes
            all films that it does not measure, in place of the budgets. As a source all films serve.
        train: keys of ``train.yaml`` for these films alone, e.g. the network's grid.
    """

    datalist: str
    section: str = "test"
    split: str = ""
    label_order: str = ""
    folds: int = 0
    train: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Initialization:
    """Where a network starts: a row of the table.

    Attributes:
        architecture: see :func:`monai_landmark.networks.landmark_network`.
        start: ``random``, ``imagenet`` or a weights file; of the pre-training where there is one.
        pretrain: keys of ``pretrain.yaml``; the pre-trained network is the start. None: no pre-training.
        source: name of a dataset of the study to train on first, with all its labels; None: none.
        baseline: a detector without training in place of a network, one of :data:`BASELINES`.
        teacher: name of the row whose detector of the same films and seed predicts the dataset's other training films,
            which this row learns from as well (``pseudo_labels`` of ``train.yaml``); None: none.
        train: keys of ``train.yaml`` for this row alone.
    """

    architecture: str = "tf_efficientnet_lite0"
    start: str = "random"
    pretrain: Settings | None = None
    source: str | None = None
    baseline: str | None = None
    teacher: str | None = None
    train: Settings = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Cell:
    """One number of the table before its seeds are gathered.

    Attributes:
        dataset: name of the dataset.
        labels: annotated films used in all, validation included; 0: all there are.
        initialization: name of the row.
        mode: ``full``: the whole network is trained; ``frozen``: a light head on its features.
        seed: draws the films, the augmentation and the initial weights.
    """

    dataset: str
    labels: int
    initialization: str
    mode: Mode
    seed: int

    @property
    def name(self) -> str:
        """Its folder in the study's."""
        return f"cells/{self.dataset}/{self.labels or 'all'}/{self.initialization}/{self.mode}/s{self.seed}"


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Attributes:
        name: of the study.
        datasets: name -> films.
        initializations: name -> start; the first is what the others are compared with.
        budgets: numbers of labels, 0 for all.
        modes: ``full``, ``frozen`` or both; baselines have neither and count as ``full``.
        seeds: at least one.
        target: names of the datasets that are measured; all by default. The others serve as sources.
        train: keys of ``train.yaml`` for every cell: the same head, augmentation and steps for every row.
        stages: further trainings after the first, each from the one before: keys of ``train.yaml``. One with
            ``self_taught`` also learns from what the network before it predicts on the dataset's other training films.
        by_budget: budget -> ``train`` and ``stages`` of its cells: keys of ``train.yaml`` before those of ``train``,
            stages in place of the study's, for more labels are worth longer training.
        pretrain: keys of ``pretrain.yaml`` for every pre-training.
        evaluate: keys of ``evaluate.yaml`` for every cell.
        validation_share: share of each budget that validates instead of training.
        bundle: folder of the bundle.
        threads: processor threads of one job; the numbers' last digits depend on it. 0: as many as there are.
    """

    name: str
    datasets: Mapping[str, StudyDataset]
    initializations: Mapping[str, Initialization]
    budgets: Sequence[int]
    modes: Sequence[Mode] = ("full",)
    seeds: Sequence[int] = (0, 1, 2)
    target: Sequence[str] = ()
    train: Settings = field(default_factory=dict)
    stages: Sequence[Settings] = ()
    by_budget: Mapping[int, Settings] = field(default_factory=dict)
    pretrain: Settings = field(default_factory=dict)
    evaluate: Settings = field(default_factory=dict)
    validation_share: float = 0.0
    bundle: str = "bundles/xray_landmarks"
    threads: int = 1

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Study:
        """Read a study file.

        Args:
            path: YAML with the attributes above as keys; ``all`` stands for the budget 0. ``$NAME`` and ``~`` in paths
                are replaced by the environment's.

        Returns:
            The study.

        Raises:
            ConfigurationError: if the file cannot be read, or a key or value is not known.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigurationError("cannot read the study", file=path, value=str(error)) from error
        try:
            return cls._from_dict(_expanded(content))
        except ConfigurationError as error:
            raise ConfigurationError(
                error.problem, file=path, field=error.field, value=error.value, expected=error.expected
            ) from error

    @classmethod
    def _from_dict(cls, content: Any) -> Study:
        known = _known(cls, content, "study", required=("name", "datasets", "initializations", "budgets"))
        known["datasets"] = _named(StudyDataset, known["datasets"], "datasets", required=("datalist",))
        known["initializations"] = _named(Initialization, known["initializations"], "initializations")
        known["budgets"] = [_budget(labels) for labels in _list(known["budgets"], "budgets")]
        own = known.get("by_budget", {})
        _refuse("by_budget", own, "budget: {train: ..., stages: ...}", [isinstance(own, dict)])
        known["by_budget"] = {_budget(labels): settings for labels, settings in own.items()}
        study = cls(**known)
        study._check()
        return study

    def cells(self) -> list[Cell]:
        """All cells, in the order in which they are run: what can be told early comes early."""
        found = []
        for dataset, labels, seed in self._samples():
            for (name, row), mode in itertools.product(self.initializations.items(), self.modes):
                own_source = row.source == dataset
                none_to_teach = row.teacher is not None and labels == 0
                if not own_source and not none_to_teach and not (row.baseline and mode == "frozen"):
                    found.append(Cell(dataset, labels, name, mode, seed))
        return found

    def _samples(self) -> list[tuple[str, int, int]]:
        """Dataset, labels and seed, or the fold in its place."""
        targets = {name: self.datasets[name] for name in self.target or self.datasets}
        drawn = itertools.product(self.seeds, self.budgets, targets)
        found = [(name, labels, seed) for seed, labels, name in drawn if not targets[name].folds]
        return found + [(name, 0, fold) for name, dataset in targets.items() for fold in range(dataset.folds)]

    def for_budget(self, labels: int) -> Study:
        """The study as the trainings of one budget see it."""
        own = self.by_budget.get(labels, {})
        train, stages = {**self.train, **own.get("train", {})}, own.get("stages", self.stages)
        return dataclasses.replace(self, train=train, stages=stages)

    def validation_films(self, labels: int) -> int:
        """How many films of a budget validate."""
        return int(labels * self.validation_share)

    def _check(self) -> None:
        _refuse("budgets", self.budgets, "whole numbers above 0, or all", [_is_count(n) for n in self.budgets])
        _refuse("seeds", self.seeds, "different whole numbers", [_is_count(n) for n in self.seeds])
        _refuse("modes", self.modes, " | ".join(get_args(Mode)), [mode in get_args(Mode) for mode in self.modes])
        _refuse("validation_share", self.validation_share, "0 to below 1", [0 <= self.validation_share < 1])
        _refuse("target", self.target, " | ".join(self.datasets), [name in self.datasets for name in self.target])
        for labels, own in self.by_budget.items():
            _refuse("by_budget", labels, " | ".join(map(str, self.budgets)), [labels in self.budgets])
            good = isinstance(own, dict) and set(own) <= {"train", "stages"}
            _refuse(f"by_budget, {labels}", own, "{train: ..., stages: ...}", [good])
        for name, dataset in self.datasets.items():
            _refuse(f"datasets, {name}", dataset.folds, "folds: 0, or at least 2", [_is_count(dataset.folds)])
        if any(dataset.folds for dataset in self.datasets.values()):
            wrong = [name for name, row in self.initializations.items() if row.pretrain is not None]
            _refuse("initializations", wrong, "no pretrain beside folds: it would see the films left out", [not wrong])
        for name, row in self.initializations.items():
            field_name = f"initializations, {name}"
            _refuse(field_name, row.baseline, " | ".join(BASELINES), [row.baseline in (None, *BASELINES)])
            _refuse(field_name, row.source, " | ".join(self.datasets), [row.source in (None, *self.datasets)])
            earlier = list(self.initializations)[: list(self.initializations).index(name)]
            _refuse(field_name, row.teacher, "a row above: " + " | ".join(earlier), [row.teacher in (None, *earlier)])
            _refuse(
                field_name, dataclasses.asdict(row), "pretrain or source, not both", [not (row.pretrain and row.source)]
            )


def _expanded(content: Any) -> Any:
    """The same with ``~`` and ``$NAME`` replaced in every text."""
    if isinstance(content, dict):
        return {key: _expanded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_expanded(value) for value in content]
    return os.path.expandvars(os.path.expanduser(content)) if isinstance(content, str) else content


def _budget(labels: Any) -> Any:
    """0 for ``all``."""
    return 0 if labels == "all" else labels


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _refuse(name: str, value: Any, expected: str, good: Sequence[bool]) -> None:
    duplicates = isinstance(value, (list, tuple)) and len(set(value)) < len(value)
    if not all(good) or duplicates:
        raise ConfigurationError("not possible in a study", field=name, value=value, expected=expected)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigurationError("must be a list", field=name, value=value, expected="[...]")
    return value


def _known(kind: type, content: Any, name: str, required: Sequence[str] = ()) -> dict[str, Any]:
    """A mapping whose keys are fields of a dataclass."""
    if not isinstance(content, dict):
        raise ConfigurationError("must be a mapping", field=name, value=content, expected="keys and values")
    fields = [one.name for one in dataclasses.fields(kind)]
    if unknown := [key for key in content if key not in fields]:
        raise ConfigurationError("unknown key", field=name, value=unknown, expected=" | ".join(fields))
    if missing := [key for key in required if key not in content]:
        raise ConfigurationError("a key is missing", field=name, value=list(content), expected=", ".join(missing))
    return dict(content)


def _named(kind: type, content: Any, name: str, required: Sequence[str] = ()) -> dict[str, Any]:
    """Dataclasses by their names."""
    if not isinstance(content, dict) or not content:
        raise ConfigurationError("must be a mapping of names", field=name, value=content, expected="name: {...}")
    return {str(key): kind(**_known(kind, value or {}, f"{name}, {key}", required)) for key, value in content.items()}
