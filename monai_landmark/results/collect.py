"""From what an engine puts out to one :class:`LandmarkResult` per film."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_landmark.data.geometry import film_affine, mm_to_grid
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.networks import model_card
from monai_landmark.results.result import Guarantee, LandmarkResult
from monai_landmark.uncertainty import Calibration

__all__ = ["ResultCollector", "landmark_result"]


def landmark_result(
    film: str,
    points_mm: Any,
    confidence: Any,
    meta: Mapping[str, Any],
    schema: LandmarkSchema,
    card: Mapping[str, Any],
    expected_error: Any = None,
    calibration: Calibration | None = None,
) -> LandmarkResult:
    """Predicted points of one film as a result.

    Args:
        film: id of the film.
        points_mm: ``(K, 2)`` (x, y) in mm of the film plane (pixels when the film has no spacing).
        confidence: ``(K,)`` in [0, 1], or None.
        meta: the image's meta as :class:`monai_landmark.data.reader.RadiographReader` left it.
        schema: the landmarks' names.
        card: see :func:`monai_landmark.networks.model_card`.
        expected_error: ``(K,)`` radial errors that the model expects, in the unit of the points, or None.
        calibration: it turns expected errors in mm into regions and referrals; a film without spacing has neither.

    Returns:
        The result, its points in pixels of the original film.
    """
    spacing = [float(step) for step in meta["spacing_mm"]]
    known = all(np.isfinite(spacing))
    pair = (spacing[0], spacing[1]) if known else None
    points = mm_to_grid(torch.as_tensor(points_mm), film_affine(pair))
    expected = None if expected_error is None or not known else np.asarray(expected_error, dtype=np.float64)
    calibrated: dict[str, Any] = {}
    if calibration is not None and expected is not None:
        calibrated = {
            "region_radius_mm": calibration.region_radius_mm(expected),
            "refer": calibration.refer(expected),
            "guarantee": Guarantee(calibration.level, calibration.tolerance_mm, calibration.risk),
        }
    return LandmarkResult(
        film=film,
        original_size=(int(meta["original_size"][0]), int(meta["original_size"][1])),
        names=tuple(schema.landmarks),
        points_px=points.numpy(),
        spacing_mm=pair,
        spacing_source=str(meta["spacing_source"]),
        confidence=None if confidence is None else np.asarray(confidence, dtype=np.float64).clip(0, 1),
        expected_error_mm=expected,
        **calibrated,
        schema=schema.name,
        model_name=str(card.get("architecture", "")),
        model_sha256=card.get("sha256"),
    )


class ResultCollector:
    """Handler that gathers the results of an evaluator.

    Args:
        schema: the landmarks' names.
        model_dir: folder of the weights.
        points_key: key of the points in mm.
        confidence_key: key of their confidence.
        expected_key: key of their expected error.
        calibration: of these weights, see :meth:`monai_landmark.uncertainty.Calibration.of_model`; None: no regions.
    """

    def __init__(
        self,
        schema: LandmarkSchema,
        model_dir: str | PathLike[str],
        points_key: str = "pred",
        confidence_key: str = "confidence",
        expected_key: str = "expected_error",
        calibration: Calibration | None = None,
    ) -> None:
        self.schema, self.card, self.calibration = schema, model_card(model_dir), calibration
        self.points_key, self.confidence_key, self.expected_key = points_key, confidence_key, expected_key
        self.results: list[LandmarkResult] = []
        self.images: dict[str, str] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose postprocessing decodes the maps.

        Args:
            engine: a :class:`monai.engines.SupervisedEvaluator`.
        """
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _started(self, _: Engine) -> None:
        self.results.clear()

    def __call__(self, engine: Engine) -> None:
        """Take the results of one step.

        Args:
            engine: the evaluator.
        """
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            points, confidence = output[self.points_key], output.get(self.confidence_key)
            meta, expected = output["image"].meta, output.get(self.expected_key)
            known = (points, confidence, meta, self.schema, self.card, expected, self.calibration)
            self.results.append(landmark_result(item["id"], *known))
            self.images[item["id"]] = str(meta["filename_or_obj"])
