"""Landmarks as a DICOM grayscale softcopy presentation state: points and names that a viewer lays over the film."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path

import numpy as np

from monai_landmark.errors import DataError
from monai_landmark.results.canvas import landmark_title
from monai_landmark.results.dicom_film import equipment, film_points, import_highdicom, read_dicom_film, save_dicom
from monai_landmark.results.result import LandmarkResult

__all__ = ["write_presentation_state"]


def write_presentation_state(result: LandmarkResult, film: str | PathLike[str], path: str | PathLike[str]) -> Path:
    """Write a presentation state of one film, with its own modality and VOI transformations.

    Args:
        result: its landmarks.
        film: the DICOM film that was predicted.
        path: the file.

    Returns:
        The path.

    Raises:
        DataError: the film is not DICOM, not stored as gray, cannot be referred to or is another one, or nothing was
            found on it.
        ConfigurationError: highdicom is not installed.
    """
    hd = import_highdicom()
    source = read_dicom_film(film)
    points, _ = film_points(source, result)
    polarity = str(source.header.get("PhotometricInterpretation", ""))
    if polarity not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(
            "a grayscale presentation state needs a gray film",
            file=film,
            field="PhotometricInterpretation (0028,0004)",
            value=polarity,
            expected="MONOCHROME1 or MONOCHROME2",
            action="write a structured report instead (--dicom sr)",
        )
    units = hd.pr.AnnotationUnitsValues.PIXEL
    layer = hd.pr.GraphicLayer("LANDMARKS", order=1, description=f"Landmarks, {result.disclaimer}")
    marks = [
        hd.pr.GraphicObject(hd.pr.GraphicTypeValues.POINT, np.array([point]), units, False, name, hd.UID())
        for name, point in points.items()
    ]
    texts = [hd.pr.TextObject(landmark_title(name), units, anchor_point=point) for name, point in points.items()]
    # A presentation state overrules the film's photometric interpretation, so what is stored inverted is said again.
    shape = "INVERSE" if polarity == "MONOCHROME1" else "IDENTITY"
    with warnings.catch_warnings():
        # highdicom's warnings quote the patient's name
        warnings.simplefilter("ignore")
        state = hd.pr.GrayscaleSoftcopyPresentationState(
            referenced_images=[source.header],
            series_number=2,
            device_serial_number=None,
            content_label="LANDMARKS",
            content_description=f"Landmarks, {result.disclaimer}",
            graphic_layers=[layer],
            graphic_annotations=[hd.pr.GraphicAnnotation([source.header], layer, None, None, marks, texts)],
            presentation_lut_transformation=hd.PresentationLUTTransformation(shape),
            **equipment(result),
        )
    # Type 2C for a paired body part: the series does not say a side, the film does.
    state.Laterality = ""
    return save_dicom(state, path)
