"""Emits what KServe's agent would log, where no agent runs.

The same two CloudEvents an inference, with the same headers and bodies: `ce-id` is the client's
``Ce-Id`` or a new UUID; both events carry the request's content type; only a reply with status 200
gives a response event. Unlike the agent it holds a bounded number of events, tries again when the
sink is busy, and counts what it had to drop. A name and password in the sink's address are sent as
Basic authentication, as the agent, a Go program, does.
"""

from __future__ import annotations

import base64
import http.client
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from visionloop.errors import InputError
from visionloop.serving.events import MODEL_ANNOTATION

REQUEST, RESPONSE = "request", "response"

_TYPE = "org.kubeflow.serving.inference."
_ATTEMPTS = 6
_TIMEOUT = 5.0
_DOWN_SECONDS = 5.0


@dataclass(frozen=True)
class Origin:
    """Who sends the events.

    Attributes:
        service: Name of the InferenceService.
        namespace: Its namespace.
        endpoint: KServe's endpoint, often empty.
        source: The pod, or whatever names this process.
        component: KServe's component.
        metadata_headers: Headers of requests to put into `ce-metadata`, in canonical form
            (``X-Request-Id``), as the agent demands.
        annotations: Returns the annotations at the moment; the model's id is one of them.
    """

    service: str
    namespace: str = "default"
    endpoint: str = ""
    source: str = "http://localhost:9081/"
    component: str = "predictor"
    metadata_headers: tuple[str, ...] = ()
    annotations: Callable[[], Mapping[str, str]] = dict


@dataclass
class Sent:
    """What became of the events.

    Attributes:
        delivered: Acknowledged by the sink.
        dropped: Given up, by reason: ``queue_full``, ``sink_down``, ``sink_refused``, ``shutdown``,
            ``header_invalid``.
    """

    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Post:
    headers: dict[str, bytes]
    body: bytes = field(repr=False)


class EventSender:
    """Posts events to a sink from threads of its own.

    Args:
        url: Address of the sink.
        origin: What every event says of where it comes from.
        max_events: Events that may wait.
        max_bytes: Bytes that may wait.
        workers: Threads, each with one connection.
        log: Told when events are dropped.
    """

    def __init__(
        self,
        url: str,
        origin: Origin,
        *,
        max_events: int = 10_000,
        max_bytes: int = 256 * 1024 * 1024,
        workers: int = 2,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                "the address of the events' sink is no http:// URL",
                where=url,
                remedy="Give --events http://host:port, where `visionloop collect` listens",
            )
        self.sent = Sent()
        self._parts = parts
        self._authorization = _basic(parts.username, parts.password)
        self._origin = origin
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._log = log
        self._logged_at = 0.0
        self._queue: queue.SimpleQueue[_Post | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._waiting_bytes = 0
        self._deadline: float | None = None
        self._down_until = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"events-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Events that wait to be sent."""
        return self._waiting

    def emit(
        self,
        kind: str,
        *,
        event_id: str,
        body: bytes,
        content_type: str,
        metadata: Mapping[str, list[str]],
    ) -> None:
        """Queue one event; drops it, counted, where too many wait. Never blocks.

        Args:
            kind: ``request`` or ``response``.
            event_id: Joins a request and its response.
            body: Bytes of the body.
            content_type: Of the body.
            metadata: Of the request: values by header name.
        """
        with self._lock:
            full = (
                self._waiting >= self._max_events
                or self._waiting_bytes + len(body) > self._max_bytes
            )
            if not full:
                self._waiting += 1
                self._waiting_bytes += len(body)
        if full:
            self._drop("queue_full")
            return
        self._queue.put(_Post(self._headers(kind, event_id, content_type, metadata), body))

    def close(self, *, seconds: float = 10.0) -> None:
        """Send what waits, and end within so many seconds; what is not sent then is dropped."""
        self._deadline = time.monotonic() + seconds
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=max(0.0, self._deadline - time.monotonic()))
        with self._lock:
            dropped = sum(self.sent.dropped.values()) + self._waiting
        self._log(f"events: {self.sent.delivered} delivered, {dropped} dropped")

    def _headers(
        self, kind: str, event_id: str, content_type: str, metadata: Mapping[str, list[str]]
    ) -> dict[str, bytes]:
        now = now_rfc3339()
        origin = self._origin
        headers = {
            "ce-specversion": "1.0",
            "ce-id": event_id,
            "ce-type": _TYPE + kind,
            "ce-source": origin.source,
            "ce-component": origin.component,
            "ce-endpoint": origin.endpoint,
            "ce-inferenceservicename": origin.service,
            "ce-namespace": origin.namespace,
            "ce-metadata": _go_json(metadata),
            "ce-time": now,
            "ce-recordedtime": now,
        }
        annotations = origin.annotations()
        if annotations:
            headers["ce-annotations"] = _go_json(annotations)
        if self._authorization:
            headers["authorization"] = self._authorization
        if content_type:
            headers["content-type"] = content_type
        # Not percent-encoded, as the CloudEvents SDK of the agent sends them.
        return {name: value.encode("utf-8", "replace") for name, value in headers.items()}

    def _work(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while (post := self._queue.get()) is not None:
            try:
                connection = self._deliver(post, connection)
            finally:
                with self._lock:
                    self._waiting -= 1
                    self._waiting_bytes -= len(post.body)
        if connection:
            connection.close()

    def _deliver(
        self, post: _Post, connection: http.client.HTTPConnection | None
    ) -> http.client.HTTPConnection | None:
        reason = "sink_down"
        # While the sink is down one try an event has to do: patience would only fill the queue.
        attempts = _ATTEMPTS if time.monotonic() > self._down_until else 1
        for attempt in range(attempts):
            if attempt > 1:
                time.sleep(0.1 * 2 ** (attempt - 2))
            if self._deadline is not None and time.monotonic() > self._deadline:
                reason = "shutdown"
                break
            try:
                connection = connection or self._connect()
                path = self._parts.path or "/"
                connection.request("POST", path, body=post.body, headers=post.headers)
                status = _status(connection)
            except ValueError:
                reason = "header_invalid"
                break
            except (OSError, http.client.HTTPException):
                # Also a connection that the sink closed while it was idle: hence one try at once.
                if connection:
                    connection.close()
                connection = None
                continue
            if status < 300:
                self._down_until = 0.0
                with self._lock:
                    self.sent.delivered += 1
                return connection
            reason = "sink_refused"
            if status < 500 and status != 429:
                break
        if reason == "sink_down":
            self._down_until = time.monotonic() + _DOWN_SECONDS
        self._drop(reason)
        return connection

    def _connect(self) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        return kind(self._parts.hostname or "", self._parts.port, timeout=_TIMEOUT)

    def _drop(self, reason: str) -> None:
        with self._lock:
            self.sent.dropped[reason] = self.sent.dropped.get(reason, 0) + 1
            now = time.monotonic()
            quiet = now - self._logged_at < 10
            if not quiet:
                self._logged_at = now
        if not quiet:
            self._log(f"events are dropped: {self.sent.dropped}")

    def metadata_of(self, headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        """Return the captured headers of a request."""
        wanted = {name.lower(): name for name in self._origin.metadata_headers}
        found: dict[str, list[str]] = {}
        for name, value in headers:
            if name.lower() in wanted:
                found.setdefault(wanted[name.lower()], []).append(value)
        return dict(sorted(found.items()))


def model_annotations(model_id: str) -> dict[str, str]:
    """Return the annotation that names a model, as a predictor's pod carries it."""
    return {MODEL_ANNOTATION: model_id} if model_id else {}


def new_id() -> str:
    """Return an event id for a request that brought none."""
    return str(uuid.uuid4())


def now_rfc3339() -> str:
    """Return the time with nanoseconds, without trailing zeros, as Go writes it."""
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f"{rest:09d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def _basic(name: str | None, password: str | None) -> str:
    if password is None:
        return ""
    held = f"{unquote(name or '')}:{unquote(password)}"
    return "Basic " + base64.b64encode(held.encode()).decode("ascii")


def _status(connection: http.client.HTTPConnection) -> int:
    reply = connection.getresponse()
    reply.read()
    return reply.status


def _go_json(value: Mapping[str, object]) -> str:
    """Return JSON as Go's encoder writes a map: keys sorted, no spaces, <, > and & escaped."""
    text = json.dumps(dict(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
