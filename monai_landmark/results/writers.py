"""The files of a prediction: JSON, 3D Slicer markups, a picture and DICOM objects for each film, CSV tables for all."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from ignite.engine import Engine, Events

from monai_landmark.data.reader import read_film
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import DataError
from monai_landmark.results.collect import ResultCollector
from monai_landmark.results.files import save_results, write_csv, write_markups
from monai_landmark.results.measurements import write_measurements_csv
from monai_landmark.results.overlay import write_overlay
from monai_landmark.results.presentation_state import write_presentation_state
from monai_landmark.results.result import LandmarkResult
from monai_landmark.results.structured_report import write_structured_report

__all__ = ["DICOM_FILES", "RESULT_FILES", "ResultWriter", "write_dicom_files", "write_result_files"]

RESULT_FILES = ("json", "markups", "overlay")
DICOM_FILES = ("sr", "gsps")


def write_result_files(
    result: LandmarkResult,
    folder: str | PathLike[str],
    schema: LandmarkSchema,
    image: str | PathLike[str],
    files: Sequence[str] = RESULT_FILES,
) -> None:
    """Write the files of one film.

    Args:
        result: its landmarks; folders in its id become folders here.
        folder: where to.
        schema: its lines are drawn into the picture.
        image: the film itself, for the picture.
        files: which of :data:`RESULT_FILES`.

    Raises:
        DataError: if the film's id would lead out of the folder.
    """
    base = _base(result, folder)
    if "json" in files:
        save_results(result, base.with_name(f"{base.name}.json"))
    if "markups" in files:
        write_markups(result, base.with_name(f"{base.name}.mrk.json"))
    if "overlay" in files:
        write_overlay(base.with_name(f"{base.name}.png"), read_film(image).pixels, result, schema)


def write_dicom_files(
    result: LandmarkResult,
    folder: str | PathLike[str],
    schema: LandmarkSchema,
    film: str | PathLike[str],
    files: Sequence[str] = DICOM_FILES,
) -> None:
    """Write the DICOM objects of one film, ``<id>.sr.dcm`` and ``<id>.gsps.dcm``, which never take a film's own name.

    Args:
        result: its landmarks; folders in its id become folders here.
        folder: where to.
        schema: of the result; says what is measured.
        film: the DICOM film that was predicted.
        files: which of :data:`DICOM_FILES`.

    Raises:
        DataError: if the film is not a DICOM film that can be referred to, or the id would lead out of the folder.
        ConfigurationError: if highdicom is not installed.
    """
    base = _base(result, folder)
    if "sr" in files:
        write_structured_report(result, schema, film, base.with_name(f"{base.name}.sr.dcm"))
    if "gsps" in files:
        write_presentation_state(result, film, base.with_name(f"{base.name}.gsps.dcm"))


def _base(result: LandmarkResult, folder: str | PathLike[str]) -> Path:
    """Path of a film's files without their suffix."""
    base = Path(folder) / result.film
    if not base.resolve().is_relative_to(Path(folder).resolve()):
        raise DataError("the film's id leads out of the folder for results", field="id", value=result.film)
    return base


class ResultWriter:
    """Handler that writes what a collector gathered.

    Args:
        collector: see :class:`monai_landmark.results.collect.ResultCollector`.
        output_dir: where to.
        files: which of :data:`RESULT_FILES`.
    """

    def __init__(
        self, collector: ResultCollector, output_dir: str | PathLike[str], files: Sequence[str] = RESULT_FILES
    ) -> None:
        self.collector, self.output_dir, self.files = collector, Path(output_dir), tuple(files)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator.

        Args:
            engine: the evaluator.
        """
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write all results.

        Args:
            engine: the evaluator.
        """
        found = self.collector
        for result in found.results:
            write_result_files(result, self.output_dir, found.schema, found.images[result.film], self.files)
        write_csv(found.results, self.output_dir / "landmarks.csv")
        write_measurements_csv(found.results, found.schema, self.output_dir / "measurements.csv")
