"""`visionloop collect`: the HTTP sink that KServe's payload logger posts its events to.

The logger sends each event once, does not retry, and keeps what it cannot deliver in memory without
a bound. So the sink answers within milliseconds, always: an event is acknowledged (200) as soon as
it is on the disk, many with one sync, and when more comes in than can be written the sink says so
at once (503) instead of making the logger wait. Whatever was acknowledged survives a ``kill -9``
and a power cut, and is never dropped: where room runs out the newest events are refused
(`visionloop.serving.room`), and what was refused is counted for the harvest
(`visionloop.serving.refusals`).

Events are kept as they came, garbage included; to judge them is the harvest's work. One line each:
``{"received_at": …, "headers": {…}, "body_b64": …}``, headers in lower case with their bytes
decoded as Latin-1. Large events go to segments of their own, so that small ones need not wait until
the disk has them.

Bodies hold what production sent, and pixels may be personal data: ``keep="hashes"`` stores of a
request only what the harvest needs of it, the hashes of its images and tensors. Images that were
never ingested can then be counted and ranked, but not labelled. To find the hashes takes as long as
a sender likes, so it is not done here:

1. the event goes as it came into a private spool (``.raw``, 0700, files 0600), and is acknowledged;
2. a process beside this one (`visionloop.serving.reducing`) takes segments out of the spool within
   about half a second, appends the hashes to ``*.events.jsonl``, and deletes what it took.

The same process draws the share of the requests that keep their pixels, and redacts these, where
that is asked for (`visionloop.serving.pixels`). After a crash of either, pixels lie in the spool
until the reducer is done with them: it goes on where the collector was killed, the collector starts
it again where it died, and the next collector on the same folder finds what both left behind.

Paths: POST anywhere, but below ``/label-studio/``, where a labelling tool's webhook calls
(`visionloop.serving.label_webhook`); GET ``/healthz`` (alive), ``/readyz`` (takes events),
``/metrics``.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from visionloop import environment
from visionloop.errors import InputError
from visionloop.lake.storage import local_path, scheme_of
from visionloop.serving import raw_spool
from visionloop.serving.access import Access, Certificates
from visionloop.serving.collector_metrics import Parts
from visionloop.serving.event_sink import EventSink
from visionloop.serving.label_webhook import LabelWebhook
from visionloop.serving.pixels import redaction_of
from visionloop.serving.reducing import Plan, Reducer
from visionloop.serving.refusals import Refusals
from visionloop.serving.room import Limits, Room
from visionloop.serving.segment_writer import SUFFIX, SegmentWriter
from visionloop.serving.uploader import Uploader

_MEBIBYTE = 1024 * 1024
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Settings:
    """What a collector takes, keeps and refuses.

    Attributes:
        keep: ``bodies``, or only the ``hashes`` of what requests carried.
        keep_rate: With ``bodies``, the share of the requests that keep theirs; of the others their
            hashes are kept.
        redact: With ``bodies``, ``module:function`` that each image goes through before it is kept;
            what is no image is then not kept.
        durable: Acknowledge after fdatasync(2): survives a power cut too, at the disk's pace.
        token_file: File with the tokens of those who may post; empty: none is asked for.
        certificate: PEM file of our certificate; empty: no TLS.
        key: PEM file of its key; empty where the certificate's file holds it.
        client_authority: PEM file of the authority whose certificates may post.
        max_connections: Clients at once; more are refused with 503.
        max_body_bytes: A larger event is refused with 413.
        body_seconds: A body that takes longer to arrive is refused with 408.
        max_queued_bytes: While more than this arrives or waits to be written, events are refused
            with 503.
        max_spool_bytes: The same for what waits on the disk to be reduced or uploaded.
        min_free_bytes: The same while less than this is free on the disk.
        max_segment_bytes: A segment of this size is closed.
        max_segment_seconds: A segment of this age is closed.
    """

    keep: Literal["bodies", "hashes"] = "bodies"
    keep_rate: float = 1.0
    redact: str = ""
    durable: bool = True
    token_file: str = ""
    certificate: str = ""
    key: str = ""
    client_authority: str = ""
    max_connections: int = 1000
    max_body_bytes: int = 128 * _MEBIBYTE
    body_seconds: float = 30.0
    max_queued_bytes: int = 256 * _MEBIBYTE
    max_spool_bytes: int = 1024 * _MEBIBYTE
    min_free_bytes: int = 64 * _MEBIBYTE
    max_segment_bytes: int = 64 * _MEBIBYTE
    max_segment_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Check what cannot go together.

        Raises:
            InputError: A client's certificate is asked for without TLS.
        """
        if self.client_authority and not self.certificate:
            raise InputError(
                "a client's certificate can be asked for over TLS only",
                where="client_authority",
                remedy="Name a certificate of the collector, too",
            )

    @property
    def reduces(self) -> bool:
        """Whether less is kept than came."""
        return self.keep == "hashes" or self.keep_rate < 1 or bool(self.redact)


def run_collector(
    events: str,
    *,
    host: str = "0.0.0.0",
    port: int = 8090,
    port_file: str = "",
    spool: str = "",
    label_events: str = "",
    **settings: Any,
) -> None:
    """Collect events until SIGTERM or SIGINT.

    Args:
        events: Folder of the segments, by default a lake's ``events``: a path, ``file://…``, or
            ``gs://…``, where closed segments are uploaded to.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        port_file: File that gets ``{"http": port, "pid": …}`` as soon as the port is bound.
        spool: Local folder of the segments on their way to ``gs://``; by default one in the
            temporary folder, which a pod should replace by a volume that outlives it. With
            ``hashes`` also the folder of what is not reduced yet, by default ``.raw`` beside the
            segments.
        label_events: Folder of the hints that a labelling tool's webhook leaves; empty: there is no
            such route. What callers have to show is `visionloop.environment.webhook_secret`.
        settings: Fields of `Settings`.

    Raises:
        InputError: The URI has a scheme that is not supported, the port is taken, or a file that
            is named cannot be used.
        VisionloopError: The folder cannot be written to.
    """
    from visionloop.serving.collector_server import serve
    from visionloop.serving.http_limits import protocol_of
    from visionloop.serving.listening import announce, bind

    chosen = Settings(**settings)
    certificates = None
    if chosen.certificate:
        certificates = Certificates(chosen.certificate, chosen.key, chosen.client_authority)
    access = Access(chosen.token_file, by_certificate=bool(chosen.client_authority))
    if chosen.redact:
        redaction_of(chosen.redact)  # said here, and not by a process that dies of it
    webhook = LabelWebhook(label_events, environment.webhook_secret()) if label_events else None
    listener = bind(host, port)
    # The writer's thread comes back from a sync: it shall not wait 5 ms for the interpreter.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with contextlib.ExitStack() as stack:
        if webhook:
            stack.callback(webhook.close)
        parts = replace(_start(events, spool, chosen, stack), webhook=webhook)
        app = EventSink(
            parts,
            access,
            raw=chosen.reduces,
            max_body_bytes=chosen.max_body_bytes,
            body_seconds=chosen.body_seconds,
        )
        protocol = protocol_of(
            parts.refusals.add,
            max_connections=chosen.max_connections,
            body_seconds=chosen.body_seconds,
        )
        ports = {"http": listener.getsockname()[1]}
        serve(
            app,
            listener,
            protocol,
            certificates,
            ready=lambda: announce("collect", ports, port_file=port_file),
            refused=parts.refusals.add,
            max_connections=chosen.max_connections,
        )


def _start(events: str, spool: str, chosen: Settings, stack: contextlib.ExitStack) -> Parts:
    """Start what writes, reduces and uploads; the stack ends it in the opposite order."""
    local = scheme_of(events) == "file"
    if local:
        folder = local_path(events)
    else:
        name = hashlib.sha256(events.encode()).hexdigest()[:16]
        folder = Path(spool or Path(tempfile.gettempdir()) / f"visionloop-spool-{name}")
    reducer = upload = raw = None
    if chosen.reduces:
        private = Path(spool or folder) / raw_spool.FOLDER
        raw = raw_spool.make_private(private, durable=chosen.durable)
        reducer = Reducer(_plan(chosen, raw, folder, "" if local else events))
        stack.callback(reducer.close)
    elif not local:
        upload = Uploader(events, folder)
        stack.callback(upload.close)
    writers = tuple(
        _writer(chosen, raw, reducer.notify)
        if raw and reducer
        else SegmentWriter(
            folder,
            max_bytes=chosen.max_segment_bytes,
            max_seconds=chosen.max_segment_seconds,
            durable=chosen.durable,
            closed=upload.add if upload else None,
        )
        for _ in ("small", "large")
    )
    for writer in writers:
        stack.callback(writer.close)
    refusals = Refusals(lambda said, done: writers[0].write(_line(said, bool(raw)), done))
    stack.callback(refusals.close)

    def waiting() -> int:
        size = raw_spool.size_of(raw) if raw else 0
        return size if local else size + raw_spool.size_under(folder, f"*{SUFFIX}")

    limits = Limits(chosen.max_queued_bytes, chosen.max_spool_bytes, chosen.min_free_bytes)
    room = Room(limits, raw or folder, waiting)
    stack.callback(room.close)
    return Parts(
        writers,
        room,
        refusals,
        pixels=reducer.pixels if reducer else None,
        waiting_uploads=(lambda: upload.waiting) if upload else None,
    )


def _plan(chosen: Settings, raw: Path, folder: Path, upload: str) -> Plan:
    return Plan(
        raw=str(raw),
        folder=str(folder),
        upload=upload,
        max_bytes=chosen.max_segment_bytes,
        max_seconds=chosen.max_segment_seconds,
        durable=chosen.durable,
        keep_rate=0.0 if chosen.keep == "hashes" else chosen.keep_rate,
        redact=chosen.redact,
    )


def _writer(chosen: Settings, raw: Path, closed: Callable[[Path], None]) -> SegmentWriter:
    return SegmentWriter(
        raw,
        max_bytes=min(chosen.max_segment_bytes, raw_spool.BYTES),
        max_seconds=min(chosen.max_segment_seconds, raw_spool.SECONDS),
        durable=chosen.durable,
        closed=closed,
        suffix=raw_spool.SUFFIX,
        mode=raw_spool.MODE,
    )


def _line(said: dict[str, Any], raw: bool) -> list[bytes]:
    import orjson

    return raw_spool.pack(said, []) if raw else [orjson.dumps(said), b"\n"]
