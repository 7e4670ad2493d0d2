"""The MONAI Label app for organs in CT: a segmentation task, chosen where the model's card names organs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.tasks.activelearning.random import Random

from monai_landmark.errors import ConfigurationError
from monai_landmark.label.checks import ORGANS
from monai_landmark.label.guarded_app import GuardedApp
from monai_landmark.label.privacy import LOGGER, pseudonym
from monai_landmark.label.scan_service import ScanService
from monai_landmark.label.scan_store import ScanFolder
from monai_landmark.label.service import LabelSettings
from monai_landmark.label.tasks import BatchPrediction, Training

__all__ = ["OrganApp", "Segmentation"]


class Segmentation(InferTask):  # type: ignore[misc]  # monailabel is untyped
    """The organs of one scan, as a label volume.

    Args:
        service: segments.
    """

    def __init__(self, service: ScanService) -> None:
        self.service = service
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=service.numbers,
            dimension=3,
            description="Organs in CT; not for diagnosis",
        )

    def is_valid(self) -> bool:
        """Whether there is a model."""
        return self.service.rounds.current() is not None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment.

        Args:
            request: ``image`` is the scan's file, ``film`` its id.

        Returns:
            The label volume, which the server removes when it has been sent; ``label_names`` (organ -> number),
            ``volumes_ml`` and the ``model``.

        Raises:
            DataError: if the scan or the model cannot be used.
        """
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            facts = self.service.segment(Path(request["image"]), Path(folder))
            with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
                pass
            (Path(folder) / "scan.nii.gz").replace(file.name)
        LOGGER.info("scan %s segmented in %.2f s", pseudonym(request["film"]), time.monotonic() - start)
        told = {key: facts[key] for key in ("volumes_ml", "model", "disclaimer")}
        return file.name, {"label_names": self.service.numbers, **told}


class OrganApp(GuardedApp):
    """Organs in CT scans of a folder.

    Args:
        app_dir: the app's folder.
        studies: folder of NIfTI scans.
        conf: ``model_dir``, ``bundle``, ``pretrained``, ``device``, ``trust`` and ``max_upload_mib``.

    Raises:
        ConfigurationError: a PACS, or no model of organs.
    """

    service: ScanService

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if studies.startswith(("http://", "https://")):
            action = "give a folder of NIfTI files"
            raise ConfigurationError("scans are not taken from a PACS", field="--studies", value=studies, action=action)
        super().__init__(
            app_dir,
            studies,
            conf,
            ScanService(LabelSettings.of(conf, app_dir, "bundles/ct_organs")),
            name="Organs in CT",
            description="Organs in CT, slice by slice, on MONAI. Research only, not for diagnosis.",
            labels=None,  # those of the task
        )

    def init_datastore(self) -> Any:
        """The folder."""
        return ScanFolder(self.service, self.studies, auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)

    def init_infers(self) -> dict[str, Any]:
        """One task."""
        return {ORGANS: Segmentation(self.service)}

    def init_trainers(self) -> dict[str, Any]:
        """One task."""
        return {ORGANS: Training(self.service, "organs", label_budget="all")}

    def init_strategies(self) -> dict[str, Any]:
        """Chance alone: nothing is expected of a scan's errors."""
        return {"random": Random()}

    def init_batch_infer(self) -> Any:
        """See :class:`~monai_landmark.label.tasks.BatchPrediction`."""
        return BatchPrediction("volumes_ml")
