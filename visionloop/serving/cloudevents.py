"""Emits what KServe's agent would log, where no agent runs.

The same two CloudEvents an inference, with the same headers and bodies: `ce-id` is the client's
``Ce-Id`` or a new UUID; both events carry the request's content type; only a reply with status 200
gives a response event. Unlike the agent it holds a bounded number of events, keeps them while the
sink is away or busy, tries again, and counts what it had to drop. A name and password in the sink's
address are sent as Basic authentication, as the agent, a Go program, does.
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
# Of an event that the sink takes and then fails at: it may be the event's fault.
_ATTEMPTS = 6
_TIMEOUT = 5.0
# Between two tries at most, while the sink is away or busy.
_PAUSE = 1.0
# For a sink that is away nobody waits longer at the end.
_AWAY_AT_END = 2.0
_TOLD_EVERY = 60.0
_BUSY = frozenset({429, 503})


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
        dropped: Given up, by reason: ``queue_full`` (too many waited, for a sink that was away or
            slow), ``sink_failed`` (it broke each try off), ``sink_refused`` (it answered with an
            error), ``shutdown`` (not sent in time at the end), ``header_invalid``.
    """

    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class _AwayError(Exception):
    """Nobody listens at the sink's address, or nobody who speaks TLS."""


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
        log: Told when events begin to wait or are dropped and why, each minute that this goes on,
            and when they are delivered again.
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
        self._logged_at: float | None = None
        self._trouble = ""
        self._told_dropped = False
        self._queue: queue.SimpleQueue[_Post | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._waiting_bytes = 0
        self._deadline: float | None = None
        self._ending = threading.Event()
        self._where = f"{parts.scheme}://{parts.hostname}" + (
            f":{parts.port}" if parts.port else ""
        )
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
        self._ending.set()
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
        attempts, pause = 0, 0.05
        while True:
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._drop("shutdown")
                return connection
            idle = connection is not None
            try:
                if connection is None:
                    connection = self._connect()
                path = self._parts.path or "/"
                connection.request("POST", path, body=post.body, headers=post.headers)
                status, said = _answer(connection)
            except _AwayError as error:
                connection = None
                self._tell(f"{self._where} cannot be reached ({error}): events wait for it")
                if self._deadline is not None:
                    self._deadline = min(self._deadline, time.monotonic() + _AWAY_AT_END)
            except ValueError:
                self._drop("header_invalid")
                return connection
            except (OSError, http.client.HTTPException) as error:
                if connection:
                    connection.close()
                connection = None
                if idle:
                    continue  # the sink closes connections that were idle
                attempts += 1
                self._tell(f"{self._where} breaks off ({str(error) or type(error).__name__})")
                if attempts == _ATTEMPTS:
                    self._drop("sink_failed")
                    return None
            else:
                if status < 300:
                    self._delivered()
                    return connection
                answer = f"{self._where} answers {status} {said}".rstrip()
                if status in _BUSY:
                    self._tell(f"{answer}: events wait for it")
                else:
                    attempts += 1
                    if status < 500 or attempts == _ATTEMPTS:
                        token = "; the address holds its token: http://logger:TOKEN@host:port"
                        self._tell(answer + token * (status in (401, 403)))
                        self._drop("sink_refused")
                        return connection
            if self._ending.wait(pause):
                time.sleep(0.05)  # what waits is tried until the deadline
            pause = min(2 * pause, _PAUSE)

    def _connect(self) -> http.client.HTTPConnection:
        """Return a connection.

        Raises:
            _AwayError: There is nobody.
        """
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=_TIMEOUT)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise _AwayError(error.strerror or str(error)) from None
        return connection

    def _delivered(self) -> None:
        with self._lock:
            self.sent.delivered += 1
            was, self._trouble = self._trouble, ""
            if was:
                self._logged_at, self._told_dropped = None, False
            dropped = dict(self.sent.dropped)
        if was:
            self._log(f"events reach {self._where} again; dropped so far: {dropped or 'none'}")

    def _drop(self, reason: str) -> None:
        with self._lock:
            self.sent.dropped[reason] = self.sent.dropped.get(reason, 0) + 1
            dropped = dict(self.sent.dropped)
        self._tell(self._trouble or "events are dropped", f"; dropped so far: {dropped}")

    def _tell(self, trouble: str, dropped: str = "") -> None:
        """Log a trouble when it begins, when something is dropped first, and each minute."""
        now = time.monotonic()
        with self._lock:
            first = (
                self._logged_at is None
                or now - self._logged_at >= _TOLD_EVERY
                or bool(dropped) > self._told_dropped
            )
            self._trouble = trouble
            if first:
                self._logged_at, self._told_dropped = now, bool(dropped)
        if first:
            self._log(trouble + dropped)

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


def _answer(connection: http.client.HTTPConnection) -> tuple[int, str]:
    """Return the status of an answer, and the beginning of what it says."""
    reply = connection.getresponse()
    said = reply.read().decode("utf-8", "replace").strip().partition("\n")[0]
    return reply.status, said[:100] if said.isprintable() else ""


def _go_json(value: Mapping[str, object]) -> str:
    """Return JSON as Go's encoder writes a map: keys sorted, no spaces, <, > and & escaped."""
    text = json.dumps(dict(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
