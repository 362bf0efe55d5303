"""`visionloop labels media`: images of a lake for the browsers of those who label them.

Only a valid link gets an image (`signatures`), and only the image that it is for: an id names a
sample, never a path. Each image is read where it lies and compared with its id, so that nobody is
shown another picture in its place.

====== =============================================================================================
 200   the image; what no browser shows is made anew, and ``x-visionloop-shown`` says so
 206   the part of it that ``Range`` asks for
 304   the browser has it already; its tag is the sample's id
 403   ``unsigned``, ``forged`` or ``expired``: the link is none of ours, or not any more
 404   ``unknown``: the lake has no such sample (any more: it may have been erased)
 410   ``changed`` or ``gone``: the file was overwritten or removed after its ingest
 502   ``unreadable``: its storage does not answer, or refuses
 503   ``busy``: too many ask at once
====== =============================================================================================

Also GET ``/healthz`` (alive), ``/readyz`` (the lake answers), ``/metrics``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from visionloop.errors import UnreadableMedia, VisionloopError
from visionloop.labeling.media.counts import Counts
from visionloop.labeling.media.places import Places
from visionloop.labeling.media.ranges import Unsatisfiable, range_of
from visionloop.labeling.media.showing import Shown, show
from visionloop.labeling.media.signatures import Keys, sample_of
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.identity import is_sample
from visionloop.lake.storage import StorageError
from visionloop.progress import log
from visionloop.serving.asgi import Receive, Scope, Send

_PIECE = 256 * 1024
# For a client to take the next piece.
_PIECE_SECONDS = 30.0
# A browser asks again after so long, and then learns that an image was erased.
_CACHE_SECONDS = 3600
_PLAIN = (b"content-type", b"text/plain; charset=utf-8")
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass(frozen=True)
class Limits:
    """What the endpoint does at a time.

    Attributes:
        workers: Images that are read, and made anew, at a time.
        waiting: Requests at a time; more are refused.
        held_bytes: Of images on their way to browsers; while there are more, none is read.
        max_side: Longest side of an image in pixels; 0: as it is.
    """

    workers: int = 4
    waiting: int = 256
    held_bytes: int = 256 * 1024 * 1024
    max_side: int = 0


class Refused(Exception):
    """There is no image for a request.

    Attributes:
        status: HTTP status.
        reason: A word, as the metrics count it.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class MediaEndpoint:
    """Answers requests for images.

    Args:
        places: Where samples lie.
        keys: That links are signed with.
        counts: Counts what is done.
        origins: Of pages that may read images with a script, such as ``https://labels.example``;
            ``*`` for every page: a link is all that is needed.
        limits: What is done at a time.
    """

    def __init__(
        self,
        places: Places,
        keys: Keys,
        counts: Counts,
        *,
        origins: frozenset[str] = frozenset(),
        limits: Limits | None = None,
    ) -> None:
        self._places = places
        self._keys = keys
        self._counts = counts
        self._origins = origins
        self._limits = limits or Limits()
        self._storage = Anywhere()
        self._threads = ThreadPoolExecutor(self._limits.workers, thread_name_prefix="media")
        self._waiting = 0
        self._held = 0

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        cors = self._cors(headers)
        if scope["method"] == "OPTIONS":
            await _answer(send, 204, b"", *cors, *_PREFLIGHT)
        elif scope["method"] not in ("GET", "HEAD"):
            self._counts.add("method")
            allowed = (b"allow", b"GET, HEAD, OPTIONS")
            await _answer(send, 405, b"method\n", _PLAIN, allowed)
        elif scope["path"] in _STATUS:
            await self._status(_STATUS[scope["path"]], send)
        else:
            await self._image(scope, headers, cors, send)

    async def _image(
        self,
        scope: Scope,
        headers: dict[bytes, str],
        cors: tuple[tuple[bytes, bytes], ...],
        send: Send,
    ) -> None:
        began = time.perf_counter()
        try:
            sample = self._permitted(scope)
            shown, tag = await self._load(sample, headers)
            part = None if shown is None else _part(headers, tag, shown)
        except Exception as error:
            refused = _refusal(error)
            self._counts.add(refused.reason)
            more = ((b"retry-after", b"1"),) if refused.status == 503 else ()
            said = refused.reason.encode() + b"\n"
            await _answer(send, refused.status, said, _PLAIN, *cors, *more, *_SAFE)
            return
        self._counts.seconds.observe(time.perf_counter() - began)
        cache = f"private, max-age={_CACHE_SECONDS}".encode()
        given = [*cors, *_SAFE, (b"etag", tag.encode()), (b"cache-control", cache)]
        if shown is None:
            self._counts.add("unchanged")
            await _answer(send, 304, b"", *given)
            return
        if shown.note:
            given.append((b"x-visionloop-shown", shown.note.encode("ascii", "replace")))
        given += [
            (b"content-type", shown.content_type.encode()),
            (b"content-disposition", b"inline"),
            (b"accept-ranges", b"bytes"),
        ]
        start, end = part or (0, len(shown.data))
        if part:
            span = f"bytes {start}-{end - 1}/{len(shown.data)}"
            given.append((b"content-range", span.encode()))
        self._counts.add("partial" if part else "shown")
        body = memoryview(shown.data)[start:end]
        await self._send(send, 206 if part else 200, given, body, scope["method"] == "HEAD")

    def _permitted(self, scope: Scope) -> str:
        """Return the sample that a request may see."""
        sample = sample_of(scope["path"])
        if not sample:
            raise Refused(404, "no_image")
        query = scope["query_string"].decode("latin-1")
        if why := self._keys.refusal(sample, query, time.time()):
            raise Refused(403, why)
        return sample

    async def _load(self, sample: str, headers: dict[bytes, str]) -> tuple[Shown | None, str]:
        """Return an image and its tag; None where the browser has the image already."""
        limits = self._limits
        if self._waiting >= limits.waiting or self._held > limits.held_bytes:
            raise Refused(503, "busy")
        tag = f'"{sample}-{limits.max_side}"' if limits.max_side else f'"{sample}"'
        known = {one.strip().removeprefix("W/") for one in _listed(headers, b"if-none-match")}
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            if known & {tag, "*"}:
                await loop.run_in_executor(self._threads, self._find, sample)
                return None, tag
            shown = await loop.run_in_executor(self._threads, self._read, sample)
        finally:
            self._waiting -= 1
        if shown.note:
            self._counts.remade.inc()
        return shown, tag

    def _find(self, sample: str) -> str:
        try:
            place = self._places.find(sample)
        except VisionloopError as error:
            log(f"media: {error}")
            raise Refused(503, "no_lake") from None
        if place is None:
            raise Refused(404, "unknown")
        return place

    def _read(self, sample: str) -> Shown:
        place = self._find(sample)
        try:
            data = self._storage.read(place)
        except StorageError as error:
            raise self._unread(place, error) from None
        if not is_sample(sample, data):
            raise Refused(410, "changed")
        try:
            return show(data, max_side=self._limits.max_side)
        except UnreadableMedia as error:
            log(f"media: {place} cannot be shown: {error}")
            raise Refused(502, "unreadable") from None

    def _unread(self, place: str, error: StorageError) -> Refused:
        try:
            there = self._storage.exists(place)
        except VisionloopError:
            there = True
        if not there:
            return Refused(410, "gone")
        log(f"media: {error}")
        return Refused(502, "unreadable")

    async def _send(
        self,
        send: Send,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: memoryview,
        head: bool,
    ) -> None:
        """Send an image piece by piece, and hold no more of it than its client takes."""
        size = len(body)
        headers.append((b"content-length", b"%d" % size))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if head:
            await send({"type": "http.response.body", "body": b""})
            return
        self._held += size
        self._counts.held.set(self._held)
        try:
            for start in range(0, max(size, 1), _PIECE):
                piece = bytes(body[start : start + _PIECE])
                more = start + _PIECE < size
                message = {"type": "http.response.body", "body": piece, "more_body": more}
                async with asyncio.timeout(_PIECE_SECONDS):
                    await send(message)
                self._counts.bytes.inc(len(piece))
        finally:
            self._held -= size
            self._counts.held.set(self._held)

    async def _status(self, what: str, send: Send) -> None:
        if what == "metrics":
            kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            await _answer(send, 200, self._counts.text(), kind)
            return
        status, body = 200, b"alive\n"
        if what == "ready":
            # Not by the threads that read images: those may all be busy with large ones.
            status, body = await asyncio.to_thread(self._ready)
        await _answer(send, status, body, _PLAIN)

    def _ready(self) -> tuple[int, bytes]:
        try:
            there = self._places.loops()
        except VisionloopError as error:
            log(f"media: {error}")
            return 503, b"the lake does not answer\n"
        return (200, b"ready\n") if there else (503, b"the lake is not there yet\n")

    def _cors(self, headers: dict[bytes, str]) -> tuple[tuple[bytes, bytes], ...]:
        origin = headers.get(b"origin", "")
        vary = (b"vary", b"Origin")
        if not origin or not self._origins & {origin, "*"}:
            return (vary,)
        exposed = b"Content-Length, Content-Range, ETag, X-Visionloop-Shown"
        return (
            vary,
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", exposed),
        )


_STATUS = {
    "/": "alive", "/healthz": "alive", "/livez": "alive", "/readyz": "ready", "/ready": "ready",
    "/metrics": "metrics",
}  # fmt: skip
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, HEAD"),
    (b"access-control-allow-headers", b"Range, If-None-Match, If-Range"),
    (b"access-control-max-age", b"86400"),
)


def _part(headers: dict[bytes, str], tag: str, shown: Shown) -> tuple[int, int] | None:
    if headers.get(b"if-range", tag).strip() != tag:
        return None
    try:
        return range_of(headers.get(b"range", ""), len(shown.data))
    except Unsatisfiable:
        raise Refused(416, "range") from None


def _refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    logging.getLogger(__name__).error("an image could not be shown", exc_info=error)
    return Refused(500, "internal")


def _listed(headers: dict[bytes, str], name: bytes) -> list[str]:
    return headers.get(name, "").split(",") if name in headers else []


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    given = [*headers]
    if status not in (204, 304):
        given.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})
