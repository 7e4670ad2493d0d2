"""The files of a segmented scan: label volume as NIfTI, DICOM segmentation of a DICOM series, and facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_landmark import __version__
from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.files import write_text
from monai_landmark.networks import model_card
from monai_landmark.results.dicom_segmentation import write_dicom_segmentation
from monai_landmark.results.label_volumes import LabeledScan

__all__ = ["LABEL_FILES", "LabelWriter", "write_label_nifti"]

LABEL_FILES = ("nifti", "seg", "json")
DISCLAIMER = "research only, not for diagnosis"
_FREE_TEXT = ("descrip", "aux_file", "db_name", "intent_name", "data_type")


def write_label_nifti(found: LabeledScan, path: str | PathLike[str]) -> Path:
    """Write a label volume with its scan's own geometry, and none of its scan's free text.

    Of a NIfTI scan both forms of the geometry are taken over as they are, so that every program sees the labels where
    it sees the scan.

    Args:
        found: the labels.
        path: ``.nii`` or ``.nii.gz``.

    Returns:
        The path.
    """
    scan = found.scan
    if scan.files:
        image = nibabel.Nifti1Image(found.labels, scan.affine)
        image.set_qform(scan.affine, code=1)
        image.set_sform(scan.affine, code=1)
        image.header.set_xyzt_units("mm")
    else:
        original = nibabel.load(scan.file)
        header = original.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header.extensions.clear()
        for field in _FREE_TEXT:
            if field in header:
                header[field] = b""
        for field in ("cal_min", "cal_max"):
            header[field] = 0
        image = type(original)(found.labels, original.affine, header)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial-{file.name}")
    nibabel.save(image, partial)
    partial.replace(file)
    return file


class LabelWriter:
    """Writes the files of every segmented scan; takes what a :class:`VolumeCollector` hands on.

    Args:
        output_dir: where to.
        model_dir: folder of the weights; their hash goes into the files.
        files: which of :data:`LABEL_FILES`; ``seg`` is written of DICOM series only.

    Raises:
        ConfigurationError: if a kind of file is unknown.
    """

    def __init__(
        self, output_dir: str | PathLike[str], model_dir: str | PathLike[str], files: Sequence[str] = LABEL_FILES
    ) -> None:
        if unknown := [kind for kind in files if kind not in LABEL_FILES]:
            raise ConfigurationError("no such file", field="files", value=unknown, expected=" | ".join(LABEL_FILES))
        self.output_dir, self.model_dir, self.files = Path(output_dir), Path(model_dir), tuple(files)

    def __call__(self, found: LabeledScan) -> None:
        """Write the files of one scan.

        Args:
            found: the labels.

        Raises:
            DataError: if the scan's id would lead out of the folder.
        """
        name = str(found.item["id"])
        base = self.output_dir / name
        if not base.resolve().is_relative_to(self.output_dir.resolve()):
            raise DataError("the scan's id leads out of the folder for results", field="id", value=name)
        card = model_card(self.model_dir)
        if "nifti" in self.files:
            write_label_nifti(found, base.with_name(f"{base.name}.nii.gz"))
        if "seg" in self.files and found.scan.files:
            write_dicom_segmentation(found, base.with_name(f"{base.name}.seg.dcm"), card)
        if "json" in self.files:
            write_text(base.with_name(f"{base.name}.json"), json.dumps(label_facts(found, card), indent=1) + "\n")


def label_facts(found: LabeledScan, card: dict[str, Any]) -> dict[str, Any]:
    """What a label volume is.

    Args:
        found: the labels.
        card: of the model.

    Returns:
        JSON facts.
    """
    return {
        "format": "monai-landmark/labels",
        "format_version": 1,
        "scan": found.item["id"],
        "shape": list(found.scan.shape),
        "affine": found.scan.affine.round(6).tolist(),
        "labels": {str(number): organ for number, organ in enumerate(found.organs, start=1)},
        "volumes_ml": found.volumes_ml,
        "model": {"name": card.get("architecture", ""), "sha256": card.get("sha256")},
        "version": __version__,
        "disclaimer": DISCLAIMER,
    }
