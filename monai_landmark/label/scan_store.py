"""Scans that lie in a folder, and their label volumes in its subfolder ``labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore

from monai_landmark.data.scan_reader import read_scan
from monai_landmark.errors import DataError
from monai_landmark.label.checks import RequestError, check_tag
from monai_landmark.label.datastore import KeptLabels, copy_whole, plain_info
from monai_landmark.label.scan_service import ScanService, label_of
from monai_landmark.results.label_files import write_label_nifti

__all__ = ["SCAN_SUFFIXES", "ScanFolder"]

SCAN_SUFFIXES = (".nii.gz", ".nii")


class ScanFolder(KeptLabels, LocalDatastore):  # type: ignore[misc]  # monailabel is untyped
    """NIfTI scans of one folder; a label is a volume on its scan's grid, with the server's numbers.

    Args:
        service: knows the organs.
        folder: the scans' folder.
        auto_reload: watch the folder for new scans.
    """

    suffixes = SCAN_SUFFIXES
    label_suffixes = (".nii", ".nii.gz")

    def __init__(self, service: ScanService, folder: str, auto_reload: bool = True) -> None:
        self.service = service
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in SCAN_SUFFIXES], auto_reload=auto_reload)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Check a label volume and keep it under the server's numbers.

        Args:
            image_id: the scan.
            label_filename: what the client sent.
            label_tag: ``final`` for labels to train on, ``original`` for predictions.
            label_info: kept beside it; its own ``label_info`` says which number is which organ.

        Returns:
            The label's id, which is the scan's.

        Raises:
            RequestError: what is wrong with it.
        """
        info = plain_info(label_info)
        scan = read_scan(self.film_path(image_id))
        labels = label_of(label_filename, scan, self.service.numbers, info.get("label_info"))
        self._keep(image_id, check_tag(label_tag), info, lambda file: write_label_nifti(labels, file))
        return image_id

    def save_prediction(self, film: str, volume: Path, tag: str, info: dict[str, Any]) -> None:
        """Keep a prediction.

        Args:
            film: the scan's id.
            volume: its label volume.
            tag: of the label.
            info: kept beside it.
        """
        self._keep(film, check_tag(tag), info, lambda file: copy_whole(volume, file))

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Keep a scan that a client sent, under an id of the server's own.

        Args:
            image_id: what the client calls it; not used, for it may name a patient.
            image_filename: what the client sent.
            image_info: kept beside it.

        Returns:
            The scan's id.

        Raises:
            RequestError: if it is no scan.
        """
        suffix = next((end for end in SCAN_SUFFIXES if image_filename.lower().endswith(end)), "")
        if not suffix:
            raise RequestError("not a scan", field="file", expected=f"a file ending in {' or '.join(SCAN_SUFFIXES)}")
        try:
            read_scan(image_filename)
        except DataError as error:
            words = {"field": error.field, "expected": error.expected, "action": error.action}
            raise RequestError(error.problem, **words) from error
        return self._add(Path(image_filename), suffix, image_info)

    def training_items(self) -> list[dict[str, Any]]:
        """All scans with a final label, see :meth:`monai_landmark.label.scan_service.ScanService.item`.

        Raises:
            DataError: if a scan or a label cannot be used.
        """
        folder = Path(self._datastore.label_path("final"))
        labeled = {scan: entry.labels for scan, entry in self._datastore.objects.items() if "final" in entry.labels}
        return [
            self.service.item(scan, self.film_path(scan), folder / f"{scan}{labels['final'].ext}")
            for scan, labels in labeled.items()
        ]
