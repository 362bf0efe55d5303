"""Which requests keep their pixels, and what is made of the pixels before they are kept.

A request is kept by a draw at the rate that was asked for. The draw is made of its ``ce-id`` and
its body, so every replica, and an event that is delivered twice, draws alike; each line tells the
rate, so that estimates on what was kept can be weighted by its inverse.

With a redaction each image goes through a function of the user's before it touches a segment:
``module:function(image: bytes, content_type: str) -> bytes | None``. What it returns is kept in the
image's place, None keeps nothing of it. Where it raises, returns something else or takes longer
than ten seconds, nothing of that image is kept, and that is counted. What is no encoded image (a
tensor) cannot be redacted, and is not kept.

An image that was changed has another hash: its line names the hash of what was kept, so that a
sample made of it is the one that its confidences name.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from visionloop.errors import InputError
from visionloop.media import sniff
from visionloop.progress import log
from visionloop.serving.requests import request_images

# What it says it returns; what a user's function returns is looked at.
Redaction = Callable[[bytes, str], object]

_SECONDS = 10.0
# What becomes of a request's pixels; the counts of the metric are by these.
FATES = ("kept", "not_sampled", "redacted", "withheld", "redaction_failed", "no_image")


def redaction_of(path: str) -> Redaction:
    """Import a redaction; the working directory is looked into, too.

    Args:
        path: ``module:function``.

    Raises:
        InputError: There is no such function.
    """
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        raise InputError(
            f"the redaction cannot be imported: {type(error).__name__}: {error}",
            where=path,
            remedy="Write module:function, of a module that this Python finds",
        ) from error
    if not callable(found):
        raise InputError("the redaction is no function", where=path)
    return found  # type: ignore[no-any-return]


class Pixels:
    """Decides on the pixels of requests, and counts what became of them.

    Args:
        rate: Share of the requests that keep theirs, from 0 to 1.
        redact: ``module:function``; empty: they are kept as they came.
    """

    def __init__(self, rate: float, redact: str = "") -> None:
        self._rate = rate
        self._redact = redaction_of(redact) if redact else None
        self._told = False
        self.counts: Counter[str] = Counter()

    def keep(self, record: dict[str, Any], body: bytes, content_type: str) -> None:
        """Add to a request's line what is kept of its pixels.

        Args:
            record: Has ``headers``, ``body_sha256`` and ``request``; gets ``keep_rate``, and either
                ``body_b64`` or ``images_b64``, one element a row.
            body: The request's body.
            content_type: Its content type.
        """
        if not self._rate:
            return
        record["keep_rate"] = self._rate
        if not drawn(record["headers"].get("ce-id", ""), record["body_sha256"], self._rate):
            self.counts["not_sampled"] += 1
        elif self._redact is None:
            record["body_b64"] = base64.b64encode(body).decode("ascii")
            self.counts["kept"] += 1
        else:
            self._redacted(record, body, content_type, self._redact)

    def _redacted(
        self, record: dict[str, Any], body: bytes, content_type: str, redact: Redaction
    ) -> None:
        images, problem = request_images(body, content_type)
        kept: list[str | None] = []
        samples = list(record["request"]["samples"])
        for row, image in enumerate([] if problem else images):
            changed = self._changed(image, redact)
            kept.append(None if changed is None else base64.b64encode(changed).decode("ascii"))
            if changed is not None and row < len(samples):
                samples[row] = hashlib.sha256(changed).hexdigest()
        if problem:
            self.counts["no_image"] += 1
        record["request"]["samples"] = samples
        record["images_b64"] = kept

    def _changed(self, image: bytes | None, redact: Redaction) -> bytes | None:
        if image is None:
            self.counts["no_image"] += 1
            return None
        try:
            with limited(_SECONDS):
                changed = redact(image, f"image/{sniff.kind(image[:512])}")
        except Exception as error:  # whatever the user's function raises: nothing is kept
            if not self._told:
                self._told = True
                log(f"collect: the redaction failed: {type(error).__name__}: {error}")
            self.counts["redaction_failed"] += 1
            return None
        if changed is None:
            self.counts["withheld"] += 1
            return None
        if not isinstance(changed, bytes | bytearray | memoryview):
            self.counts["redaction_failed"] += 1
            return None
        self.counts["redacted"] += 1
        return bytes(changed)


def drawn(event_id: str, body_sha256: str, rate: float) -> bool:
    """Return whether a request is among those that keep their pixels.

    Args:
        event_id: Its ``ce-id``.
        body_sha256: SHA-256 of its body, in hexadecimal.
        rate: Share of the requests that are.
    """
    said = hashlib.sha256(f"pixels\0{event_id}\0{body_sha256}".encode("utf-8", "replace"))
    return int.from_bytes(said.digest()[:8], "big") < rate * 2**64


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise in the main thread after so long; code in C ends first.

    Raises:
        TimeoutError: It took longer.
    """

    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
