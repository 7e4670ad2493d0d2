"""The MONAI Label app: films, model and tasks of one server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.endpoints.user.auth import RBAC

from monai_landmark.data.formats import read_films_by
from monai_landmark.data.sandbox import FilmSandbox
from monai_landmark.data.spacing import check_spacing
from monai_landmark.errors import ConfigurationError
from monai_landmark.label.checks import METHOD, MODEL
from monai_landmark.label.datastore import FilmFolder, FilmPacs
from monai_landmark.label.guarded_app import GuardedApp
from monai_landmark.label.review_routes import review_router
from monai_landmark.label.service import LabelService, LabelSettings
from monai_landmark.label.strategies import STRATEGIES
from monai_landmark.label.tasks import (
    SCORE,
    BatchPrediction,
    ExpectedErrors,
    NextFilm,
    Prediction,
    Training,
    keep_score,
)
from monai_landmark.results.result import LandmarkResult

__all__ = ["MODALITIES", "LandmarkApp", "label_settings"]

#: Of films in a PACS; MONAI Label's own filter lets only CT pass.
MODALITIES = ("CR", "DX", "RG", "PX", "IO")


def label_settings(conf: Mapping[str, str], app_dir: str) -> LabelSettings:
    """Settings from ``--conf key value`` pairs.

    Args:
        conf: ``model_dir``, ``bundle``, ``pretrained``, ``schema``, ``architecture``, ``spatial_size`` ("H W"),
            ``device``, ``spacing`` ("ROW_MM COL_MM"), ``trust`` (SHA-256); all may be absent.
        app_dir: whose ``model`` folder is the default for ``model_dir``.

    Returns:
        The settings.

    Raises:
        ConfigurationError: if a value is not possible.
        FilmError: if the spacing is not.
    """
    numbers: dict[str, list[float]] = {}
    for key in ("spatial_size", "spacing"):
        try:
            numbers[key] = [float(word) for word in conf.get(key, "").split()]
        except ValueError:
            numbers[key] = [float("nan")]
        if len(numbers[key]) not in (0, 2):
            raise ConfigurationError("not two numbers", field=key, value=conf[key], expected='e.g. "0.1 0.1"')
    size, spacing = numbers["spatial_size"], numbers["spacing"]
    return LabelSettings.of(
        conf,
        app_dir,
        "bundles/xray_landmarks",
        schema=conf.get("schema") or None,
        architecture=conf.get("architecture") or None,
        spatial_size=(int(size[0]), int(size[1])) if size else None,
        spacing=check_spacing(spacing, field="spacing") if spacing else None,
    )


class LandmarkApp(GuardedApp):
    """Landmarks in radiographs.

    Args:
        app_dir: the app's folder.
        studies: folder of films, or address of a PACS's DICOMweb.
        conf: see :func:`label_settings`; also ``max_upload_mib``.
    """

    service: LabelService

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        read_films_by(FilmSandbox().read)  # a film that crashes its decoder must not take the server along
        service = LabelService(label_settings(conf, app_dir))
        super().__init__(
            app_dir,
            studies,
            conf,
            service,
            name=f"Landmarks in radiographs ({service.schema.name})",
            description="Landmarks with their expected errors, on MONAI. Research only, not for diagnosis.",
            labels=list(service.schema.landmarks),
        )

    def init_datastore(self) -> Any:
        """The folder, or the PACS."""
        if not self.studies.startswith(("http://", "https://")):
            return FilmFolder(self.service, self.studies, auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)
        prefixes = {kind: getattr(settings, f"MONAI_LABEL_{kind.upper()}_PREFIX") for kind in ("qido", "wado", "stow")}
        session = None
        if settings.MONAI_LABEL_DICOMWEB_USERNAME:
            session = create_session_from_user_pass(
                settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
            )
        urls = {f"{kind}_url_prefix": prefix for kind, prefix in prefixes.items()}
        client = DICOMwebClientX(url=self.studies.rstrip("/"), session=session, **urls)
        modalities = tuple(self.conf.get("modalities", "").split()) or MODALITIES
        return FilmPacs(self.service, client, modalities, settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None)

    def init_infers(self) -> dict[str, Any]:
        """One task; what it finds depends on the model."""
        return {MODEL: Prediction(self.service)}

    def init_trainers(self) -> dict[str, Any]:
        """One task."""
        return {MODEL: Training(self.service, self.service.schema.name)}

    def init_strategies(self) -> dict[str, Any]:
        """Every strategy by its name."""
        return {name: NextFilm(self.service, name) for name in STRATEGIES}

    def init_scoring_methods(self) -> dict[str, Any]:
        """One method."""
        return {METHOD: ExpectedErrors(self.service)}

    def init_batch_infer(self) -> Any:
        """See :class:`~monai_landmark.label.tasks.BatchPrediction`."""
        return BatchPrediction()

    def keep_facts(self, film: str, params: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Keep a film's score, by which the next film is chosen.

        Args:
            film: its id.
            params: of the prediction.
            datastore: where to keep it.

        Returns:
            The model and the score.
        """
        keep_score(datastore, film, LandmarkResult.from_dict(params["result"]))
        return {"model": params["result"]["model"], "score": params["score"]}

    def add_routes(self, application: Any) -> None:
        """The review page.

        Args:
            application: the server.
        """
        authorize = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
        application.include_router(review_router(self.service, lambda: self._datastore, SCORE, authorize))
