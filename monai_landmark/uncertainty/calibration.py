"""What was learned from films with known errors: scales, regions and referrals, kept beside the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark import __version__
from monai_landmark.data.datalist import Datalist
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.files import write_text
from monai_landmark.networks import model_card
from monai_landmark.uncertainty.conformal import check_share, conformal_quantile, fewest_films, referral_threshold
from monai_landmark.uncertainty.film_rules import FilmRules

__all__ = ["CALIBRATION_FILE", "Calibration"]

FloatArray = NDArray[np.float64]

CALIBRATION_FILE = "uncertainty.json"
_FORMAT = "monai-landmark/uncertainty"
_FORMAT_VERSION = 2
_STEADY_MM = 0.1  # added to the expected error, so that a map of a single pixel does not make its score explode


@dataclass(frozen=True, eq=False)
class Calibration:
    """Regions and referrals of one trained network, fitted on films that are neither test nor training films.

    Made by :meth:`fit`; the ``uncertainty.json`` that :meth:`save` writes holds exactly these fields.

    Attributes:
        names: the K landmarks.
        model_sha256: of the weights it belongs to, None where ``model.json`` states none.
        datalist: name of the data set.
        sections: of the datalist that the films are from; never ``test``.
        films: ids of the films that regions and referrals were fitted on.
        scale_films: ids of the films that the scales were fitted on; none of them is in ``films``, for the guarantee
            needs scores that were not fitted to the same films.
        scales: ``(K,)`` a landmark's expected error is its scale times its map's expected radial error, see
            :func:`monai_landmark.uncertainty.fit_error_scales`; 1 where nothing was fitted.
        inference: how the maps were made, see :func:`monai_landmark.engines.inference_facts`.
        level: share of regions that hold their landmark.
        factors: ``(K,)`` a region's radius is ``factor * (expected error + 0.1 mm)``; inf: too few films for a region.
        fixed_radii_mm: ``(K,)`` radii that do not look at the film, at the same level; inf likewise.
        tolerance_mm: errors above it are gross.
        risk: at most this share of a film's landmarks are gross errors that pass.
        refer_from_mm: expected error from which on a landmark is referred; inf: none is, 0: all are.
        version: of this package.
    """

    names: tuple[str, ...]
    model_sha256: str | None
    datalist: str
    sections: tuple[str, ...]
    films: tuple[str, ...]
    scale_films: tuple[str, ...]
    scales: FloatArray
    inference: Mapping[str, Any]
    level: float
    factors: FloatArray
    fixed_radii_mm: FloatArray
    tolerance_mm: float
    risk: float
    refer_from_mm: float
    version: str = __version__

    @classmethod
    def fit(
        cls,
        errors_mm: ArrayLike,
        expected_mm: ArrayLike,
        films: Sequence[str],
        names: Sequence[str],
        datalist: Datalist,
        card: Mapping[str, Any],
        *,
        level: float = 0.9,
        tolerance_mm: float = 4.0,
        risk: float = 0.05,
        scales: ArrayLike | None = None,
        scale_films: Sequence[str] = (),
        inference: Mapping[str, Any] | None = None,
    ) -> Calibration:
        """Fit on named films.

        Args:
            errors_mm: ``(N, K)`` radial errors; NaN = not annotated, inf = not found.
            expected_mm: ``(N, K)`` expected errors, scaled.
            films: the N films' ids.
            names: the K landmarks.
            datalist: it says of which section each film is.
            card: ``model.json``, which says what the network was trained on.
            level: of the regions.
            tolerance_mm: errors above it are gross.
            risk: share of a film's landmarks that may be gross errors and pass.
            scales: ``(K,)``; None: 1.
            scale_films: what they were fitted on.
            inference: how the maps were made; None: nobody says.

        Returns:
            The calibration.

        Raises:
            ConfigurationError: a film is a test film, was trained on, shows (almost) the same picture as one of these
                or a patient that was trained on, is in no section, or serves twice; or they are too few for the level.
            ValueError: shapes that do not fit.
        """
        rules = FilmRules.of(datalist, card)
        sections = rules.check([*films, *scale_films])
        told = [str(rules.items[film].get("sha256") or film) for film in films]  # for the file goes with the weights
        told_of_scales = [str(rules.items[film].get("sha256") or film) for film in scale_films]
        errors, expected = (np.asarray(values, dtype=np.float64) for values in (errors_mm, expected_mm))
        if errors.shape != (len(films), len(names)) or expected.shape != errors.shape:
            raise ValueError(f"not (films, landmarks): {errors.shape}, {expected.shape}, {(len(films), len(names))}")
        unsure = np.where(np.isnan(expected), 0.0, expected) + _STEADY_MM
        scores = np.where(np.isnan(errors) | ~np.isnan(expected), errors / unsure, np.inf)
        factors = conformal_quantile(scores, level)
        if not len(films) or not np.isfinite(factors).any():
            raise ConfigurationError(
                "too few calibration films for regions",
                field="films, level",
                value=(len(films), level),
                expected=f"at least {fewest_films(level)} annotated films, with every landmark found in most",
                action="annotate more films that are neither test nor training films, or ask for a lower level",
            )
        return cls(
            names=tuple(names),
            model_sha256=card.get("sha256"),
            datalist=datalist.name,
            sections=sections,
            films=tuple(told),
            scale_films=tuple(film for film in told_of_scales if film not in told),
            scales=np.ones(len(names)) if scales is None else np.asarray(scales, dtype=np.float64),
            inference=dict(inference or {}),
            level=level,
            factors=factors,
            fixed_radii_mm=conformal_quantile(errors, level),
            tolerance_mm=tolerance_mm,
            risk=risk,
            refer_from_mm=referral_threshold(errors, expected, tolerance_mm, risk),
        )

    def __post_init__(self) -> None:
        count = len(self.names)
        check_share("level", self.level)
        check_share("risk", self.risk)
        if self.scales.shape != (count,) or not (np.isfinite(self.scales) & (self.scales > 0)).all():
            self._refuse("scales", self.scales.tolist(), f"{count} numbers above 0")
        for field in ("factors", "fixed_radii_mm"):
            values = getattr(self, field)
            if values.shape != (count,) or not (values >= 0).all():
                self._refuse(field, values.tolist(), f"{count} numbers >= 0, or infinity")
        if not (0 < self.tolerance_mm < math.inf and self.refer_from_mm >= 0):
            self._refuse("tolerance_mm, refer_from_mm", (self.tolerance_mm, self.refer_from_mm), "above 0, and >= 0")
        if "test" in self.sections:
            self._refuse("sections", self.sections, "any section but test")
        if set(self.films) & set(self.scale_films):
            self._refuse("films, scale_films", len(self.films), "no film that serves twice")

    def _refuse(self, field: str, value: Any, expected: str) -> None:
        raise ConfigurationError(
            "not a calibration", field=field, value=value, expected=expected, action="run `calibrate` again"
        )

    def region_radius_mm(self, expected_mm: ArrayLike) -> FloatArray:
        """Radius of the region about each landmark.

        Args:
            expected_mm: ``(..., K)`` expected errors, scaled.

        Returns:
            Same shape; NaN where no region can be given: not found, or too few films for this landmark.
        """
        radius = self.factors * (np.asarray(expected_mm, dtype=np.float64) + _STEADY_MM)
        return np.where(np.isfinite(radius), radius, np.nan)

    def refer(self, expected_mm: ArrayLike) -> NDArray[np.bool_]:
        """Which landmarks a person should look at.

        Args:
            expected_mm: ``(..., K)`` expected errors, scaled.

        Returns:
            Same shape; True where the expected error is unknown.
        """
        return ~(np.asarray(expected_mm, dtype=np.float64) < self.refer_from_mm)

    def save(self, model_dir: str | PathLike[str]) -> Path:
        """Write ``uncertainty.json``.

        Args:
            model_dir: folder of the weights.

        Returns:
            The file.
        """
        content = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        document = {"format": _FORMAT, "format_version": _FORMAT_VERSION, **content}
        return write_text(Path(model_dir) / CALIBRATION_FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """Read what :meth:`save` wrote.

        Args:
            path: ``uncertainty.json``.

        Returns:
            The calibration.

        Raises:
            ConfigurationError: not such a file, of another version, or not what a calibration can be.
        """
        document = _read(Path(path))
        wanted = {field.name for field in fields(cls)} | {"format", "format_version"}
        if document.get("format") != _FORMAT or document.get("format_version") != _FORMAT_VERSION:
            found = (document.get("format"), document.get("format_version"))
            raise _unreadable(path, "another kind or version of file", found, f"{_FORMAT} {_FORMAT_VERSION}")
        if set(document) != wanted:
            raise _unreadable(path, "wrong keys", sorted(set(document) ^ wanted), ", ".join(sorted(wanted)))
        values = {field.name: document[field.name] for field in fields(cls)}
        try:
            values["inference"] = dict(values["inference"])
            for key in ("scales", "factors", "fixed_radii_mm"):
                values[key] = np.array([_number(value) for value in values[key]], dtype=np.float64)
            for key in ("names", "sections", "films", "scale_films"):
                values[key] = tuple(map(_text, values[key]))
            for key in ("level", "tolerance_mm", "risk", "refer_from_mm"):
                values[key] = _number(values[key])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise _unreadable(path, "not a calibration", str(error), "what `calibrate` wrote") from error

    @classmethod
    def of_model(cls, model_dir: str | PathLike[str], inference: Mapping[str, Any] | None = None) -> Calibration | None:
        """The calibration of a trained network.

        Args:
            model_dir: folder of the weights.
            inference: how the maps will be made; None: not known.

        Returns:
            The calibration; None where there is none.

        Raises:
            ConfigurationError: the file cannot be read, or was made with maps of another kind.
            WeightsError: it belongs to other weights.
        """
        file = Path(model_dir) / CALIBRATION_FILE
        if not file.is_file():
            return None
        calibration, weights = cls.load(file), model_card(model_dir).get("sha256")
        if calibration.model_sha256 != weights:
            raise WeightsError(
                "the calibration of other weights",
                file=file,
                field="model_sha256",
                value=calibration.model_sha256,
                expected=str(weights),
                action="run `python -m monai_landmark calibrate` for these weights, or delete the file",
            )
        if inference is not None and calibration.inference != inference:
            raise ConfigurationError(
                "the calibration of maps that were made in another way",
                file=file,
                field="inference",
                value=dict(calibration.inference),
                expected=str(dict(inference)),
                action="run `python -m monai_landmark calibrate` in this way, or delete the file",
            )
        return calibration


def _plain(value: Any) -> Any:
    """For strict JSON: infinity is null."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _number(value: Any) -> float:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{value!r} is not a number")
    return math.inf if value is None else float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _read(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        """Raise where the parser would make a number of what JSON does not have."""
        raise ValueError(constant)

    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError) as error:
        raise _unreadable(path, "cannot be read", str(error), "JSON that `calibrate` wrote") from error
    if not isinstance(document, dict):
        raise _unreadable(path, "not a calibration", type(document).__name__, "a JSON object")
    return document


def _unreadable(path: str | PathLike[str], problem: str, value: Any, expected: str) -> ConfigurationError:
    action = "run `python -m monai_landmark calibrate` again, or delete the file"
    return ConfigurationError(problem, file=path, value=value, expected=expected, action=action)
