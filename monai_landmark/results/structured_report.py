"""Landmarks and measurements as a DICOM structured report (PS3.16 TID 1500), and that report read again.

One measurement group (TID 1410) with one POINT for each landmark that was found, one (TID 1501) with the measures.
Names are codes of the private scheme 99MLM, ``<schema>.<landmark or measure>``, with the name as their meaning. The
report is preliminary and unverified, and a comment says what it is not for and what was left out.
"""

from __future__ import annotations

import uuid
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import DataError
from monai_landmark.results.canvas import landmark_title, spacing_text
from monai_landmark.results.dicom_film import (
    DicomFilm,
    equipment,
    film_points,
    import_highdicom,
    read_dicom_film,
    save_dicom,
)
from monai_landmark.results.measurements import UNITS, Kind, MeasuredValue, measure_result
from monai_landmark.results.result import LandmarkResult

__all__ = ["SCHEME", "ReportedLandmarks", "read_structured_report", "write_structured_report"]

#: Designator of the private coding scheme.
SCHEME = "99MLM"
_UNIT_NAMES = {"mm": "mm", "deg": "Degree", "1": "no units"}
_EXPECTED_ERROR, _REGION = "expected_radial_error", "region_radius"
_COMMENT = ("121106", "DCM", "Comment")
_UNCERTAINTY = (
    ("371886008", "SCT", "+, range of upper measurement uncertainty"),
    ("371885007", "SCT", "-, range of lower measurement uncertainty"),
)
_ALGORITHM = ("111001", "111003", "111002")  # name, version, parameters (DCM)
_MEASURES = "measures"


@dataclass(frozen=True)
class ReportedLandmarks:
    """What a structured report of this package says.

    Args:
        film_uid: SOP Instance UID of the film that the points lie on.
        points_px: landmark -> (x, y) in pixels of the film, centers at whole numbers.
        expected_error_mm: landmark -> expected radial error, of those that have one.
        measured: the measures.
        algorithm: name, version and parameters, the weights' SHA-256 among them.
        comment: disclaimer, what was left out and what the numbers mean.
    """

    film_uid: str
    points_px: dict[str, tuple[float, float]]
    expected_error_mm: dict[str, float]
    measured: tuple[MeasuredValue, ...]
    algorithm: tuple[str, ...]
    comment: str


def write_structured_report(
    result: LandmarkResult, schema: LandmarkSchema, film: str | PathLike[str], path: str | PathLike[str]
) -> Path:
    """Write a Comprehensive SR about one film.

    Args:
        result: its landmarks.
        schema: of the result; says what is measured.
        film: the DICOM film that was predicted.
        path: the SR file.

    Returns:
        The path.

    Raises:
        DataError: the film is not DICOM, cannot be referred to or is another one, or nothing was found on it.
        ConfigurationError: highdicom is not installed.
    """
    hd = import_highdicom()
    source = read_dicom_film(film)
    points, left_out = film_points(source, result)
    measured = [one for one in measure_result(result, schema, source.pixel_aspect) if one.value is not None]
    groups = [_landmark_group(hd, source, result, name, point) for name, point in points.items()]
    groups += _measure_groups(hd, source, result, measured)
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(_observer(hd, result)),
        procedure_reported=hd.sr.CodedConcept("43468-8", "LN", "XR unspecified body region"),
        imaging_measurements=groups,
    )
    comment = " ".join([*_sentences(result, measured), *left_out, *_emptied(source)])
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    report[0].ContentSequence.append(hd.sr.TextContentItem(hd.sr.CodedConcept(*_COMMENT), comment, contains))
    with warnings.catch_warnings():
        # highdicom's warnings quote the patient's name
        warnings.simplefilter("ignore")
        document = hd.sr.ComprehensiveSR(
            evidence=[source.header],
            content=report[0],
            series_number=1,
            is_complete=True,
            coding_schemes=[hd.coding_schemes.CodingSchemeIdentificationItem(SCHEME, name="monai_landmark names")],
            **equipment(result),
        )
    return save_dicom(document, path)


def _observer(hd: Any, result: LandmarkResult) -> Any:
    """The software as a device, the same for the same weights."""
    digest = result.model_sha256
    identity = uuid.UUID(digest[:32]) if digest else uuid.uuid5(uuid.NAMESPACE_URL, f"monai_landmark {result.version}")
    return hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID.from_uuid(str(identity)),
            name="monai_landmark",
            model_name=result.model_name or "monai_landmark",
        ),
    )


def _algorithm(hd: Any, result: LandmarkResult) -> Any:
    parameters = [f"weights SHA-256 {result.model_sha256}"] if result.model_sha256 else []
    parameters += [f"landmark schema {result.schema}"] if result.schema else []
    name = result.model_name or "monai_landmark"
    return hd.sr.AlgorithmIdentification(name=name, version=result.version, parameters=parameters or None)


def _code(hd: Any, result: LandmarkResult, name: str) -> Any:
    """Private code of a landmark or measure; a meaning may have 64 characters, which some readers count as bytes."""
    meaning = landmark_title(name).encode()[:64].decode(errors="ignore").strip()
    return hd.sr.CodedConcept(f"{result.schema}.{name}" if result.schema else name, SCHEME, meaning)


def _unit(hd: Any, unit: str) -> Any:
    return hd.sr.CodedConcept(unit, "UCUM", _UNIT_NAMES[unit])


def _landmark_group(hd: Any, source: DicomFilm, result: LandmarkResult, name: str, point: tuple[float, float]) -> Any:
    """TID 1410: a landmark's point, with its expected error and its region where they are known."""
    index = result.names.index(name)
    lengths = {_EXPECTED_ERROR: result.expected_error_mm, _REGION: result.region_radius_mm}
    known = {key: float(column[index]) for key, column in lengths.items() if column is not None}
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(hd.UID(), name),
        referenced_region=hd.sr.ImageRegion(
            graphic_type=hd.sr.GraphicTypeValues.POINT,
            graphic_data=np.array([point]),
            source_image=hd.sr.SourceImageForRegion.from_source_image(source.header),
        ),
        finding_type=_code(hd, result, name),
        algorithm_id=_algorithm(hd, result),
        measurements=[
            hd.sr.Measurement(hd.sr.CodedConcept(key, SCHEME, landmark_title(key)), value, _unit(hd, "mm"))
            for key, value in known.items()
            if np.isfinite(value)
        ],
    )


def _measure_groups(hd: Any, source: DicomFilm, result: LandmarkResult, measured: list[MeasuredValue]) -> list[Any]:
    """TID 1501: all measures of the film; nothing when there is none."""
    if not measured:
        return []
    image = hd.sr.SourceImageForMeasurementGroup.from_source_image(source.header)
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(hd.UID(), _MEASURES),
        algorithm_id=_algorithm(hd, result),
        measurements=[_measurement(hd, result, one) for one in measured],
        source_images=[image],
    )
    return [group]


def _measurement(hd: Any, result: LandmarkResult, one: MeasuredValue) -> Any:
    """TID 300, with the uncertainty as TID 310 has it, in the unit of the value (highdicom writes it without one)."""
    properties = None
    if one.expected_sd is not None:
        properties, kind = hd.sr.MeasurementProperties(), hd.sr.RelationshipTypeValues.HAS_PROPERTIES
        for code in _UNCERTAINTY:
            item = hd.sr.NumContentItem(hd.sr.CodedConcept(*code), one.expected_sd, _unit(hd, one.unit), None, kind)
            properties.append(item)
    return hd.sr.Measurement(_code(hd, result, one.name), one.value, _unit(hd, one.unit), properties=properties)


def _sentences(result: LandmarkResult, measured: list[MeasuredValue]) -> list[str]:
    """What a reader of the report must not overlook."""
    said = [f"{result.disclaimer.capitalize()}. Found by software, not verified by a person."]
    said.append(f"Spacing: {spacing_text(result)}.")
    if result.spacing_mm is None and measured:
        said.append("Angles and ratios follow from the film's pixel aspect ratio.")
    if any(one.expected_sd is not None for one in measured):
        said.append("The uncertainty of a measure is one standard deviation, from the landmarks' expected errors.")
    if result.guarantee is not None and result.region_radius_mm is not None:
        said.append(f"A region holds its landmark in {result.guarantee.region_level:.0%} of cases.")
    if result.refer is not None and result.refer.any():
        names = ", ".join(name for name, refer in zip(result.names, result.refer, strict=True) if refer)
        said.append(f"A person should look at: {names}.")
    return said + [f"{warning.rstrip('.')}." for warning in result.warnings]


def _emptied(source: DicomFilm) -> list[str]:
    names = ", ".join(source.left_empty)
    return [f"Not valid in the film, and empty here: {names}."] if names else []


def read_structured_report(path: str | PathLike[str]) -> ReportedLandmarks:
    """Read a structured report that :func:`write_structured_report` wrote.

    Args:
        path: the SR file.

    Returns:
        Its points, measures and words.

    Raises:
        DataError: not a report of landmarks of this package.
        ConfigurationError: highdicom is not installed.
    """
    hd = import_highdicom()
    try:
        content = hd.sr.srread(path).content
        landmarks = content.get_planar_roi_measurement_groups(graphic_type=hd.sr.GraphicTypeValues.POINT)
        groups = content.get_image_measurement_groups()
    except Exception as error:
        raise DataError(
            f"not a structured report of landmarks ({type(error).__name__})",
            file=path,
            expected="a Comprehensive SR with a TID 1500 Measurement Report",
            action="write it with `python -m monai_landmark predict --dicom sr`",
        ) from None
    if not landmarks or landmarks[0].finding_type.scheme_designator != SCHEME:
        raise DataError("no landmarks in this report", file=path, expected=f"points with codes of {SCHEME}")
    points = {group.tracking_identifier: group.roi.value[0] for group in landmarks}
    measures = [measure for group in groups for measure in group.get_measurements()]
    comments = [item.TextValue for item in content[0].ContentSequence if item.name == hd.sr.CodedConcept(*_COMMENT)]
    errors = {group.tracking_identifier: _expected_error(group) for group in landmarks}
    algorithm = [item.TextValue for item in landmarks[0][0].ContentSequence if item.name.value in _ALGORITHM]
    return ReportedLandmarks(
        film_uid=str(landmarks[0].roi.ContentSequence[0].referenced_sop_instance_uid),
        points_px={name: (float(x) - 0.5, float(y) - 0.5) for name, (x, y) in points.items()},
        expected_error_mm={name: error for name, error in errors.items() if error is not None},
        measured=tuple(_measured(measure) for measure in measures),
        algorithm=tuple(algorithm),
        comment=" ".join(comments),
    )


def _expected_error(group: Any) -> float | None:
    for measure in group.get_measurements():
        if measure.name.value == _EXPECTED_ERROR:
            return float(measure.value)
    return None


def _measured(measure: Any) -> MeasuredValue:
    kinds: dict[str, Kind] = {unit: kind for kind, unit in UNITS.items()}
    unit = measure.unit.value
    spread = [item for item in (measure[0].get("ContentSequence") or []) if item.name.value == _UNCERTAINTY[0][0]]
    name = measure.name.value.rpartition(".")[2]
    return MeasuredValue(name, kinds[unit], float(measure.value), unit, float(spread[0].value) if spread else None)
