"""The HTTP side of the Kubeflow Pipelines server for tests."""

from __future__ import annotations

import json
import re
import socket
import struct
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tests.submission.kfp_stub import Fault, KfpStub

# By which a Kubernetes API server leads to the server: kubectl's way in.
PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
LOGIN = "<!doctype html><title>Log in to Your Account</title>"


def handler(stub: KfpStub) -> type[BaseHTTPRequestHandler]:
    """Return a handler that answers with what the stub holds."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_DELETE(self) -> None:
            self._serve("DELETE")

        def log_message(self, *args: object) -> None:
            pass

        def _serve(self, method: str) -> None:
            from tests.submission.kfp_stub import Refusal, Seen, error_body

            url = urlsplit(self.path.removeprefix(PROXY))
            query = parse_qs(url.query)
            body = self._body()
            token = self.headers.get("authorization", "")
            cookie = self.headers.get("cookie", "")
            with stub.lock:
                stub.requests.append(Seen(method, url.path, query, token, cookie, body))
                fault = self._fault(method, url.path)
                if url.path == "/dex/login":
                    self._send(200, LOGIN, "text/html; charset=utf-8")
                    return
                if stub.cookies and cookie not in stub.cookies:
                    self._send(302, "", "text/html", {"Location": "/dex/login"})
                    return
                if fault and not fault.done:
                    self._strike(fault)
                    return
                if stub.accepted and token.removeprefix("Bearer ") not in stub.accepted:
                    self._json(401, error_body(401, "Unauthenticated: the token is not valid"))
                    return
                if stub.refuse and not url.path.endswith("healthz"):
                    self._json(stub.refuse, error_body(stub.refuse, "refused"))
                    return
                text = stub.text(url.path, query)
                if text is not None:
                    self._send(200 if text else 500, text or "no such pod", "text/plain")
                    return
                try:
                    answer = stub.answer(method, url.path, query, body)
                except Refusal as refusal:
                    self._json(refusal.status, error_body(refusal.status, refusal.message))
                    return
                if fault:
                    self._strike(fault)
                    return
                self._json(200, answer)

        def _fault(self, method: str, path: str) -> Fault | None:
            for fault in stub.faults:
                if fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    if not fault.times:
                        stub.faults.remove(fault)
                    if fault.then:
                        fault.then()
                    return fault
            return None

        def _strike(self, fault: Fault) -> None:
            from tests.submission.kfp_stub import error_body

            if fault.status:
                headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                told = json.dumps(error_body(fault.status, fault.message))
                self._send(fault.status, told, "application/json", headers)
                return
            # With no time to linger the kernel answers with a reset, not with an orderly end.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True

        def _body(self) -> Any:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\n\n" + data)
                parts = message.get_payload()
                assert isinstance(parts, list)
                return parts[0].get_payload(decode=True).decode()
            return json.loads(data) if data else {}

        def _json(self, status: int, body: Any) -> None:
            self._send(status, json.dumps(body), "application/json")

        def _send(
            self, status: int, text: str, kind: str, headers: dict[str, str] | None = None
        ) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in {"Content-Type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
