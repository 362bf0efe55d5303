"""What `visionloop collect --keep hashes` keeps of an event, made beside the collector's process.

To read a request takes what its sender likes: seconds for a compression bomb, and the interpreter's
lock with it. So a process of its own reads: the collector goes on to acknowledge meanwhile. It
takes closed segments out of the spool (`visionloop.serving.raw_spool`), appends to
``*.events.jsonl``, then deletes what it took. It ends when its standard input does, that is also
when the collector was killed, after having reduced what is there.

What it writes says the same to a harvest as the body would, one line an event: a delivery in
structured mode, and a batch, is taken apart (`visionloop.serving.event_modes`). Of a response the
body is kept. Of a request its hashes are, and of whatever is neither, which no harvest can use, the
headers and the body's hash: what it holds is not known, and may be pixels.

Where pixels are kept of a share of the requests, or redacted, this process does that, too
(`visionloop.serving.pixels`).

Killed between the appending and the deleting, the next one appends the same lines again, and so it
does where the disk was full before all of many lines were written; the harvest knows events by what
they say, and counts such lines as repeated.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from visionloop.progress import log
from visionloop.serving import raw_spool
from visionloop.serving.event_modes import (
    as_logged,
    content_type,
    is_structured,
    restored,
    taken_apart,
)
from visionloop.serving.events import STRUCTURED_INVALID, STRUCTURED_UNREAD, TYPES
from visionloop.serving.pixels import Pixels, limited
from visionloop.serving.requests import Request, decode_request
from visionloop.serving.segment_writer import SegmentWriter

_POLL_SECONDS = 0.2
# To read one event may take so long; it holds the others up meanwhile.
_READ_SECONDS = 30.0
# Lines of a segment are written at once, unless they are more: a batch of small events grows.
_WRITE_BYTES = 64 * 1024 * 1024
# To end: what is there is reduced, then carried away. More is left to the next start.
_REDUCE_SECONDS = 10.0
_UPLOAD_SECONDS = 50.0


@dataclass(frozen=True)
class Plan:
    """What a reducer does.

    Attributes:
        raw: Folder that it takes segments from.
        folder: Folder that it writes segments to.
        upload: Where these go to from there; empty where they stay.
        max_bytes: A segment of this size is closed.
        max_seconds: A segment of this age is closed.
        durable: Wait for fdatasync(2) before what was taken is deleted.
        keep_rate: Share of the requests whose pixels are kept.
        redact: ``module:function`` that their images go through; empty: none.
        counts: File descriptor that gets what became of pixels, a JSON object a line.
    """

    raw: str
    folder: str
    upload: str = ""
    max_bytes: int = 64 * 1024 * 1024
    max_seconds: float = 300.0
    durable: bool = False
    keep_rate: float = 0.0
    redact: str = ""
    counts: int = -1

    @property
    def stop_seconds(self) -> float:
        """Seconds that the process may take to end, after which it is killed."""
        return _REDUCE_SECONDS + (_UPLOAD_SECONDS if self.upload else 0.0)


class Reducer:
    """Runs the process from the collector's side, and starts it again where it died.

    Args:
        plan: What it does.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._closing = False
        self._counts, self._counted = os.pipe()
        os.set_blocking(self._counts, False)
        self._unread = b""
        self.pixels: Counter[str] = Counter()
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch, name="reducer", daemon=True)
        self._thread.start()

    def notify(self, _: Path) -> None:
        """Say that a segment was closed."""
        with contextlib.suppress(OSError, ValueError):  # it is busy, or being started again
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), b"\n")

    def close(self) -> None:
        """Let it reduce what is there, and end; what takes too long is left to the next start."""
        self._closing = True
        self._thread.join()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(self._plan.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._read_counts()
        os.close(self._counts)
        os.close(self._counted)

    def _read_counts(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._counts, 65536):
                self._unread += part
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            self.pixels.update(json.loads(line))

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "visionloop.serving.reducing"]
        plan = replace(self._plan, counts=self._counted)
        process = subprocess.Popen(
            [*command, json.dumps(asdict(plan))],
            stdin=subprocess.PIPE, bufsize=0, pass_fds=(self._counted,),
        )  # fmt: skip
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _watch(self) -> None:
        while not self._closing:
            time.sleep(_POLL_SECONDS)
            self._read_counts()
            if self._process.poll() is not None and not self._closing:
                log(f"collect: the reducer ended with status {self._process.returncode}; restarted")
                assert self._process.stdin is not None
                self._process.stdin.close()
                self._process = self._start()


def reduced(
    record: dict[str, Any], body: bytes, pixels: Pixels, *, hopeless: bool = False
) -> Iterator[bytes]:
    """Yield the lines that stand for a delivery, one an event.

    Args:
        record: Time and headers, or what was refused.
        body: The body; a response is kept whole, of a request its hashes.
        pixels: Decides whether more of a request is kept.
        hopeless: Do not decode what was sent.
    """
    if "headers" not in record:
        yield _line(record)
        return
    headers = restored(record["headers"])
    if not is_structured(headers):
        yield _line(_kept(record, headers, body, pixels, hopeless))
        return
    found, problem = _taken_apart(headers, body, hopeless)
    for member, message in enumerate(found):
        if message is None:
            yield _line({**record, "body_sha256": _sha256(body), "problem": problem})
        else:
            attributes, data = message
            one = {**record, "headers": as_logged(attributes), "member": member}
            yield _line(_kept(one, attributes, data, pixels, hopeless=False))


def _kept(
    record: dict[str, Any], headers: dict[str, str], body: bytes, pixels: Pixels, hopeless: bool
) -> dict[str, Any]:
    kind = TYPES.get(headers.get("ce-type", ""))
    if kind == "response":
        record["body_b64"] = base64.b64encode(body).decode("ascii")
    else:
        record["body_sha256"] = _sha256(body)
    if kind == "request":
        record["request"] = asdict(_decoded(body, content_type(headers), hopeless))
        if not hopeless:
            pixels.keep(record, body, content_type(headers))
    return record


def _line(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _decoded(body: bytes, kind: str, hopeless: bool) -> Request:
    if hopeless:
        return Request(problem="request_decoder_failed")
    try:
        with limited(_READ_SECONDS):
            return decode_request(body, kind)
    except Exception:  # a body that a library trips over must not stop the other events
        return Request(problem="request_decoder_failed")


def _taken_apart(
    headers: dict[str, str], body: bytes, hopeless: bool
) -> tuple[list[tuple[dict[str, str], bytes] | None], str]:
    """Return the events of a structured delivery, and why what is no event among them is none."""
    if hopeless:
        return [None], STRUCTURED_UNREAD
    try:
        with limited(_READ_SECONDS):
            return list(taken_apart(headers, body)), STRUCTURED_INVALID
    except Exception:  # as above
        return [None], STRUCTURED_UNREAD


def reduce_folder(raw: Path, writer: SegmentWriter, pixels: Pixels) -> bool:
    """Reduce the closed segments of a spool.

    Args:
        raw: The spool.
        writer: Gets the lines.
        pixels: Decides on the pixels of requests.

    Returns:
        Whether all of what was reduced could be written.
    """
    for path in raw_spool.segments(raw):
        try:
            if not _reduce_segment(path, writer, pixels):
                return False
        except OSError as error:  # the others need not wait for it
            log(f"collect: {path.name} cannot be reduced: {error}")
    return True


def _reduce_segment(path: Path, writer: SegmentWriter, pixels: Pixels) -> bool:
    with raw_spool.claim(path) as held:
        if held is None:
            return True
        if not all(_written(writer, lines) for lines in _parts(held, pixels)):
            held.path.rename(path)  # the disk is full: no attempt on the event's account
            return False
        held.path.unlink()
        return True


def _parts(held: raw_spool.Claim, pixels: Pixels) -> Iterator[list[bytes]]:
    """Yield the lines of a segment, as many together as are written at once."""
    lines: list[bytes] = []
    size = 0
    for head, body in raw_spool.unpack(held.data):
        for line in reduced(head, body, pixels, hopeless=held.hopeless):
            lines.append(line)
            size += len(line)
            if size >= _WRITE_BYTES:
                yield lines
                lines, size = [], 0
    if lines:
        yield lines


def _written(writer: SegmentWriter, lines: list[bytes]) -> bool:
    safe = threading.Event()
    results: list[bool] = []

    def done(ok: bool) -> None:
        results.append(ok)
        safe.set()

    writer.write(lines, done)
    safe.wait()
    return results[0]


def main(plan: Plan) -> None:
    """Reduce until standard input ends."""
    # The collector is told to stop, and tells by closing the pipe, once its own segment is closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(10)  # to acknowledge comes first, where processors are few
    pixels = Pixels(plan.keep_rate, plan.redact)
    upload = None
    if plan.upload:
        from visionloop.serving.uploader import Uploader

        upload = Uploader(plan.upload, Path(plan.folder))
    writer = SegmentWriter(
        Path(plan.folder),
        max_bytes=plan.max_bytes,
        max_seconds=plan.max_seconds,
        durable=plan.durable,
        closed=upload.add if upload else None,
    )
    more = True
    while more:
        ready, _, _ = select.select([0], [], [], 1.0)
        if ready:
            more = bool(os.read(0, 65536))
        if not reduce_folder(Path(plan.raw), writer, pixels):
            log(f"collect: cannot write: {writer.written.error}")
            time.sleep(1.0 if more else 0.0)
        if pixels.counts and plan.counts >= 0:
            os.write(plan.counts, orjson.dumps(pixels.counts) + b"\n")
            pixels.counts.clear()
    writer.close()
    if upload:
        upload.close(seconds=_UPLOAD_SECONDS)


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
