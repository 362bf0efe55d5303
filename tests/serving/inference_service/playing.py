"""What the played cluster has beside KServe: the proxy to pods, and events."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.cluster.api_server import ApiServer
from tests.cluster.http_api import handler

if TYPE_CHECKING:
    from tests.serving.inference_service.kserve import KServe

NAMESPACE = "models"


def put_event(server: ApiServer, name: str, kind: str, of: str, reason: str, message: str) -> None:
    """Let a component of the cluster tell of an object."""
    server.put(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "involvedObject": {"kind": kind, "name": of},
            "reason": reason,
            "message": message,
            "lastTimestamp": datetime.now(UTC).isoformat(),
        }
    )


def proxying(kserve: KServe) -> Callable[..., Any]:
    """Return the server's handler, with the proxy to pods answered by their real processes."""

    class Handler(handler(kserve.server)):  # type: ignore[misc]
        def _answer(self, method: str) -> None:
            path = unquote(urlsplit(self.path).path)
            before, proxied, inside = path.partition("/proxy/")
            pod, _, port = before.rpartition("/")[2].partition(":")
            server = kserve._servers.get(pod)
            meets = any(
                fault.method == method and re.search(fault.path, path)
                for fault in kserve.server.faults
            )
            if not proxied or server is None or port != "8080" or meets:
                super()._answer(method)
                return
            if kserve.deaf and inside == "metrics":
                lost = {"kind": "Status", "message": "no route to host", "code": 503}
                self._send(503, lost)
                return
            verb = "create" if method == "POST" else "get"
            if f"{verb} pods/proxy" in kserve.server.denied:
                super()._answer(method)
                return
            kserve.proxied.append(f"{method} {path}")
            length = int(self.headers.get("Content-Length") or 0)
            headers = {"content-type": self.headers.get("Content-Type") or ""}
            body = self.rfile.read(length) if length else b""
            target = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=20)
            try:
                target.request(method, f"/{inside}", body=body or None, headers=headers)
                reply = target.getresponse()
                data = reply.read()
            finally:
                target.close()
            self._send(reply.status, data)

    return Handler
