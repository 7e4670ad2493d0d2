"""A trained network's expected errors held against films with known landmarks, once, before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.data.datalist import Datalist, LeftOut, landmarks_array, load_datalist
from monai_landmark.data.geometry import mm_to_grid
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError, FilmError
from monai_landmark.results.evaluation import EvaluatedFilm
from monai_landmark.uncertainty import (
    PEAK_BINS,
    Calibration,
    FilmRules,
    expected_calibration_error,
    expected_radial_error,
    fit_error_scales,
    peak_probability,
)

__all__ = ["CALIBRATION_SECTIONS", "CalibrationRun", "calibrate", "calibration_films"]

FloatArray = NDArray[np.float64]
Item = dict[str, Any]

CALIBRATION_SECTIONS = ("training", "validation")
"""Sections whose films may be calibrated on, where the network was not trained on them."""
_PEAK_RADIUS_PX = 1.0 / np.sqrt(np.pi)  # of a disc with the area of one pixel


@dataclass(frozen=True, eq=False)
class CalibrationRun:
    """A calibration and what was seen while it was made.

    Attributes:
        calibration: to be saved beside the weights.
        errors_mm: ``(N, K)`` of the films that the regions were fitted on.
        expected_mm: ``(N, K)``, scaled.
        calibration_error: expected calibration error of the maps' peaks on all films; bins :data:`PEAK_BINS`, correct =
            in a disc of one pixel's area.
        left_out: annotated films that were not used, with the reason.
    """

    calibration: Calibration
    errors_mm: FloatArray
    expected_mm: FloatArray
    calibration_error: float
    left_out: list[LeftOut]


def calibration_films(
    datalist: str | PathLike[str], card: dict[str, Any], sections: Sequence[str] = CALIBRATION_SECTIONS
) -> tuple[list[Item], list[LeftOut]]:
    """Annotated films with a spacing that are neither test nor training films, nor copies of such.

    Args:
        datalist: the datalist JSON.
        card: ``model.json``.
        sections: where to look.

    Returns:
        The items, and the annotated films that are left out.

    Raises:
        ConfigurationError: a section that must not be calibrated on, or a card that does not name the training films.
        AnnotationError: the datalist is broken or lacks a section that was named.
    """
    for section in sections:
        if section not in CALIBRATION_SECTIONS:
            expected = " or ".join(CALIBRATION_SECTIONS)
            raise ConfigurationError("not a section to calibrate on", field="section", value=section, expected=expected)
    present = Datalist.load(datalist)
    rules = FilmRules.of(present, card)
    films, left_out = [], []
    named = sections != CALIBRATION_SECTIONS
    for section in (name for name in sections if named or name in present.sections):
        for item in load_datalist(datalist, section):
            if not item.get("landmarks"):
                continue
            reason = rules.against(item["id"])
            if reason is None and not item.get("spacing"):
                reason = "it has no pixel spacing, so its errors are not in mm"
            if reason is None:
                films.append(item)
            else:
                left_out.append(LeftOut(item["id"], reason, by="rule"))
    return films, left_out


def calibrate(
    predictor: LandmarkPredictor,
    datalist: str | PathLike[str],
    sections: Sequence[str] = CALIBRATION_SECTIONS,
    *,
    scale_share: float = 1 / 3,
    seed: int = 0,
    level: float = 0.9,
    tolerance_mm: float = 4.0,
    risk: float = 0.05,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> CalibrationRun:
    """Predict annotated films and fit scales, regions and referrals.

    The scales are fitted on a part of the films that the seed draws, the rest on the others: a region's guarantee
    needs expected errors that were not fitted to the very films that set its radius.

    Args:
        predictor: made with ``calibration=None``.
        datalist: the datalist JSON.
        sections: where to look for films, see :func:`calibration_films`.
        scale_share: part of the films for the scales, at least 0 and below 1; 0: all scales are 1.
        seed: of the draw.
        level: of the regions.
        tolerance_mm: errors above it are gross.
        risk: share of a film's landmarks that may be gross errors and pass.
        progress: shows how far it is.

    Returns:
        The calibration and its films' errors.

    Raises:
        ConfigurationError: films, level or shares do not fit, see :meth:`Calibration.fit`.
        AnnotationError: the datalist has other landmarks.
    """
    if not 0 <= scale_share < 1:
        expected = "at least 0, below 1"
        raise ConfigurationError("not a share", field="scale_share", value=scale_share, expected=expected)
    present = Datalist.load(datalist)
    if LandmarkSchema.load(str(present.schema)).landmarks != predictor.schema.landmarks:
        names = ", ".join(predictor.schema.landmarks)
        raise AnnotationError("other landmarks than the network's", file=datalist, field="schema", expected=names)
    films, left_out = calibration_films(datalist, predictor.card, sections)
    gathered = _Gathered(predictor, left_out)
    for index in progress(np.random.default_rng(seed).permutation(len(films)).tolist()):
        gathered.add(films[index])
    errors_mm, expected_mm = gathered.table("errors"), gathered.table("expected")
    count = round(scale_share * len(gathered.films))
    scales = fit_error_scales(errors_mm[:count], expected_mm[:count])
    errors_mm, expected_mm = errors_mm[count:], scales * expected_mm[count:]
    calibration = Calibration.fit(
        errors_mm,
        expected_mm,
        gathered.films[count:],
        predictor.schema.landmarks,
        present,
        predictor.card,
        level=level,
        tolerance_mm=tolerance_mm,
        risk=risk,
        scales=scales,
        scale_films=gathered.films[:count],
        inference=predictor.inference,
    )
    return CalibrationRun(calibration, errors_mm, expected_mm, gathered.calibration_error(), left_out)


class _Gathered:
    """What the films say, one after another."""

    def __init__(self, predictor: LandmarkPredictor, left_out: list[LeftOut]) -> None:
        self.predictor, self.left_out = predictor, left_out
        self.films: list[str] = []
        self.rows: dict[str, list[Any]] = {"errors": [], "expected": [], "near": [], "peak": []}

    def add(self, item: Item) -> None:
        """Predict one film; one that cannot be read is left out."""
        try:
            image, logits = self.predictor.maps(item)
        except FilmError as error:
            self.left_out.append(LeftOut(item["id"], str(error)))
            return
        row_mm, col_mm = item["spacing"]
        truth = mm_to_grid(torch.as_tensor(landmarks_array(item) * (col_mm, row_mm)), image.affine.cpu())
        result = self.predictor.result(item["id"], image, logits)
        points_mm = torch.as_tensor(result.points_mm)
        reference = landmarks_array(item)
        self.films.append(item["id"])
        self.rows["errors"].append(EvaluatedFilm(result, reference).errors("mm"))
        self.rows["expected"].append(expected_radial_error(logits, image.affine, points_mm).numpy())
        distance = (mm_to_grid(points_mm, image.affine.cpu()) - truth).norm(dim=-1).numpy()
        self.rows["near"].append(np.where(np.isnan(reference[:, 0]), np.nan, distance < _PEAK_RADIUS_PX))
        self.rows["peak"].append(peak_probability(logits).numpy())

    def table(self, name: str) -> FloatArray:
        """``(N, K)`` of one quantity."""
        return np.array(self.rows[name], dtype=np.float64).reshape(-1, len(self.predictor.schema.landmarks))

    def calibration_error(self) -> float:
        """Of the peaks."""
        near = self.table("near")
        known = ~np.isnan(near)
        return expected_calibration_error(self.table("peak")[known], near[known], PEAK_BINS)
