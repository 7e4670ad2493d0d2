"""What every MONAI Label app of this package has in common: the guard before it, errors in sentences, uploads."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from monailabel.utils.async_tasks import utils as task_processes
from starlette.exceptions import HTTPException

from monai_landmark import __version__
from monai_landmark.errors import DataError
from monai_landmark.label.checks import NotFoundError, RequestError, answer, check_tag
from monai_landmark.label.guard import Guard
from monai_landmark.label.login import check_tokens
from monai_landmark.label.privacy import LOGGER, keep_logs_private
from monai_landmark.label.progress import OwnLines, tell_why
from monai_landmark.label.workers import answer_in_threads

__all__ = ["GuardedApp"]

MAX_UPLOAD_MIB = 256
_LEFT_BEHIND_S = 600  # an upload's temporary file this old was left by a request that failed
_ASKABLE = ("model", "image", "device", "save_label", "label_tag", "result_extension", "result_dtype", "label_info")


class GuardedApp(MONAILabelApp):  # type: ignore[misc]  # monailabel is untyped
    """An app behind the guard; what it predicts and how it trains is its subclasses'.

    Args:
        app_dir: the app's folder.
        studies: folder of images, or address of a PACS's DICOMweb.
        conf: of the subclass; also ``max_upload_mib``.
        service: has ``check_training``, which looks at the settings of a training.
        name: shown to users.
        description: likewise.
        labels: what the app finds.
    """

    def __init__(
        self, app_dir: str, studies: str, conf: dict[str, str], service: Any, name: str, description: str, labels: Any
    ) -> None:
        keep_logs_private()
        settings.MONAI_LABEL_SESSIONS = False  # they unpack archives that clients send
        settings.MONAI_LABEL_AUTO_UPDATE_SCORING = False  # a process for each film that is asked for
        self.service = service
        self.max_bytes = int(conf.get("max_upload_mib") or MAX_UPLOAD_MIB) * 2**20
        super().__init__(app_dir, studies, conf, name, description, __version__, labels)
        self._protect()

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Predict an image of the store, or one that came with the request.

        Args:
            request: of the endpoint; what it may not choose is left out.
            datastore: the app's own by default.

        Returns:
            ``file`` with what was found and ``params`` with all that is known of it.

        Raises:
            DataError: why there is no prediction.
        """
        datastore = datastore or self._datastore
        wanted = {key: request[key] for key in _ASKABLE if key in request}
        task = self._infers.get(wanted.get("model"))
        if task is None:
            raise NotFoundError("no such model", field="model", expected=" | ".join(self._infers))
        film, tag = str(wanted.get("image", "")), check_tag(str(wanted.get("label_tag") or "original"))
        sent = _is_upload(film)
        path = Path(film) if sent else datastore.film_path(film)
        name, params = task({**wanted, "image": str(path), "film": "film" if sent else film})
        if not sent:
            info = self.keep_facts(film, params, datastore)
            if wanted.get("save_label") is True:
                datastore.save_prediction(film, Path(name), tag, info)
        return {"label": name, "tag": tag, "file": name, "params": params}

    def keep_facts(self, film: str, params: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Keep what a prediction says of its image.

        Args:
            film: the image's id.
            params: of the prediction.
            datastore: where to keep it.

        Returns:
            What is kept beside a prediction that is saved.
        """
        return {"model": params["model"]}

    def add_routes(self, application: Any) -> None:
        """Addresses of the app's own; none by default.

        Args:
            application: the server.
        """

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
        answer_in_threads(application)
        self.add_routes(application)
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


async def _respond(request: Any, error: Exception) -> Any:
    """The answer to an error, as FastAPI words its own."""
    _remove_left_behind()
    if isinstance(error, HTTPException) and (error.status_code, error.detail) == (404, "Not Found"):  # starlette's own
        error = NotFoundError("this server has no such address", field="path", action="see /docs")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    if isinstance(error, HTTPException):  # MONAI Label says 500 of what the client forgot
        error = RequestError(str(error.detail))
    if isinstance(error, MONAILabelException):
        error = RequestError(str(error.msg))
    status, sentence = answer(error)
    LOGGER.warning("request refused: %d, %s", status, type(error).__name__)
    return JSONResponse({"detail": sentence}, status_code=status)
