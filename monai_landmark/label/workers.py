"""MONAI Label's slow answers in threads: its endpoints predict, score and choose films in the server's event loop.

There one slow film holds up every other client, those too that only look. In a thread it holds up the network alone,
which :class:`~monai_landmark.label.service.LabelService` lends to one prediction at a time.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, FastAPI
from monailabel.endpoints import activelearning, batch_infer, infer, scoring, train

__all__ = ["answer_in_threads", "in_thread"]

_SLOW = (infer, activelearning, batch_infer, scoring, train)


def answer_in_threads(application: FastAPI) -> None:
    """Put routes that answer in a thread before MONAI Label's own; their addresses, roles and answers are the same.

    Args:
        application: MONAI Label's server.
    """
    router = APIRouter(include_in_schema=False)
    for route in (route for module in _SLOW for route in module.router.routes if "POST" in route.methods):
        router.add_api_route(route.path, in_thread(route.endpoint), methods=["POST"])
    application.include_router(router)
    routes = application.router.routes
    routes[:0] = [routes.pop()]


def in_thread(endpoint: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """An endpoint as a plain function, which FastAPI calls in a thread of its pool.

    Args:
        endpoint: that awaits nothing of the server's own event loop.

    Returns:
        A function of the same parameters, so that FastAPI checks them, and the user's role, as before.
    """

    def call(**values: Any) -> Any:
        """Run the endpoint to its end."""
        return asyncio.run(endpoint(**values))

    call.__signature__ = inspect.signature(endpoint)  # type: ignore[attr-defined]
    return call
