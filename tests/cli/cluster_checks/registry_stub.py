"""An image registry for tests: manifests, and the two ways to ask for a login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.servers import answering


class Registry:
    """What a registry holds.

    Attributes:
        images: ``name:tag`` of each image.
        login: ``""`` for none, ``anybody`` for a token that everybody gets, ``account`` for one
            that nobody here gets, ``password`` for HTTP's basic login.
        status: Answered to everything; 0 answers as it should.
        host: Its address, as in the name of an image.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.images: set[str] = set()
        self.login = ""
        self.status = 0
        self.basic = "Basic dXNlcjpwYXNz"
        self.asked: list[str] = []


@contextmanager
def registry() -> Iterator[Registry]:
    """Run a registry."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            basic = self.headers.get("Authorization") == stub.basic
            if self.path.startswith("/token?") and (stub.login == "anybody" or basic):
                self._answer(200, b'{"token": "for-anybody"}')
            else:
                self._answer(401, b"{}")

        def do_HEAD(self) -> None:
            stub.asked.append(self.path)
            assert "oci.image.index" in self.headers["Accept"]
            name, _, tag = self.path.removeprefix("/v2/").partition("/manifests/")
            token = self.headers.get("Authorization") == "Bearer for-anybody"
            if stub.status:
                self._answer(stub.status)
            elif stub.login == "password" and self.headers.get("Authorization") != stub.basic:
                self._answer(401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
            elif stub.login in ("anybody", "account") and not token:
                scope = f'service="here",scope="repository:{name}:pull"'
                challenge = f'Bearer realm="http://{stub.host}/token",{scope}'
                self._answer(401, headers={"WWW-Authenticate": challenge})
            elif f"{name}:{tag}" in stub.images:
                self._answer(200, headers={"Docker-Content-Digest": "sha256:abc"})
            else:
                self._answer(404)

        def _answer(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with answering(Handler) as host:
        stub = Registry(host)
        yield stub
