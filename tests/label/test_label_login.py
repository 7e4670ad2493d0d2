"""Who is let in, asked of the real server: a realm of this test's own on loopback, and good and forged tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed here; see `make label`"
    ),
]

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = ["/info/", "/review/api/films", "/datastore/label?label=film&tag=final"]


class Realm(ThreadingHTTPServer):
    """The two documents that MONAI Label asks a Keycloak realm for, and tokens signed with its key."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        super().__init__(("127.0.0.1", 0), _Documents)
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.address = f"http://127.0.0.1:{self.server_port}/realms/clinic"
        self.answers = True

    def public_key(self) -> str:
        """As the realm gives it: DER (SubjectPublicKeyInfo) in base64."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def token(self, key: Any = None, algorithm: str = "RS256", **changed: Any) -> str:
        """Signed here and not by a library, so that it may be wrong in ways that a library would refuse to make."""
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256

        claims = {"preferred_username": "ada", "exp": int(time.time()) + 600}
        claims |= {"realm_access": {"roles": ["monailabel-user"]}} | changed
        claims = {name: value for name, value in claims.items() if value is not None}
        text = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": algorithm, "typ": "JWT"}, claims))
        if algorithm == "none":
            return f"{text}."
        if algorithm == "HS256":
            return f"{text}.{_base64(hmac.digest(key, text.encode(), hashlib.sha256))}"
        return f"{text}.{_base64((key or self.key).sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


class _Documents(BaseHTTPRequestHandler):
    server: Realm

    def do_GET(self) -> None:
        token = f"{self.server.address}/protocol/openid-connect/token"
        documents: dict[str, Any] = {
            "/realms/clinic": {"realm": "clinic", "public_key": self.server.public_key()},
            "/realms/clinic/.well-known/openid-configuration": {"token_endpoint": token},
        }
        found = documents.get(self.path) if self.server.answers else None
        body = json.dumps(found or {"error": "not here"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    realm = Realm()
    threading.Thread(target=realm.serve_forever, daemon=True).start()
    yield realm
    realm.shutdown()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, realm: Realm) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("login")
    studies = folder / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    Image.fromarray(np.arange(80 * 50, dtype=np.uint8).reshape(80, 50)).save(studies / "film.png")
    (studies / "labels" / "final" / "film.json").write_text('{"markups": []}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = ["--studies", studies, "--model-dir", folder / "model", "--schema", "chest6", "--port", port]
    command = [sys.executable, "-m", "monai_landmark", "label", "start", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder), "MONAI_LABEL_AUTH_ENABLE": "true"}
    environment["MONAI_LABEL_AUTH_REALM_URI"] = realm.address
    log = folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        wait_until_up(port, process, log)
        yield port
        assert "ada" not in log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_until_up(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            if ask(port, "/auth/")[0] == 200:
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"the server did not start: {log.read_text()}")


def ask(port: int, target: str, token: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, target, b"", {} if token is None else {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        if response.status == 401:
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        return response.status, response.read()
    finally:
        connection.close()


def forged(realm: Realm, how: str) -> str | None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    der = realm.public_key()
    pem = f"-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----"
    tokens = {
        "expired": lambda: realm.token(exp=int(time.time()) - 60),
        "without an end": lambda: realm.token(exp=None),
        "not yet valid": lambda: realm.token(nbf=int(time.time()) + 600),
        "of another key": lambda: realm.token(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "alg none": lambda: realm.token(algorithm="none"),
        "alg HS256 with the public key as MONAI Label writes it": lambda: realm.token(pem.encode(), "HS256"),
        "alg HS256 with the public key as bytes": lambda: realm.token(base64.b64decode(der), "HS256"),
        "signed RS256, said to be PS256": lambda: realm.token(algorithm="PS256"),
        "names nobody": lambda: realm.token(preferred_username=None),
        "no token at all": lambda: "x",
        "changed after signing": lambda: changed(realm.token()),
    }
    return None if how == "none" else tokens[how]()


def changed(token: str) -> str:
    """Another name in the claims, the signature as it was."""
    head, claims, signature = token.split(".")
    known = json.loads(base64.urlsafe_b64decode(claims + "=="))
    return ".".join([head, _base64(json.dumps(known | {"preferred_username": "eve"}).encode()), signature])


def test_nobody_comes_in_while_the_realm_is_silent(port: int, realm: Realm) -> None:
    realm.answers = False  # before the server has the key, so this test comes first
    try:
        status, body = ask(port, "/info/", realm.token())
    finally:
        realm.answers = True
    assert status == 503 and "realm" in json.loads(body)["detail"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_token_of_the_realm_is_let_in(port: int, realm: Realm, address: str) -> None:
    status, body = ask(port, address, realm.token())
    assert status == 200, body


HOW = [
    "none",
    "expired",
    "without an end",
    "not yet valid",
    "of another key",
    "alg none",
    "alg HS256 with the public key as MONAI Label writes it",
    "alg HS256 with the public key as bytes",
    "signed RS256, said to be PS256",
    "names nobody",
    "no token at all",
    "changed after signing",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("how", HOW)
def test_any_other_token_is_refused(port: int, realm: Realm, how: str, address: str) -> None:
    status, body = ask(port, address, forged(realm, how))
    assert status == 401 and json.loads(body)["detail"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "claim", [{"roles": ["another"]}, {"roles": []}, {"roles": "monailabel-user"}, {}, None, "monailabel-user"]
)
def test_a_token_without_the_role_is_refused(port: int, realm: Realm, claim: Any, address: str) -> None:
    status, body = ask(port, address, realm.token(realm_access=claim))
    assert status == 403 and "monailabel-user" in json.loads(body)["detail"]


def test_a_user_may_look_and_not_train(port: int, realm: Realm) -> None:
    assert ask(port, "/train/landmarks", realm.token(), "POST")[0] == 403
