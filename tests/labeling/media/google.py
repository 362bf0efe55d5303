"""Google for tests of signed URLs: a bucket that checks V4 signatures, IAM, a metadata server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.servers import answering

ACCOUNT = "labels@shop.iam.gserviceaccount.com"
TOKEN = "token-of-the-metadata-server"


@dataclass
class Google:
    """What Google knows.

    Attributes:
        url: Its address.
        key: Of the account; only IAM and the key file have it.
        objects: Bytes and generation by ``bucket/name``.
        may_sign: Whether the account may have blobs signed; a text is the error instead.
        signed: How many it had signed.
        busy: Answers 503 to so many requests to sign.
        later: How much later it is at the bucket.
    """

    url: str = ""
    key: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    may_sign: bool | str = True
    signed: int = 0
    busy: int = 0
    later: timedelta = timedelta()

    def key_file(self, path: Path) -> Path:
        """Write the account's key as Google hands it out."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        held = {
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key": pem.decode(),
            "private_key_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(held))
        return path

    def sign(self, message: bytes) -> bytes:
        """Sign as the account."""
        return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def get(self, target: str, host: str) -> tuple[int, bytes, dict[str, str]]:
        """Answer a request for an object, as the XML API does."""
        url = urlsplit(target)
        query = parse_qsl(url.query, keep_blank_values=True)
        if (why := self.refusal(url.path, query, host)) != "":
            return 403, why.encode(), {}
        held = self.objects.get(unquote(url.path[1:]))
        values = dict(query)
        if held is None or values.get("generation", held[1]) != held[1]:
            return 404, b"NoSuchKey", {}
        kind = values.get("response-content-type", "application/octet-stream")
        return 200, held[0], {"content-type": kind}

    def refusal(self, path: str, query: list[tuple[str, str]], host: str) -> str:
        """Return what is wrong with a signed URL, by the published algorithm."""
        values = dict(query)
        signature = values.pop("X-Goog-Signature", "")
        email, _, scope = values["X-Goog-Credential"].partition("/")
        signed_at = datetime.strptime(values["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if email != ACCOUNT or values["X-Goog-Algorithm"] != "GOOG4-RSA-SHA256":
            return "another account or algorithm"
        if not 0 < int(values["X-Goog-Expires"]) <= 604800:
            return "valid for more than seven days"
        now = datetime.now(UTC) + self.later
        if now > signed_at + timedelta(seconds=int(values["X-Goog-Expires"])):
            return "expired"
        canonical_query = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, value in sorted(values.items())
        )
        assert values["X-Goog-SignedHeaders"] == "host"
        request = "\n".join(
            ["GET", path, canonical_query, f"host:{host}\n", "host", "UNSIGNED-PAYLOAD"]
        )
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join(["GOOG4-RSA-SHA256", values["X-Goog-Date"], scope, digest])
        try:
            self.key.public_key().verify(
                bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, ValueError):
            return "SignatureDoesNotMatch"
        return ""

    def sign_blob(self, account: str, token: str, body: Any) -> tuple[int, Any]:
        """Answer IAM's `signBlob`."""
        if self.busy:
            self.busy -= 1
            return 503, {"error": {"message": "busy"}}
        if isinstance(self.may_sign, str):
            return 403, {"error": {"message": self.may_sign}}
        if not self.may_sign or token != TOKEN or account != ACCOUNT:
            words = "Permission 'iam.serviceAccounts.signBlob' denied on resource"
            return 403, {"error": {"message": words, "status": "PERMISSION_DENIED"}}
        self.signed += 1
        signature = self.sign(base64.b64decode(body["payload"]))
        return 200, {"keyId": "1", "signedBlob": base64.b64encode(signature).decode()}


@contextmanager
def google() -> Iterator[Google]:
    """Run Google."""
    held = Google()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/computeMetadata") or path == "/":
                self._json(200, self._metadata(path), {"Metadata-Flavor": "Google"})
                return
            status, body, headers = held.get(self.path, self.headers["host"])
            self._send(status, body, headers)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = re.fullmatch(r"/v1/projects/-/serviceAccounts/(.+):signBlob", self.path)
            assert found, self.path
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            self._json(*held.sign_blob(found[1], token, body), {})

        def _metadata(self, path: str) -> Any:
            if path.endswith("/token"):
                return {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
            if path.endswith("/project-id"):
                return "shop"
            return {"email": ACCOUNT, "scopes": ["cloud-platform"], "aliases": ["default"]}

        def _json(self, status: int, value: Any, headers: dict[str, str]) -> None:
            body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            kind = "text/plain" if isinstance(value, str) else "application/json"
            self._send(status, body, {**headers, "content-type": kind})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with answering(Handler) as address:
        held.url = f"http://{address}"
        yield held
