"""How far a landmark may be off: expected error, temperature, conformal regions, referral, and their calibration."""

from monai_landmark.uncertainty.binning import QuantileBins
from monai_landmark.uncertainty.calibration import CALIBRATION_FILE, Calibration
from monai_landmark.uncertainty.conformal import conformal_quantile, fewest_films, referral_threshold
from monai_landmark.uncertainty.expected_error import expected_radial_error, fit_error_scales, peak_probability
from monai_landmark.uncertainty.film_rules import FilmRules
from monai_landmark.uncertainty.ranking import Referral, auroc, referral, risk_coverage, spearman
from monai_landmark.uncertainty.temperature import (
    PEAK_BINS,
    PROBABILITY_BINS,
    expected_calibration_error,
    fit_temperatures,
)

__all__ = [
    "CALIBRATION_FILE",
    "PEAK_BINS",
    "PROBABILITY_BINS",
    "Calibration",
    "FilmRules",
    "QuantileBins",
    "Referral",
    "auroc",
    "conformal_quantile",
    "expected_calibration_error",
    "expected_radial_error",
    "fewest_films",
    "fit_error_scales",
    "fit_temperatures",
    "peak_probability",
    "referral",
    "referral_threshold",
    "risk_coverage",
    "spearman",
]
