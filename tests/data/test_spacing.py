"""Spacing policy against a table written from DICOM PS3.3 10.7.1, and everything that must be refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import write_film

from monai_landmark.data.dicom import read_dicom
from monai_landmark.data.spacing import FilmSpacing, check_spacing, spacing_from_header, spacing_from_tags
from monai_landmark.errors import FilmError

# What the film says -> (plain, with magnification factor, with calibration type, with both).
# P, I, N: the values of PixelSpacing, ImagerPixelSpacing, NominalScannedPixelSpacing; I/f: divided by the factor.
TABLE = {
    # PixelSpacing    detector tags
    ("absent", "none"): ("none", "none", "none", "none"),
    ("absent", "I"): ("detector I", "magnification-corrected I/f", "detector I", "magnification-corrected I/f"),
    ("absent", "N"): ("detector N", "detector N", "detector N", "detector N"),
    ("absent", "IN"): ("detector I", "magnification-corrected I/f", "detector I", "magnification-corrected I/f"),
    ("alone", "none"): ("uncalibrated P", "uncalibrated P", "calibrated P", "calibrated P"),
    ("equals I", "I"): ("detector I", "magnification-corrected I/f", "calibrated P", "calibrated P"),
    ("equals I", "IN"): ("detector I", "magnification-corrected I/f", "calibrated P", "calibrated P"),
    ("equals N", "N"): ("detector N", "detector N", "calibrated P", "calibrated P"),
    ("differs", "I"): ("calibrated P", "calibrated P", "calibrated P", "calibrated P"),
    ("differs", "N"): ("calibrated P", "calibrated P", "calibrated P", "calibrated P"),
    ("differs", "IN"): ("calibrated P", "calibrated P", "calibrated P", "calibrated P"),
    # rows equal those of the detector, columns do not: that is a calibration too
    ("differs in columns", "I"): ("calibrated P", "calibrated P", "calibrated P", "calibrated P"),
}
# (I, N, a third spacing): square pixels, and oblong ones
NUMBERS = [
    ((0.143, 0.143), (0.175, 0.175), (0.1, 0.1)),
    ((0.2, 0.1), (0.3, 0.25), (0.125, 0.0625)),
]
FACTORS = [1.0, 1.25]
TYPES = ["FIDUCIAL", "GEOMETRY"]


def _cases():
    """Every line of the table with every number, factor and type; file kind and encoding take turns."""
    turns = itertools.cycle(itertools.product(["CR", "DX", "SC", "MG", "IO"], ["explicit", "implicit", "big"]))
    for (pixel, detector), outcomes in TABLE.items():
        for numbers, factor, kind in itertools.product(NUMBERS, [None, *FACTORS], [None, *TYPES]):
            imager, scanned, other = numbers
            spacings = {
                "absent": None,
                "alone": other,
                "equals I": imager,
                "equals N": scanned,
                "differs": other,
                "differs in columns": (imager[0], other[1]),
            }
            expected = outcomes[(factor is not None) + 2 * (kind is not None)]
            tags = {
                "PixelSpacing": spacings[pixel],
                "ImagerPixelSpacing": imager if "I" in detector else None,
                "NominalScannedPixelSpacing": scanned if "N" in detector else None,
                "EstimatedRadiographicMagnificationFactor": factor,
                "PixelSpacingCalibrationType": kind,
            }
            source, _, letter = expected.partition(" ")
            corrected = (imager[0] / (factor or 1), imager[1] / (factor or 1))
            values = {"": None, "P": spacings[pixel], "I": imager, "N": scanned, "I/f": corrected}
            given = {keyword: value for keyword, value in tags.items() if value is not None}
            yield given, source, values[letter], next(turns)


CASES = list(_cases())


def test_grid_of_tag_combinations(tmp_path: Path):
    assert len(CASES) >= 200
    wrong = []
    for tags, source, expected_mm, (kind, syntax) in CASES:
        written = {key: list(value) if isinstance(value, tuple) else value for key, value in tags.items()}
        if kind != "SC" and "PixelSpacingCalibrationType" in tags:
            written["PixelSpacingCalibrationDescription"] = "a ball of 25 mm"
        path = write_film(tmp_path / "film.dcm", np.zeros((4, 6), "u2"), kind=kind, syntax=syntax, **written)
        spacing = read_dicom(path).spacing
        if spacing.source != source or (spacing.mm is None) != (expected_mm is None):
            wrong.append((tags, kind, spacing, source, expected_mm))
        elif expected_mm is not None and not np.allclose(spacing.mm, expected_mm, rtol=1e-9):
            wrong.append((tags, kind, spacing, source, expected_mm))
    assert not wrong, f"{len(wrong)} of {len(CASES)} wrong, first: {wrong[0]}"


def test_both_detector_tags_differ_and_pixel_spacing_equals_the_scanner():
    tags = {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.3, 0.3], "NominalScannedPixelSpacing": [0.2, 0.2]}
    # equal to one of the two: nothing says that the film was calibrated
    assert spacing_from_tags(tags).source == "detector"


def test_decimal_rounding_is_no_calibration():
    tags = {"PixelSpacing": ["0.1430000"], "ImagerPixelSpacing": ["0.143"]}
    pairs = {key: value * 2 for key, value in tags.items()}
    assert spacing_from_tags(pairs | {"PixelSpacing": ["0.14300001"] * 2}).source == "detector"
    assert spacing_from_tags(pairs | {"PixelSpacing": ["0.1432"] * 2}).source == "calibrated"


def test_unknown_calibration_type_says_nothing():
    assert spacing_from_tags({"PixelSpacing": [0.1, 0.1], "PixelSpacingCalibrationType": "OTHER"}) == FilmSpacing(
        0.1, 0.1, "uncalibrated"
    )


POISON = ["NaN\\NaN", "0.1\\nan", "inf\\inf", "-inf\\0.1", "0\\0", "0.1\\0", "-0.143\\-0.143", "1e400\\1e400"]
POISON += ["0.143", "0.143\\0.143\\0.143", "2.5\\2.5", "0.001\\0.001", "abc\\def", "0,143\\0,143", "0.1\\"]
PAIRS = {
    "PixelSpacing": "(0028,0030)",
    "ImagerPixelSpacing": "(0018,1164)",
    "NominalScannedPixelSpacing": "(0018,2010)",
}


@pytest.mark.parametrize("keyword", PAIRS)
@pytest.mark.parametrize("text", POISON)
def test_poisoned_tag_is_refused_by_name(tmp_path: Path, keyword: str, text: str):
    path = write_film(tmp_path / "film.dcm", np.zeros((4, 6), "u2"), kind="DX", raw={keyword: text})
    with pytest.raises(FilmError) as caught:
        read_dicom(path)
    message = str(caught.value)
    assert f"{keyword} {PAIRS[keyword]}" in message
    assert str(path) in message and "what to do" in message
    assert text.split("\\")[0].lower().lstrip("-")[:3] in message.lower()
    # the user's own knowledge is the way out
    assert read_dicom(path, spacing_mm=(0.1, 0.2)).spacing == FilmSpacing(0.1, 0.2, "user")


@pytest.mark.parametrize("keyword", ["ImagerPixelSpacing", "NominalScannedPixelSpacing"])
def test_poison_below_the_rule_that_applies_is_refused_too(tmp_path: Path, keyword: str):
    good = {"PixelSpacing": [0.1, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL"}
    path = write_film(tmp_path / "film.dcm", np.zeros((4, 6), "u2"), raw={keyword: "0\\0"}, **good)
    with pytest.raises(FilmError, match=keyword):
        read_dicom(path)


@pytest.mark.parametrize("text", ["0", "-1.2", "NaN", "inf", "0.5", "11", "abc", "1.1\\1.2"])
def test_poisoned_magnification_is_refused(tmp_path: Path, text: str):
    keyword = "EstimatedRadiographicMagnificationFactor"
    tags = {"ImagerPixelSpacing": [0.1, 0.1]}
    path = write_film(tmp_path / "film.dcm", np.zeros((4, 6), "u2"), raw={keyword: text}, **tags)
    with pytest.raises(FilmError, match=keyword) as caught:
        read_dicom(path)
    assert "(0018,1114)" in str(caught.value)
    assert read_dicom(path, spacing_mm=(0.1, 0.1)).spacing.source == "user"


def test_magnification_out_of_range_together_names_both_tags():
    tags = {"ImagerPixelSpacing": [0.02, 0.02], "EstimatedRadiographicMagnificationFactor": 8.0}
    with pytest.raises(FilmError, match=r"\(0018,1164\).*\(0018,1114\)"):
        spacing_from_tags(tags)


@pytest.mark.parametrize("keyword", [*PAIRS, "EstimatedRadiographicMagnificationFactor"])
def test_empty_tag_counts_as_absent(tmp_path: Path, keyword: str):
    path = write_film(tmp_path / "film.dcm", np.zeros((4, 6), "u2"), raw={keyword: ""})
    assert read_dicom(path).spacing == FilmSpacing(None, None, "none")


def test_aspect_ratio_is_no_spacing(tmp_path: Path):
    path = write_film(tmp_path / "film.dcm", np.zeros((4, 6), "u2"), PixelAspectRatio=[2, 1])
    assert read_dicom(path).spacing == FilmSpacing(None, None, "none")


def test_order_is_row_then_column(tmp_path: Path):
    path = write_film(tmp_path / "film.dcm", np.zeros((4, 6), "u2"), PixelSpacing=[0.3, 0.2])
    spacing = read_dicom(path).spacing
    assert (spacing.row_mm, spacing.col_mm) == (0.3, 0.2) == spacing.mm


@pytest.mark.parametrize(
    "values", [(0.1, 0.2), [0.1, 0.2], ("0.1", "0.2"), np.array([0.1, 0.2]), np.array([0.1, 0.2], np.float32)]
)
def test_check_spacing_takes_pairs(values):
    assert check_spacing(values, field="spacing_mm") == pytest.approx((0.1, 0.2), rel=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        *(0.1, "0.1", "12", None, [], [0.1], [0.1] * 3, [0.1, None], [0.1, math.nan], [True, True], {"a": 1}),
        *([0, 0], [0.1, -0.1], [math.inf, 0.1], [10**400, 1], [2.01, 0.1], [0.0099, 0.1], b"ab", np.float64(0.1)),
        [[0.1, 0.1]],
    ],
)
def test_check_spacing_refuses(values):
    with pytest.raises(FilmError, match="spacing_mm"):
        check_spacing(values, field="spacing_mm")


def test_limits_are_inclusive():
    assert check_spacing((0.01, 2), field="x") == (0.01, 2.0)


def test_header_spacing():
    assert spacing_from_header((0.1, 0.2), file="f", field="spacing") == FilmSpacing(0.1, 0.2, "uncalibrated")
    # 1 x 1 is these formats' default, nobody measured it
    assert spacing_from_header((1.0, 1.0), file="f", field="spacing") == FilmSpacing(None, None, "none")
    assert spacing_from_header((1.0, 1.0), file="f", field="spacing", user_mm=(1, 1)) == FilmSpacing(1.0, 1.0, "user")
    with pytest.raises(FilmError, match="spacing"):
        spacing_from_header((0.0001, 0.0001), file="f", field="spacing")


@pytest.mark.parametrize(
    "arguments", [(0.1, 0.1, "guess"), (0.1, None, "user"), (0.1, 0.1, "none"), (None, None, "user")]
)
def test_film_spacing_contradictions(arguments):
    with pytest.raises(ValueError, match="source"):
        FilmSpacing(*arguments)
