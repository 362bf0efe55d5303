"""Google's sign-in, impersonation and storage for tests: who may act as whom, and do what where."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import answering

POOL = "shop.svc.id.goog"
ISSUER = "https://container.googleapis.com/v1/projects/shop/locations/europe-west4/clusters/loop"


@dataclass
class Google:
    """What Google knows.

    Attributes:
        url: Its address.
        acts_as: Google account that each Kubernetes account, ``namespace/name``, may act as.
        rights: What each account may do in each bucket.
        status: Answered to everything; 0 answers as it should.
    """

    url: str
    acts_as: dict[str, str] = field(default_factory=dict)
    rights: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    status: int = 0

    def answer(self, path: str, query: dict[str, list[str]], body: Any, token: str) -> Any:
        """Return a status and an answer."""
        if self.status:
            return self.status, {}
        if path == "/v1/token":
            middle = body["subjectToken"].split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
            right = body["audience"] == f"identitynamespace:{POOL}:{ISSUER}"
            if not right or claims["aud"] != [POOL]:
                return 400, {"error_description": "Invalid value for audience"}
            _, _, namespace, name = claims["sub"].split(":")
            return 200, {"access_token": f"{namespace}/{name}"}
        if path.startswith("/v1/projects/-/serviceAccounts/"):
            google = path.rpartition("/")[2].partition(":")[0]
            if self.acts_as.get(token) != google:
                words = "Permission 'iam.serviceAccounts.getAccessToken' denied"
                return 403, {"error": {"message": words}}
            return 200, {"accessToken": google}
        bucket = path.split("/")[4]
        if bucket not in {held for _, held in self.rights}:
            return 404, {}
        held = self.rights.get((token, bucket), set())
        return 200, {"permissions": [p for p in query["permissions"] if p in held]}


@contextmanager
def google_apis() -> Iterator[Google]:
    """Run Google."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            url = urlsplit(self.path)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, found = stub.answer(url.path, parse_qs(url.query), body, token)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with answering(Handler) as host:
        stub = Google(f"http://{host}")
        yield stub
