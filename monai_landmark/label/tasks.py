"""MONAI Label's tasks, each a thin shell around :mod:`monai_landmark.label.service`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from monai_landmark.errors import DataError
from monai_landmark.label.checks import whole_number
from monai_landmark.label.privacy import LOGGER, pseudonym
from monai_landmark.label.scan_service import ScanService
from monai_landmark.label.service import LabelService, film_score
from monai_landmark.label.strategies import STRATEGIES, next_film
from monai_landmark.results.files import write_markups
from monai_landmark.results.result import LandmarkResult

__all__ = ["SCORE", "BatchPrediction", "ExpectedErrors", "NextFilm", "Prediction", "Training"]

#: Key of a film's score among what a datastore knows of it.
SCORE = "landmark_score"


class Prediction(InferTask):  # type: ignore[misc]  # monailabel is untyped
    """Landmarks of one film, as 3D Slicer markups.

    Its type is detection, because 3D Slicer's module offers that; any file ending in ``.json`` is loaded as markups.

    Args:
        service: predicts.
    """

    def __init__(self, service: LabelService) -> None:
        self.service = service
        super().__init__(
            type=InferType.DETECTION,
            labels=list(service.schema.landmarks),
            dimension=2,
            description=f"Landmarks of {service.schema.name}; not for diagnosis",
        )

    def is_valid(self) -> bool:
        """Whether there is a model."""
        return self.service.rounds.current() is not None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Predict.

        Args:
            request: ``image`` is the film's file, ``film`` its id.

        Returns:
            The markups file, which the server removes when it has been sent, and the whole result.

        Raises:
            DataError: if the film or the model cannot be used.
        """
        start, film = time.monotonic(), request["film"]
        result = self.service.predict(film, Path(request["image"]))
        with tempfile.NamedTemporaryFile(suffix=".json", delete=False) as file:
            pass
        write_markups(result, file.name)
        LOGGER.info("film %s predicted in %.2f s", pseudonym(film), time.monotonic() - start)
        names = dict.fromkeys(result.names, 0)
        return file.name, {"label_names": names, "score": film_score(result), "result": result.to_dict()}


class BatchPrediction(BatchInferTask):  # type: ignore[misc]
    """All films, or those without a label; on a machine without a GPU too.

    Args:
        told: what is answered of each prediction.
    """

    def __init__(self, told: str = "score") -> None:
        super().__init__()
        self.told = told

    def __call__(self, request: dict[str, Any], datastore: Any, infer: Callable[..., Any]) -> dict[str, Any]:
        """Predict, one film after the other; a film that cannot be read is named, and the others go on.

        Args:
            request: ``images`` (all, labeled, unlabeled), ``label_tag``, ``max_batch_size``.
            datastore: of the films.
            infer: of the app.

        Returns:
            Film -> what is told of it, or ``error``.
        """
        films = sorted(self.get_images(request, datastore))
        if request.get("max_batch_size"):
            films = films[: whole_number(request, "max_batch_size", 1, len(films) or 1)]
        answers: dict[str, Any] = {}
        for number, film in enumerate(films, start=1):
            wanted = {"model": request.get("model"), "image": film, "save_label": True}
            try:
                found = infer({**wanted, "label_tag": request.get("label_tag", "original")}, datastore)
                Path(found["file"]).unlink(missing_ok=True)
                answers[film] = found["params"][self.told]
            except DataError as error:
                answers[film] = {"error": error.problem}
            LOGGER.info("film %d of %d predicted", number, len(films))
        return answers


class Training(TrainTask):  # type: ignore[misc]
    """A new model from all films, or scans, with a final label.

    Args:
        service: trains.
        labels: what is labeled, for the description.
        **choices: further settings that a client may choose, with their defaults.
    """

    def __init__(self, service: LabelService | ScanService, labels: str, **choices: Any) -> None:
        super().__init__(f"Fine-tune on the labels of {labels}")
        self.service, self.choices = service, choices

    def config(self) -> dict[str, Any]:
        """What a client may choose."""
        numbers = {"max_epochs": 16, "steps_per_epoch": 50, "batch_size": 4, "seed": 1}
        return {**numbers, **self.choices, "start": self.service.settings.starts()}

    def stats(self) -> dict[str, Any]:
        """The model in use."""
        current = self.service.rounds.current()
        return {"round": None if current is None else current.name, "model": self.service.model_sha256()}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Train, and use the new model from then on.

        Args:
            request: see the service's ``train``.
            datastore: of the films or scans, and their labels.

        Returns:
            What the new model is.

        Raises:
            DataError: why there is none.
        """
        answer = self.service.train(datastore.training_items(), request, LOGGER.info)
        LOGGER.info("round %s is in use, trained on the labels of %d images", answer["round"], answer["films"])
        return answer


class ExpectedErrors(ScoringMethod):  # type: ignore[misc]
    """The expected errors of all films without a label, by the model in use.

    Args:
        service: predicts.
    """

    def __init__(self, service: LabelService) -> None:
        super().__init__("Mean and highest expected error of each film")
        self.service = service

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Score what has no score of this model yet.

        Args:
            request: nothing of it is used.
            datastore: of the films; the scores are kept in it.

        Returns:
            How many films were ``scored`` and how many ``failed``.
        """
        scored, failed = 0, 0
        for film in datastore.get_unlabeled_images():
            if _known_score(datastore, film, self.service.model_sha256()) is not None:
                continue
            try:
                keep_score(datastore, film, self.service.predict(film, datastore.film_path(film)))
                scored += 1
            except DataError:
                failed += 1
        LOGGER.info("%d films scored, %d could not be", scored, failed)
        return {"scored": scored, "failed": failed}


class NextFilm(Strategy):  # type: ignore[misc]
    """The film to label next.

    Args:
        service: predicts, and gives features.
        strategy: one of :data:`monai_landmark.label.strategies.STRATEGIES`.
    """

    def __init__(self, service: LabelService, strategy: str) -> None:
        super().__init__(STRATEGIES[strategy])
        self.service, self.strategy = service, strategy

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Choose.

        Args:
            request: ``seed`` repeats a choice.
            datastore: of the films.

        Returns:
            ``id`` of the film; None where every film has a label.

        Raises:
            DataError: if the strategy needs a network and there is none, or a film cannot be read.
        """
        unlabeled, labeled = sorted(datastore.get_unlabeled_images()), sorted(datastore.get_labeled_images())
        model = self.service.model_sha256()
        scores = {film: _known_score(datastore, film, model) for film in unlabeled}

        def score_of(film: str) -> float:
            """Predict a film and keep its score."""
            result = self.service.predict(film, datastore.film_path(film))
            return keep_score(datastore, film, result)

        seed = request.get("seed")
        film = next_film(
            self.strategy,
            unlabeled,
            labeled,
            {film: score for film, score in scores.items() if score is not None},
            score_of,
            lambda film: self.service.vector(film, datastore.film_path(film)),
            np.random.default_rng(seed if isinstance(seed, int) and seed >= 0 else None),
        )
        return None if film is None else {"id": film}


def keep_score(datastore: Any, film: str, result: LandmarkResult) -> float:
    """Keep what a model expects of its own errors.

    Args:
        datastore: where to keep it.
        film: id.
        result: of the film.

    Returns:
        The mean, by which films are ranked.
    """
    score = film_score(result)
    datastore.update_image_info(film, {SCORE: score})
    return float(score["mean"])


def _known_score(datastore: Any, film: str, model: str) -> float | None:
    entry = datastore.json()["objects"].get(film, {})
    score = entry.get("image", {}).get("info", {}).get(SCORE)
    return float(score["mean"]) if isinstance(score, dict) and score.get("model") == model else None
