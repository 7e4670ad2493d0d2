"""A label volume as a DICOM segmentation of the series that it was made from, by highdicom."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmark import __version__
from monai_landmark.errors import DataError
from monai_landmark.results.dicom_film import import_highdicom, read_dicom_slices, save_dicom
from monai_landmark.results.label_volumes import LabeledScan

__all__ = ["write_dicom_segmentation"]

# SNOMED CT codes as pydicom's dictionary of PS3.16 has them; the side is a modifier
_CODES: dict[str, tuple[str, str]] = {
    "liver": ("10200004", "Liver"),
    "kidney": ("64033007", "Kidney"),
    "spleen": ("78961009", "Spleen"),
    "pancreas": ("15776009", "Pancreas"),
    "aorta": ("15825003", "Aorta"),
    "inferior_vena_cava": ("64131007", "Inferior vena cava"),
    "adrenal_gland": ("23451007", "Adrenal gland"),
    "gallbladder": ("28231008", "Gallbladder"),
    "esophagus": ("32849002", "Esophagus"),
    "stomach": ("69695003", "Stomach"),
    "duodenum": ("38848004", "Duodenum"),
}
_SIDES = {"right_": ("24028007", "Right"), "left_": ("7771000", "Left")}
_SCHEME = "99MLM"  # for organs of a user's own


def write_dicom_segmentation(found: LabeledScan, path: str | PathLike[str], card: Mapping[str, Any]) -> Path:
    """Write a binary segmentation with one segment for each organ that was found.

    Args:
        found: the labels of a DICOM series.
        path: the file.
        card: of the model; its hash is stated as the algorithm's parameters.

    Returns:
        The path.

    Raises:
        DataError: the scan is no DICOM series, or no organ was found.
        ConfigurationError: highdicom is not installed.
    """
    hd = import_highdicom()
    if not found.scan.files:
        raise DataError("only a DICOM series can have a DICOM segmentation", file=found.scan.file)
    numbers = [int(n) for n in np.unique(found.labels) if n]
    if not numbers:
        raise DataError("no organ was found, there is nothing to write", file=found.scan.file)
    algorithm = hd.AlgorithmIdentificationSequence(
        name="monai_landmark",
        family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=__version__,
        parameters={"model": str(card.get("architecture", "")), "sha256": str(card.get("sha256", ""))},
    )
    segments = [_segment(hd, place, found.organs[n - 1], algorithm) for place, n in enumerate(numbers, start=1)]
    table = np.zeros(256, dtype=np.uint8)
    table[numbers] = np.arange(1, len(numbers) + 1)
    # (files, rows, columns): a scan's first index is the column, its second the row
    pixels = table[found.labels].transpose(2, 1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote attributes
        dataset = hd.seg.Segmentation(
            source_images=read_dicom_slices(found.scan.files),
            pixel_array=np.ascontiguousarray(pixels),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=hd.UID(),
            series_number=900,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="monai_landmark",
            manufacturer_model_name=str(card.get("architecture", "") or "monai_landmark"),
            software_versions=__version__,
            device_serial_number="0",
            series_description="Organs, research only, not for diagnosis",
            omit_empty_frames=True,
        )
    return save_dicom(dataset, path)


def _segment(hd: Any, number: int, organ: str, algorithm: Any) -> Any:
    """Description of one organ; one that has no code gets that of a private scheme."""
    side = next((prefix for prefix in _SIDES if organ.startswith(prefix)), "")
    value, meaning = _CODES.get(organ.removeprefix(side), (organ[:16], organ.replace("_", " ")[:64]))
    known = organ.removeprefix(side) in _CODES
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=organ,
        segmented_property_category=hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure"),
        segmented_property_type=hd.sr.CodedConcept(value, "SCT" if known else _SCHEME, meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    if known and side:
        code, word = _SIDES[side]
        modifier = hd.sr.CodedConcept(code, "SCT", word)
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return described
