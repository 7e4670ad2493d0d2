"""A prediction that takes long holds up nobody who only looks; without MONAI Label's server, but with its routes."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed here; see `make label`"
    ),
]


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """MONAI Label's routes as its server has them, and an app whose prediction waits to be released."""
    from monai_landmark.label.server import STAND_INS

    monkeypatch.setattr(sys, "path", [*sys.path, str(STAND_INS)])
    from fastapi import FastAPI
    from monailabel.endpoints import infer

    from monai_landmark.label.workers import answer_in_threads

    released, begun = threading.Event(), threading.Event()

    class App:
        def info(self) -> dict[str, Any]:
            return {}

        def datastore(self) -> None:
            return None

        def infer(self, request: dict[str, Any]) -> dict[str, Any]:
            begun.set()
            assert released.wait(60)
            return {"file": None, "label": None, "params": {"film": request["image"], "model": request["model"]}}

    monkeypatch.setattr(infer, "app_instance", App)
    application = FastAPI()
    application.include_router(infer.router)

    @application.get("/look")
    async def look() -> str:
        return "seen"

    answer_in_threads(application)
    application.state.released, application.state.begun = released, begun
    return application


async def ask(application: Any, method: str, path: str, query: str = "") -> tuple[int, bytes]:
    """One request of an ASGI server, without a server."""
    sent: list[dict[str, Any]] = []
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode()}
    scope |= {"headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http", "root_path": ""}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"}}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_a_slow_prediction_holds_up_nobody_who_looks(application: Any) -> None:
    async def both() -> list[tuple[int, bytes]]:
        predicted = asyncio.create_task(ask(application, "POST", "/infer/landmarks", "image=one&output=json"))
        await asyncio.to_thread(application.state.begun.wait, 60)
        looked = await asyncio.wait_for(ask(application, "GET", "/look"), 30)
        assert not predicted.done()
        application.state.released.set()
        return [looked, await predicted]

    looked, predicted = asyncio.run(both())
    assert looked == (200, b'"seen"')
    assert predicted[0] == 200 and predicted[1] == b'{"film":"one","model":"landmarks"}'


def test_a_choice_that_is_none_is_refused_as_before(application: Any) -> None:
    assert asyncio.run(ask(application, "POST", "/infer/landmarks", "image=one&output=x"))[0] == 422
    assert not application.state.begun.is_set()
