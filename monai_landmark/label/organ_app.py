"""The MONAI Label app for organs in CT: a segmentation task, chosen where the model's card names organs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.random import Random

from monai_landmark.errors import ConfigurationError
from monai_landmark.label.checks import ORGANS
from monai_landmark.label.guarded_app import GuardedApp
from monai_landmark.label.privacy import LOGGER, pseudonym
from monai_landmark.label.scan_service import ScanService
from monai_landmark.label.scan_store import ScanFolder
from monai_landmark.label.service import LabelSettings
from monai_landmark.label.tasks import BatchPrediction

__all__ = ["OrganApp", "Segmentation", "SegmentationTraining"]


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


class SegmentationTraining(TrainTask):  # type: ignore[misc]
    """A new model from the labeled slices of all scans with a final label.

    Args:
        service: trains.
    """

    def __init__(self, service: ScanService) -> None:
        super().__init__("Fine-tune on labeled slices")
        self.service = service

    def config(self) -> dict[str, Any]:
        """What a client may choose."""
        numbers = {"max_epochs": 16, "steps_per_epoch": 50, "batch_size": 4, "seed": 1}
        return {**numbers, "label_budget": "all", "start": self.service.starts()}

    def stats(self) -> dict[str, Any]:
        """The model in use."""
        current = self.service.rounds.current()
        return {"round": None if current is None else current.name, "model": self.service.model_sha256()}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Train, and use the new model from then on.

        Args:
            request: see :meth:`monai_landmark.label.scan_service.ScanService.check_training`.
            datastore: of the scans and labels.

        Returns:
            What the new model is.

        Raises:
            DataError: why there is none.
        """
        answer = self.service.train(datastore.training_items(), request, LOGGER.info)
        LOGGER.info("round %s is in use, trained on slices of %d scans", answer["round"], answer["films"])
        return answer


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
            ScanService(_settings(conf, app_dir)),
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
        return {ORGANS: SegmentationTraining(self.service)}

    def init_strategies(self) -> dict[str, Any]:
        """Chance alone: nothing is expected of a scan's errors."""
        return {"random": Random()}

    def init_batch_infer(self) -> Any:
        """See :class:`~monai_landmark.label.tasks.BatchPrediction`."""
        return BatchPrediction("volumes_ml")


def _settings(conf: Mapping[str, str], app_dir: str) -> LabelSettings:
    pretrained = conf.get("pretrained")
    return LabelSettings(
        model_dir=Path(conf.get("model_dir") or Path(app_dir) / "model"),
        bundle=Path(conf.get("bundle") or "bundles/ct_organs"),
        pretrained=Path(pretrained) if pretrained else None,
        device=conf.get("device") or None,
        trust=tuple(conf.get("trust", "").split()),
    )
