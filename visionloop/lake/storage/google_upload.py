"""Sends a large object to Cloud Storage in parts, and goes on where a connection broke.

The client's own upload sends a part again from its beginning without asking what had come, and
does not go on where a server takes each byte once.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.cloud import storage as gcs

# A multiple of 256 KiB, as the protocol has it. Smaller objects go up in one request.
PART = 16 << 20
_RESUME = 308


class Corrupted(OSError):
    """The bytes that came are not those that were sent."""


def send(blob: gcs.Blob, source: IO[bytes], size: int, patience: dict[str, Any]) -> None:
    """Upload an object.

    Args:
        blob: Where to.
        source: Its bytes, seekable; memory holds `PART` of them.
        size: How many.
        patience: ``retry`` and ``timeout`` of each part.

    Raises:
        Corrupted: What was stored is not what was sent.
    """
    from google.api_core.exceptions import from_http_response
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession

    url = blob.create_resumable_upload_session(
        content_type="application/octet-stream", size=size, checksum=None, **patience
    )
    # The session's address is its own credential.
    http = AuthorizedSession(AnonymousCredentials())  # type: ignore[no-untyped-call]
    stored: dict[str, Any] = {}
    start, unsure = 0, False

    def put(data: bytes, span: str) -> int:
        answer = http.put(
            url,
            data=data,
            headers={"content-range": f"bytes {span}/{size}"},
            timeout=patience["timeout"],
        )
        if answer.status_code == _RESUME:
            came = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("range", ""))
            return int(came[1]) + 1 if came else 0
        if not answer.ok:
            raise from_http_response(answer)  # type: ignore[no-untyped-call]
        stored.update(answer.json())
        return size

    def advance() -> None:
        nonlocal start, unsure
        if unsure:
            start = put(b"", "*")
        unsure = True
        if not stored:
            source.seek(start)
            part = source.read(PART)
            start = put(part, f"{start}-{start + len(part) - 1}")
        unsure = False

    with http:
        while not stored:
            patience["retry"](advance)()
    told = stored.get("crc32c")
    if told and told != checksum(source):
        raise Corrupted("what was stored has another checksum than what was sent")


def checksum(file: IO[bytes]) -> str:
    """Return the CRC32C of a file, read from its beginning, in the form that the service has."""
    from google_crc32c import extend

    found = 0
    file.seek(0)
    while part := file.read(1 << 20):
        found = extend(found, part)
    return b64encode(found.to_bytes(4, "big")).decode()
