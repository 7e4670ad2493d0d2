"""What stands before the server: only known routes, ids that stay in their folder, uploads of a sensible size.

MONAI Label itself checks none of this: its ids become parts of paths, uploads have no limit, anybody who reaches the
port is an administrator unless authentication is switched on, and any web page may call it from a visitor's browser.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from monai_landmark.errors import ConfigurationError
from monai_landmark.label.checks import (
    METHOD,
    MODEL,
    ORGANS,
    NotFoundError,
    RequestError,
    answer,
    check_id,
    check_tag,
)

__all__ = ["ROUTES", "Guard", "is_loopback", "refuse_public_host"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_NAME = r"[A-Za-z0-9_-]{1,80}"
_TASK = rf"({MODEL}|{ORGANS})"
#: Path -> methods that are served. What is not here deletes films, runs uploaded weights or archives, forwards
#: requests to other servers, or shows the log.
ROUTES: dict[str, frozenset[str]] = {
    r"/": frozenset({"GET"}),
    r"/docs/?|/openapi\.json|/favicon\.ico": frozenset({"GET"}),
    r"/static/[A-Za-z0-9_-][A-Za-z0-9_./-]*": frozenset({"GET"}),
    r"/info/?": frozenset({"GET"}),
    r"/auth/?": frozenset({"GET"}),
    r"/auth/token(/valid)?/?": frozenset({"GET", "POST"}),
    rf"/infer/{_NAME}": frozenset({"POST"}),
    r"/batch/infer/?": frozenset({"GET", "DELETE"}),
    rf"/batch/infer/{_TASK}": frozenset({"POST"}),
    rf"/activelearning/{_NAME}": frozenset({"POST"}),
    r"/(train|scoring)/?": frozenset({"GET", "POST", "DELETE"}),
    rf"/train/{_TASK}|/scoring/{METHOD}": frozenset({"POST"}),
    r"/datastore/?": frozenset({"GET"}),
    r"/datastore/image": frozenset({"GET", "HEAD", "PUT"}),
    r"/datastore/image/info": frozenset({"GET"}),
    r"/datastore/label": frozenset({"GET", "HEAD", "PUT", "DELETE"}),
    r"/datastore/label/info": frozenset({"GET", "PUT"}),
    r"/review/?|/review/[a-z_]{1,40}\.(html|css|js|svg)|/review/api/(schema|films|points|pixels)": frozenset({"GET"}),
}
_FILM_KEYS = ("image", "id", "label")
_UPLOAD = "/datastore/image"  # whose film need not be known: the server gives it an id
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine.

    Args:
        host: an IP address, or a name; of names only ``localhost`` is known to be local.

    Returns:
        Whether it is.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def refuse_public_host(host: str, authenticated: bool) -> None:
    """Refuse to offer films to a whole network when nobody has to say who they are.

    Args:
        host: the address that the server would listen on.
        authenticated: whether users must log in.

    Raises:
        ConfigurationError: if others could reach the server without logging in.
    """
    if not authenticated and not is_loopback(host):
        raise ConfigurationError(
            "other machines could reach this server and nobody would have to log in",
            field="--host",
            value=host,
            expected="127.0.0.1, or a server with authentication",
            action="leave --host away and come through an SSH tunnel, or switch on MONAI_LABEL_AUTH_ENABLE",
        )


class Guard:
    """ASGI middleware; the outermost one.

    Args:
        application: what it guards.
        known: the ids of all films.
        max_bytes: of a request's body.
        authenticated: whether users must log in; if not, only this machine is served.
        origins: web pages of other hosts that may call the server, as ``scheme://host:port``.
        check_training: looks at the settings of a training; MONAI Label says yes to all of them and begins.
    """

    def __init__(
        self,
        application: Application,
        known: Callable[[], Collection[str]],
        max_bytes: int,
        authenticated: bool = False,
        origins: Collection[str] = (),
        check_training: Callable[[Mapping[str, Any]], None] = lambda asked: None,
    ) -> None:
        self.application, self.known, self.max_bytes = application, known, max_bytes
        self.authenticated, self.origins, self.check_training = authenticated, frozenset(origins), check_training

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection, or say in a sentence why not."""
        if scope["type"] != "http":
            return await self.application(scope, receive, send)
        try:
            self.check(scope)
        except RequestError as error:
            await _pass_over(receive, self.max_bytes)
            return await _refuse(error, send)
        body = _LimitedBody(receive, self.max_bytes, send)
        try:
            if re.fullmatch(rf"/train/{_TASK}", scope["path"]):
                self.check_training(_settings(await body.read_ahead()))
            await self.application(scope, body.receive, body.send)
        except RequestError as error:
            if not body.answered:
                await _refuse(error, send)

    def check(self, scope: Mapping[str, Any]) -> None:
        """Check all that can be seen before the body is read.

        Args:
            scope: of an HTTP request.

        Raises:
            RequestError: why the request is not served.
        """
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        self._check_caller(scope, headers)
        path, method = scope["path"], scope["method"]
        methods = [methods for pattern, methods in ROUTES.items() if re.fullmatch(pattern, path)]
        if not methods or ".." in path:
            action = "see /docs, and docs/monai-label.md for what is switched off"
            raise NotFoundError("this server has no such address", field="path", action=action)
        if not any(method in allowed for allowed in methods) and method != "OPTIONS":
            raise _MethodError("not served in this way", field=method, expected=" | ".join(sorted(methods[0])))
        self._check_query(scope)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_bytes:
            raise _too_large(self.max_bytes)

    def _check_caller(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """Without authentication only this machine's own programs are served, and no page of another web site."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc != host:
            raise _ForbiddenError("a web page of another site may not use this server", field="Origin")
        if self.authenticated:
            return
        client = scope.get("client")
        if client is not None and not is_loopback(client[0]):
            action = "switch on authentication (MONAI_LABEL_AUTH_ENABLE), or come through an SSH tunnel"
            raise _ForbiddenError("this server is for its own machine only", field="client", action=action)
        # a name that another site's page had resolved to this machine (DNS rebinding) stays in the header
        if host and re.sub(r":\d+$", "", host) not in _LOCAL_NAMES:
            raise _ForbiddenError("not a name of this machine", field="Host", expected=" | ".join(_LOCAL_NAMES))

    def _check_query(self, scope: Mapping[str, Any]) -> None:
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        for key, value in query:
            if key == "tag":
                check_tag(value)
            elif key == "session_id" and value:
                raise RequestError("sessions are switched off", field=key, action="save the film to /datastore/image")
            elif key in _FILM_KEYS and (value or key != "image"):
                check_id(value, key)
                uploads = scope["path"] == _UPLOAD and scope["method"] == "PUT"
                if not uploads and value not in self.known():
                    raise NotFoundError("no such film", field=key, action="take an id from /datastore/?output=all")


class _ForbiddenError(RequestError):
    status = 403


class _MethodError(RequestError):
    status = 405


class _TooLargeError(RequestError):
    status = 413


class _LimitedBody:
    """Counts what a client sends, for it may send more than it said, or say nothing."""

    def __init__(self, receive: Receive, max_bytes: int, send: Send) -> None:
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        self._read, self.answered = 0, False
        self._ahead: list[Message] = []

    async def read_ahead(self) -> bytes:
        """The whole body, which :meth:`receive` then gives again."""
        body, more = b"", True
        while more:
            message = await self.receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._ahead = [{"type": "http.request", "body": body, "more_body": False}]
        return body

    async def receive(self) -> Message:
        """What was read ahead first, then the rest, counted."""
        if self._ahead:
            return self._ahead.pop()
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._max_bytes:
            raise _too_large(self._max_bytes)
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on, unless the body was too large."""
        if self._read > self._max_bytes:  # what the application makes of the error is not what the client is told
            raise _too_large(self._max_bytes)
        self.answered = True
        await self._send(message)


def _settings(body: bytes) -> dict[str, Any]:
    """Of a training: a JSON object, or nothing."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError("not a JSON object", field="body", expected='JSON such as {"max_epochs": 16}')
    return found


def _too_large(max_bytes: int) -> _TooLargeError:
    expected = f"at most {max_bytes / 2**20:g} MiB"
    return _TooLargeError("the upload is too large", field="body", expected=expected, action="send a single film")


async def _pass_over(receive: Receive, most: int) -> None:
    """Read the rest of a request that is refused, for a client that is cut off while it sends never sees the answer."""
    while most > 0:
        message = await receive()
        if not message.get("more_body", False):  # so it is when the client has gone, too
            return
        most -= len(message.get("body", b""))


async def _refuse(error: RequestError, send: Send) -> None:
    status, sentence = answer(error)
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
