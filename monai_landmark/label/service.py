"""What the server does with films and labels, in this package's own terms: predict, look, train."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.data.datalist import Datalist, save_datalist
from monai_landmark.data.film import Film
from monai_landmark.data.reader import read_film
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import ConfigurationError
from monai_landmark.label.checks import RequestError, whole_number
from monai_landmark.label.rounds import ModelRounds
from monai_landmark.networks import frozen_features, landmark_network, model_card, trained_schema
from monai_landmark.results.result import LandmarkResult
from monai_landmark.safety import open_config
from monai_landmark.study.frozen_films import FilmVectors

__all__ = ["LabelService", "LabelSettings", "Score", "film_score"]

_GRID = (320, 256)
_PROGRESS = re.compile(r"step \d+ of \d+: loss [\d.einfa+-]+, .*")  # of engines.ProgressHandler; names no film
_REASON = re.compile(r"^monai_landmark\.errors\.\w+: (.+)")  # the first one; what follows is MONAI's wrapping
LIMITS = {"epochs": (16, 1000), "steps_per_epoch": (50, 10_000), "batch_size": (4, 256)}
Score = dict[str, Any]


@dataclass(frozen=True)
class LabelSettings:
    """What a server is started with.

    Attributes:
        model_dir: folder that ``train`` wrote, or an empty one; trainings are kept below it.
        bundle: folder of the bundle.
        pretrained: weights file that a training may start from.
        schema: name or file of the landmark schema; None: that of the model.
        architecture: of a first training; None: what the weights file's ``model.json`` says, else the bundle's.
        spatial_size: (H, W) of a first training's grid; None: as the weights' ``model.json`` says, else the bundle's.
        device: a torch device; None: a GPU if there is one.
        spacing: ``(row_mm, col_mm)`` of every film, when the user knows it.
        trust: SHA-256 of configurations that may run whatever they do, see :func:`monai_landmark.safety.open_config`.
    """

    model_dir: Path
    bundle: Path = Path("bundles/xray_landmarks")
    pretrained: Path | None = None
    schema: str | None = None
    architecture: str | None = None
    spatial_size: tuple[int, int] | None = None
    device: str | None = None
    spacing: tuple[float, float] | None = None
    trust: tuple[str, ...] = ()

    @classmethod
    def of(cls, conf: Mapping[str, str], app_dir: str, bundle: str, **more: Any) -> LabelSettings:
        """From the words of ``--conf``.

        Args:
            conf: ``model_dir``, ``bundle``, ``pretrained``, ``device`` and ``trust``, where they are given.
            app_dir: the app's folder, whose ``model`` is the default ``model_dir``.
            bundle: the default of ``bundle``.
            **more: further attributes.

        Returns:
            The settings.
        """
        pretrained = conf.get("pretrained")
        return cls(
            model_dir=Path(conf.get("model_dir") or Path(app_dir) / "model"),
            bundle=Path(conf.get("bundle") or bundle),
            pretrained=Path(pretrained) if pretrained else None,
            device=conf.get("device") or None,
            trust=tuple(conf.get("trust", "").split()),
            **more,
        )

    def starts(self) -> list[str]:
        """What a training may start from, its default first."""
        return ["pretrained", "current"] if self.pretrained else ["current"]


class LabelService:
    """Predictions by the model in use, features of films, and trainings that replace the model.

    Args:
        settings: what the server is started with.

    Raises:
        ConfigurationError: if neither a model nor the settings say which landmarks there are.
    """

    def __init__(self, settings: LabelSettings) -> None:
        self.settings, self.rounds = settings, ModelRounds(settings.model_dir)
        current = self.rounds.current()
        self.schema_source = settings.schema or ("" if current is None else trained_schema(current, ""))
        if not self.schema_source:
            action = "give a folder that train wrote as --model-dir, or name the landmarks with --schema"
            raise ConfigurationError("nothing says which landmarks to find", field="schema", action=action)
        self.schema = LandmarkSchema.load(self.schema_source)
        self._lock = threading.Lock()
        self._loaded: tuple[Path, LandmarkPredictor] | None = None
        self._vectors: tuple[Path, FilmVectors] | None = None
        self._vector_cache: dict[tuple[Path, str], NDArray[np.float64]] = {}

    def film(self, image: Path) -> Film:
        """Read a film as the server's users see it.

        Raises:
            FilmError: if it cannot be read truthfully.
        """
        return read_film(image, self.settings.spacing)

    def predict(self, film: str, image: Path) -> LandmarkResult:
        """Predict one film with the model in use.

        Args:
            film: its id.
            image: its file.

        Returns:
            The landmarks.

        Raises:
            RequestError: if nothing is trained yet.
            DataError: if the film or the model cannot be used.
        """
        with self._lock:
            return self._predictor()(self._item(film, image))

    def model_sha256(self) -> str:
        """Of the weights of the model in use; empty where nothing is trained yet."""
        current = self.rounds.current()
        return "" if current is None else str(model_card(current).get("sha256", ""))

    def vector(self, film: str, image: Path) -> NDArray[np.float64]:
        """Features of a whole film, by the pre-trained network, or by the model in use.

        Args:
            film: its id.
            image: its file.

        Returns:
            ``(D,)`` of length 1.

        Raises:
            RequestError: if there is no network yet.
            DataError: if the film or the network cannot be used.
        """
        with self._lock:
            weights = self.settings.pretrained or self._current_weights()
            if weights is None:
                raise untrained()
            if self._vectors is None or self._vectors[0] != weights:
                self._vectors = (weights, self._vectors_of(weights))
                self._vector_cache.clear()
            if (weights, film) not in self._vector_cache:
                self._vector_cache[weights, film] = self._vectors[1](self._item(film, image))
            return self._vector_cache[weights, film]

    def train(
        self, items: Sequence[dict[str, Any]], asked: Mapping[str, Any], report: Callable[[str], None]
    ) -> dict[str, Any]:
        """Train on labelled films in a process of its own, and use the model that comes out.

        Args:
            items: see :func:`monai_landmark.label.labels.datalist_item`.
            asked: ``epochs`` (or ``max_epochs``), ``steps_per_epoch``, ``batch_size``, ``seed``, and ``start``:
                ``pretrained`` (default where the server has such a file) or ``current``.
            report: called with each line of progress.

        Returns:
            ``round``, ``films`` and ``sha256`` of the new model.

        Raises:
            RequestError: if there is no label, or a setting is not possible.
            ConfigurationError: if the training failed; the model in use stays.
        """
        if not items:
            action = "save the label of at least one film with the tag final"
            raise RequestError("no film has a label", field="labels", action=action)
        keys = self._train_keys(dict(asked))
        folder = self.rounds.new()
        datalist = folder / "datalist.json"
        root = self.settings.model_dir.absolute()
        save_datalist(Datalist("labels of this server", self._schema_path(), root, {"training": list(items)}), datalist)
        train_round(self.settings, datalist, keys, report)
        self.rounds.accept(folder)
        return {"round": folder.name, "films": len(items), "sha256": self.model_sha256()}

    def check_training(self, asked: Mapping[str, Any]) -> None:
        """Refuse settings of a training before it is begun.

        Args:
            asked: see :meth:`train`.

        Raises:
            RequestError: if a setting is not possible.
        """
        self._train_keys(dict(asked))

    def _item(self, film: str, image: Path) -> dict[str, Any]:
        item: dict[str, Any] = {"image": str(image), "id": film}
        if self.settings.spacing is not None:
            item |= {"spacing": list(self.settings.spacing), "spacing_source": "user"}
        return item

    def _predictor(self) -> LandmarkPredictor:
        """Of the model in use; loaded again when a training has replaced it."""
        current = self.rounds.current()
        if current is None:
            raise untrained()
        if self._loaded is None or self._loaded[0] != current:
            self._loaded = (current, self._predictor_of(current))
        return self._loaded[1]

    def _predictor_of(self, folder: Path) -> LandmarkPredictor:
        return LandmarkPredictor(self.settings.bundle, folder, self.settings.device, self.settings.trust)

    def _current_weights(self) -> Path | None:
        current = self.rounds.current()
        return None if current is None else current / "model.safetensors"

    def _vectors_of(self, weights: Path) -> FilmVectors:
        card = model_card(weights.parent)
        network = landmark_network(1, self.settings.architecture or "auto", weights)
        return FilmVectors(frozen_features(network), card.get("spatial_size", self.settings.spatial_size or _GRID))

    def _schema_path(self) -> str:
        """A shipped name, or an absolute path, as datalists want it."""
        file = Path(self.schema_source)
        return str(file.absolute()) if file.is_file() else self.schema_source

    def _train_keys(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Keys of ``train.yaml``: what the client may choose, and what follows from the weights to start from."""
        keys = chosen_keys(asked, self.settings)
        start = asked.get("start")
        if isinstance(start, list) and start:  # a client sends back the choices it was offered
            start = start[0]
        weights = self._start(start or ("pretrained" if self.settings.pretrained else "current"))
        card = {} if weights is None else model_card(weights.parent)
        own = {"architecture": self.settings.architecture, "spatial_size": self.settings.spatial_size}
        for key, value in own.items():
            if (known := card.get(key, value)) is not None:
                keys[key] = list(known) if isinstance(known, tuple) else known
        if weights is not None:
            keys["initialization"] = str(weights)
        return keys

    def _start(self, name: Any) -> Path | None:
        """The weights file that a training starts from; None: none, at the very first training without one."""
        if name not in ("pretrained", "current"):
            raise RequestError("not a possible start", field="start", expected="pretrained | current")
        if name == "pretrained" and self.settings.pretrained is None:
            action = "start from current, or start the server with --pretrained FILE"
            raise RequestError("the server has no pre-trained file", field="start", action=action)
        return self.settings.pretrained if name == "pretrained" else self._current_weights()


def film_score(result: LandmarkResult) -> Score:
    """How sure a model is of a film as a whole.

    Args:
        result: of the film.

    Returns:
        ``mean`` and ``highest`` of the landmarks' expected errors and their ``unit``, mm; for a film without spacing,
        or a model that states no error, of 1 - confidence, with unit ``1 - confidence``; the ``model`` (SHA-256), and
        how many landmarks are ``referred``, None where not calibrated.
    """
    values, unit = result.expected_error_mm, "mm"
    if values is None or not np.isfinite(values).any():
        values = np.ones(len(result.names)) if result.confidence is None else 1 - result.confidence
        unit = "1 - confidence"
    known = values[np.isfinite(values)]
    return {
        "mean": float(known.mean()) if known.size else 1.0,
        "highest": float(known.max()) if known.size else 1.0,
        "unit": unit,
        "model": result.model_sha256 or "",
        "referred": None if result.refer is None else int(result.refer.sum()),
    }


def untrained() -> RequestError:
    """What is said where a model is needed and there is none.

    Returns:
        The error, to be raised.
    """
    action = "save labels and train, or start the server with the folder of a trained model"
    return RequestError("there is no trained model yet", field="model", action=action)


def chosen_keys(asked: Mapping[str, Any], settings: LabelSettings) -> dict[str, Any]:
    """Keys of ``train.yaml`` that are the same for every kind of model.

    Args:
        asked: ``epochs`` (``max_epochs`` is MONAI Label's own name), ``steps_per_epoch``, ``batch_size``, ``seed``.
        settings: of the server.

    Returns:
        The keys.

    Raises:
        RequestError: if a number is not possible.
    """
    asked = {**asked, "epochs": asked["max_epochs"]} if "max_epochs" in asked and "epochs" not in asked else dict(asked)
    keys: dict[str, Any] = {key: whole_number(asked, key, *limits) for key, limits in LIMITS.items()}
    keys["seed"] = whole_number(asked, "seed", 1, 2**31 - 1)
    return {**keys, "device": f"$torch.device('{settings.device}')"} if settings.device else keys


def train_round(
    settings: LabelSettings, datalist: Path, keys: Mapping[str, Any], report: Callable[[str], None]
) -> None:
    """Train a round's model, in a process of its own.

    Args:
        settings: of the server.
        datalist: in the round's folder.
        keys: of ``train.yaml``.
        report: called with each line of progress.

    Raises:
        DataError: if the bundle is not to be trusted, or the training failed.
    """
    open_config(settings.bundle / "configs" / "train.yaml", settings.trust)
    paths = {"datalist": str(datalist), "output_dir": str(datalist.parent), "bundle_root": str(settings.bundle)}
    run_bundle(settings.bundle, {**paths, **keys}, report)


def run_bundle(bundle: Path, keys: Mapping[str, Any], report: Callable[[str], None]) -> None:
    """``monai.bundle run train``; its progress is reported, and its last words where it fails."""
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    config = str(bundle / "configs" / "train.yaml")
    command = [sys.executable, "-m", "monai.bundle", "run", "train", "--config_file", config, *words]
    last, reasons = "", []
    with subprocess.Popen(  # noqa: S603 - our own command; the client chooses numbers only
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            last = line.strip() or last
            reasons += _REASON.findall(line)
            if found := _PROGRESS.search(line):
                report(found.group())
    if process.returncode:
        reason = reasons[0] if reasons else last or f"exit code {process.returncode}"
        raise ConfigurationError(f"the training failed ({reason})", action="mend that and train again; the model stays")
