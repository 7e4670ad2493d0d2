"""The MONAI Label app: films, model and tasks of one server."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicomweb_client.session_utils import create_session_from_user_pass
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from monailabel.utils.async_tasks import utils as task_processes
from starlette.exceptions import HTTPException

from monai_landmark import __version__
from monai_landmark.data.formats import read_films_by
from monai_landmark.data.sandbox import FilmSandbox
from monai_landmark.data.spacing import check_spacing
from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.label.checks import METHOD, MODEL, NotFoundError, RequestError, answer, check_tag
from monai_landmark.label.datastore import FilmFolder, FilmPacs
from monai_landmark.label.guard import Guard
from monai_landmark.label.login import check_tokens
from monai_landmark.label.privacy import LOGGER, keep_logs_private
from monai_landmark.label.progress import OwnLines, tell_why
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
from monai_landmark.label.workers import answer_in_threads
from monai_landmark.results.result import LandmarkResult

__all__ = ["MODALITIES", "LandmarkApp", "label_settings"]

#: Of films in a PACS; MONAI Label's own filter lets only CT pass.
MODALITIES = ("CR", "DX", "RG", "PX", "IO")
MAX_UPLOAD_MIB = 256
_LEFT_BEHIND_S = 600  # an upload's temporary file this old was left by a request that failed
_ASKABLE = ("model", "image", "device", "save_label", "label_tag", "result_extension", "result_dtype", "label_info")


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
    pretrained = conf.get("pretrained")
    return LabelSettings(
        model_dir=Path(conf.get("model_dir") or Path(app_dir) / "model"),
        bundle=Path(conf.get("bundle") or "bundles/xray_landmarks"),
        pretrained=Path(pretrained) if pretrained else None,
        schema=conf.get("schema") or None,
        architecture=conf.get("architecture") or None,
        spatial_size=(int(size[0]), int(size[1])) if size else None,
        device=conf.get("device") or None,
        trust=tuple(conf.get("trust", "").split()),
        spacing=check_spacing(spacing, field="spacing") if spacing else None,
    )


class LandmarkApp(MONAILabelApp):  # type: ignore[misc]  # monailabel is untyped
    """Landmarks in radiographs.

    Args:
        app_dir: the app's folder.
        studies: folder of films, or address of a PACS's DICOMweb.
        conf: see :func:`label_settings`; also ``max_upload_mib``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        keep_logs_private()
        read_films_by(FilmSandbox().read)  # a film that crashes its decoder must not take the server along
        settings.MONAI_LABEL_SESSIONS = False  # they unpack archives that clients send
        settings.MONAI_LABEL_AUTO_UPDATE_SCORING = False  # a process for each film that is asked for
        self.service = LabelService(label_settings(conf, app_dir))
        self.max_bytes = int(conf.get("max_upload_mib") or MAX_UPLOAD_MIB) * 2**20
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"Landmarks in radiographs ({self.service.schema.name})",
            description="Landmarks with their expected errors, on MONAI. Research only, not for diagnosis.",
            version=__version__,
            labels=list(self.service.schema.landmarks),
        )
        self._protect()

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
        return {MODEL: Training(self.service)}

    def init_strategies(self) -> dict[str, Any]:
        """Every strategy by its name."""
        return {name: NextFilm(self.service, name) for name in STRATEGIES}

    def init_scoring_methods(self) -> dict[str, Any]:
        """One method."""
        return {METHOD: ExpectedErrors(self.service)}

    def init_batch_infer(self) -> Any:
        """See :class:`~monai_landmark.label.tasks.BatchPrediction`."""
        return BatchPrediction()

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Predict a film of the store, or one that came with the request.

        Args:
            request: of the endpoint; what it may not choose is left out.
            datastore: the app's own by default.

        Returns:
            ``file`` with markups and ``params`` with the result.

        Raises:
            DataError: why there is no prediction.
        """
        datastore = datastore or self._datastore
        wanted = {key: request[key] for key in _ASKABLE if key in request}
        if wanted.get("model") not in self._infers:
            raise NotFoundError("no such model", field="model", expected=" | ".join(self._infers))
        film, tag = str(wanted.get("image", "")), check_tag(str(wanted.get("label_tag") or "original"))
        sent = _is_upload(film)
        path = Path(film) if sent else datastore.film_path(film)
        name, params = self._infers[MODEL]({**wanted, "image": str(path), "film": "film" if sent else film})
        if not sent:
            keep_score(datastore, film, _result(params))
            if wanted.get("save_label") is True:
                info = {"model": params["result"]["model"], "score": params["score"]}
                datastore.save_prediction(film, Path(name), tag, info)
        return {"label": name, "tag": tag, "file": name, "params": params}

    def next_sample(self, request: dict[str, Any]) -> Any:
        """See the base class; a strategy that is not there is said in a sentence."""
        if request.get("strategy") not in self._strategies:
            raise NotFoundError("no such strategy", field="strategy", expected=" | ".join(self._strategies))
        return super().next_sample(request)

    def _download_dcmqi_tools(self) -> None:
        """Nothing is downloaded."""

    def _protect(self) -> None:
        """Put the guard in front of the server that this app runs in, whoever started it.

        The server builds its chain of middleware before it makes the app, so the chain is built once more.
        """
        server = sys.modules.get("monailabel.app")
        application = getattr(server, "app", None)
        if application is None:  # a process that trains or scores, without a server
            sys.excepthook = tell_why
            return
        task_processes.deque = OwnLines
        origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
        if not origins:  # MONAI Label then allows every web page
            middleware = application.user_middleware
            application.user_middleware = [entry for entry in middleware if entry.cls.__name__ != "CORSMiddleware"]
        for kind in (DataError, ValueError, MONAILabelException, HTTPException, Exception):
            application.add_exception_handler(kind, _respond)
        check_tokens()
        authorize = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
        answer_in_threads(application)
        application.include_router(review_router(self.service, lambda: self._datastore, SCORE, authorize))
        guarded = application.build_middleware_stack()
        authenticated = bool(settings.MONAI_LABEL_AUTH_ENABLE)
        application.middleware_stack = Guard(
            guarded, self._films, self.max_bytes, authenticated, origins, self.service.check_training
        )
        # films that clients send lie in a folder that only this user can read, and not longer than the server runs
        tempfile.tempdir = tempfile.mkdtemp(prefix="monai-landmark-")
        atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

    def _films(self) -> set[str]:
        return set(self._datastore.list_images())


def _is_upload(image: str) -> bool:
    """Whether a request came with a film: MONAI Label's endpoint then puts it into a file of this form."""
    path = Path(image)
    name = re.fullmatch(r"tmp[a-z0-9_]{8}(\.[A-Za-z0-9.]{1,20})?", path.name)
    return name is not None and os.path.dirname(image) == tempfile.gettempdir() and path.is_file()


def _remove_left_behind() -> None:
    """MONAI Label removes a client's file only after an answer that is no error."""
    for file in Path(tempfile.gettempdir()).iterdir():
        with suppress(FileNotFoundError):  # removed meanwhile, by the thread that answers another client
            if file.is_file() and time.time() - file.stat().st_mtime > _LEFT_BEHIND_S:
                file.unlink()


def _result(params: Mapping[str, Any]) -> Any:
    return LandmarkResult.from_dict(params["result"])


async def _respond(request: Any, error: Exception) -> Any:
    """The answer to an error, as FastAPI words its own."""
    _remove_left_behind()
    if isinstance(error, HTTPException) and error.status_code < 500:
        return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    if isinstance(error, HTTPException):  # MONAI Label says 500 of what the client forgot
        error = RequestError(str(error.detail))
    if isinstance(error, MONAILabelException):
        error = RequestError(str(error.msg))
    status, sentence = answer(error)
    LOGGER.warning("request refused: %d, %s", status, type(error).__name__)
    return JSONResponse({"detail": sentence}, status_code=status)
