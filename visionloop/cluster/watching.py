"""What happens to objects of a cluster: a list, then a stream of changes that survives breaks."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from visionloop.cluster.refusals import Refused, Unreachable, refusal
from visionloop.cluster.transport import is_untrusted, unreachable
from visionloop.errors import VisionloopError

if TYPE_CHECKING:
    import urllib3

    from visionloop.cluster.api import Cluster

# An API server sends a bookmark about every minute: longer silence means a dead connection.
_SILENCE_SECONDS = 90.0
# A version from which the server keeps no history any more: everything is listed anew.
_GONE = 410


def changes(
    cluster: Cluster,
    path: str,
    *,
    label_selector: str = "",
    field_selector: str = "",
    timeout_s: float,
    listed: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what happens to the objects under a path.

    Args:
        cluster: Where they are.
        path: Path of the resource.
        label_selector: Which of them.
        field_selector: Which of them.
        timeout_s: Seconds after which the iterator ends. A server that falls silent without a word
            is noticed up to 90 s later.
        listed: Yield ``LISTED`` and an empty object after each listing.

    Yields:
        ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object. What changed while nobody could be
        asked comes as the difference of two listings; no state comes twice.
    """
    until = time.monotonic() + timeout_s
    known: dict[str, dict[str, Any]] = {}
    failures = 0
    version, begun = "", False
    while (left := until - time.monotonic()) > 0:
        if not version:
            try:
                items, version = cluster.list_at(path, label_selector, field_selector)
            except VisionloopError as error:
                if not begun or not _passes(error):
                    raise
                # A control plane that is upgraded is away for minutes; the time limit decides.
                continue
            begun = True
            yield from _difference(known, items)
            if listed:
                yield "LISTED", {}
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, math.ceil(left))),
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        query = {name: value for name, value in query.items() if value}
        alive = False
        pause_for: str | None = None
        try:
            for event in _stream(cluster, path, query, left):
                kind, item = event["type"], event["object"]
                if kind == "ERROR":
                    version = "" if item.get("code") == _GONE else version
                    alive = alive and item.get("code") == _GONE
                    break
                alive = True
                version = item["metadata"]["resourceVersion"]
                if kind != "BOOKMARK" and _is_news(known, kind, item):
                    yield kind, item
                if time.monotonic() >= until:
                    return
        except _Ended as ended:
            if ended.status == _GONE:
                version = ""
            pause_for = ended.retry_after
        failures = 0 if alive else failures + 1
        left = until - time.monotonic()
        if failures and left > 0:
            # A stream that ends as soon as it begins must not become a busy loop.
            pause = cluster.transport.patience.pause_s(failures - 1, pause_for)
            time.sleep(min(pause, left))


def states(
    cluster: Cluster, path: str, name: str, *, timeout_s: float
) -> Iterator[dict[str, Any] | None]:
    """Yield every new state of one object.

    Args:
        cluster: Where it is.
        path: Path of the resource.
        name: Name of the object.
        timeout_s: As in `changes`.

    Yields:
        The object, None while it does not exist; the first state at once.
    """
    selector = f"metadata.name={name}"
    seen = False
    for event, item in changes(
        cluster, path, field_selector=selector, timeout_s=timeout_s, listed=True
    ):
        if event != "LISTED":
            yield None if event == "DELETED" else item
        elif not seen:
            yield None
        seen = True


class _Ended(Exception):
    """A stream could not be begun, for a reason that passes."""

    def __init__(self, status: int, retry_after: str | None = None) -> None:
        super().__init__(status)
        self.status, self.retry_after = status, retry_after


def _stream(
    cluster: Cluster, path: str, query: dict[str, str], left: float
) -> Iterator[dict[str, Any]]:
    import urllib3

    transport = cluster.transport
    try:
        answer = transport.open(
            "GET", path, query=query, timeout_s=max(1.0, min(left, _SILENCE_SECONDS))
        )
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # Listing tells whether the server is away for good; its patience decides, not this loop's.
        if is_untrusted(error):
            raise unreachable(error, transport.host) from error
        raise _Ended(0) from error
    try:
        if answer.status >= 400:
            body = bytes(answer.data)
            refused = refusal(answer.status, body, method="GET", path=path)
            if answer.status in (_GONE, 429) or answer.status >= 500:
                raise _Ended(answer.status, answer.headers.get("Retry-After")) from refused
            raise refused
        yield from _events(answer)
    except (urllib3.exceptions.HTTPError, OSError):
        # Reset, or silent for too long: the next stream begins where this one was.
        return
    finally:
        answer.close()


def _events(answer: urllib3.BaseHTTPResponse) -> Iterator[dict[str, Any]]:
    """Events that arrived whole; a stream may break within a line."""
    for line in lines(answer):
        try:
            event = json.loads(line)
        except ValueError:
            return
        yield event


def lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the lines of an answer as they arrive, the last one also without its end.

    Args:
        answer: An answer whose body was not read.
    """
    rest = b""
    while True:
        # read1 returns what is there; read and stream wait until their buffer is full.
        piece = answer.read1(65536)
        if not piece:
            break
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line)
    if rest:
        yield rest


def _passes(error: VisionloopError) -> bool:
    if isinstance(error, Refused):
        return error.status == 429 or error.status >= 500
    return isinstance(error, Unreachable)


def _identity(item: dict[str, Any]) -> str:
    metadata = item["metadata"]
    return str(metadata.get("uid") or f"{metadata.get('namespace')}/{metadata['name']}")


def _is_news(known: dict[str, dict[str, Any]], kind: str, item: dict[str, Any]) -> bool:
    identity = _identity(item)
    if kind == "DELETED":
        return known.pop(identity, None) is not None
    before = known.get(identity)
    known[identity] = item
    return before is None or _version(before) != _version(item)


def _difference(
    known: dict[str, dict[str, Any]], items: list[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    present = {_identity(item): item for item in items}
    for identity in [identity for identity in known if identity not in present]:
        yield "DELETED", known.pop(identity)
    for identity, item in present.items():
        before = known.get(identity)
        known[identity] = item
        if before is None:
            yield "ADDED", item
        elif _version(before) != _version(item):
            yield "MODIFIED", item


def _version(item: dict[str, Any]) -> str:
    return str(item["metadata"].get("resourceVersion"))
