"""The review page's addresses: its files, which hold no data, and what it asks for beyond MONAI Label's own API."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from monai_landmark.label.checks import MODEL, NotFoundError
from monai_landmark.label.labels import read_label
from monai_landmark.label.review import Frame, film_frame, points_json, schema_json, worklist
from monai_landmark.label.service import LabelService

__all__ = ["PAGE", "review_router"]

#: Folder of the page's files.
PAGE = Path(__file__).with_name("review_page")

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing from elsewhere, nothing inline, no text ever taken for HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_DATA_HEADERS = {**_PAGE_HEADERS, "Cache-Control": "no-store"}


class _Data:
    """What the page asks for."""

    def __init__(self, service: LabelService, datastore: Callable[[], Any], score_key: str) -> None:
        self.service, self.datastore, self.score_key = service, datastore, score_key

    async def schema(self) -> Response:
        """What there is to find, and whether there is a model."""
        model = {"model": MODEL, "trained": self.service.rounds.current() is not None}
        return JSONResponse(schema_json(self.service.schema) | model, headers=_DATA_HEADERS)

    async def films(self) -> Response:
        """The films in the order in which to look at them."""
        store = self.datastore()
        rows = worklist(store.json()["objects"], store.list_images(), self.service.model_sha256(), self.score_key)
        return JSONResponse({"films": rows}, headers=_DATA_HEADERS)

    async def points(self, image: str) -> Response:
        """A film's final label in pixels."""
        store, service = self.datastore(), self.service
        film = store.film_path(image)
        file = Path(store.get_label_uri(image, "final") or "")
        if not file.is_file():
            raise NotFoundError("the film has no label", field="image")
        found = await run_in_threadpool(lambda: read_label(file, image, service.film(film), service.schema))
        return JSONResponse({"points": points_json(found)}, headers=_DATA_HEADERS)

    async def pixels(self, image: str, request: Request) -> Response:
        """A film's pixels: codes row by row, and in the header what they mean."""
        film, spacing_mm = self.datastore().film_path(image), self.service.settings.spacing
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        return await run_in_threadpool(lambda: _pixels(film_frame(film, spacing_mm), zipped))


def review_router(
    service: LabelService, datastore: Callable[[], Any], score_key: str, authorize: Callable[..., Any]
) -> APIRouter:
    """The page's routes.

    Args:
        service: of the app.
        datastore: gives the store of films and labels.
        score_key: of a film's score in it.
        authorize: FastAPI dependency that lets a user look at films, or raises.

    Returns:
        A router, to be included in the server.
    """
    router, data = APIRouter(include_in_schema=False), _Data(service, datastore, score_key)
    for name in ("schema", "films", "points", "pixels"):
        router.add_api_route(f"/review/api/{name}", getattr(data, name), dependencies=[Depends(authorize)])
    router.add_api_route("/review", _start)
    router.add_api_route("/review/{name:path}", _file)
    return router


async def _start() -> Response:
    """With a slash, which the page's relative addresses need."""
    return RedirectResponse("/review/", headers=_PAGE_HEADERS)


async def _file(name: str) -> Response:
    """One of the page's files."""
    known = {path.name: path for path in PAGE.iterdir() if path.suffix in _TYPES}
    path = known.get(name or "index.html")
    if path is None:
        raise NotFoundError("the page has no such file", field="path")
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=_PAGE_HEADERS)


def _pixels(frame: Frame, zipped: bool) -> Response:
    headers = {**_DATA_HEADERS, "Film-Facts": json.dumps(frame.facts)}
    body = frame.codes.tobytes()
    if zipped:
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers |= {"Content-Encoding": "gzip"}
    return Response(body, media_type="application/octet-stream", headers=headers)
