"""The lines of a container as it writes them, over connections that may break."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from visionloop.cluster.pods import container_states, failure_of
from visionloop.cluster.refusals import Refused, refusal
from visionloop.cluster.transport import Transport
from visionloop.cluster.watching import lines

# A container may be silent for as long as an epoch takes; the connection is then made again.
_SILENCE_SECONDS = 300.0


def follow(
    transport: Transport,
    path: str,
    states: Iterator[dict[str, Any] | None],
    *,
    container: str,
    timeout_s: float,
) -> Iterator[str]:
    """Yield the lines of a container from its start until it has ended.

    Args:
        transport: Sends the requests.
        path: Path of the pod.
        states: States of the pod, as `Cluster.watch` yields them.
        container: Name of the container; empty where the pod has one.
        timeout_s: Seconds after which the iterator ends in any case.

    Yields:
        Lines without their end. None comes twice: where a connection broke, lines with a time up to
        that of the last one are left out.
    """
    until = time.monotonic() + timeout_s
    if not _has_started(states, container):
        return
    last = ""
    failures = 0
    while (left := until - time.monotonic()) > 0:
        count = 0
        for stamp, line in _lines(transport, path, container, last, left):
            if stamp > last:
                last, count = stamp, count + 1
                yield line
        if _has_ended(transport, path, container):
            # What was written between the end of the stream and the end of the container.
            for stamp, line in _lines(transport, path, container, last, left, once=True):
                if stamp > last:
                    last = stamp
                    yield line
            return
        failures = 0 if count else failures + 1
        pause = transport.patience.pause_s(failures)
        time.sleep(max(0.0, min(pause, until - time.monotonic())))


def _has_started(states: Iterator[dict[str, Any] | None], container: str) -> bool:
    """Wait until the container runs or has run; False when it never will."""
    for pod in states:
        if pod is None:
            continue
        for name, state in container_states(pod):
            if (not container or name == container) and (
                "running" in state or "terminated" in state
            ):
                return True
        if failure_of(pod):
            return False
    return False


def _lines(
    transport: Transport, path: str, container: str, last: str, left: float, *, once: bool = False
) -> Iterator[tuple[str, str]]:
    import urllib3

    query = {"timestamps": "true"}
    query |= {} if once else {"follow": "true"}
    query |= {"container": container} if container else {}
    # The server takes whole seconds; what comes again is known by its stamp.
    query |= {"sinceTime": f"{last.partition('.')[0].rstrip('Z')}Z"} if last else {}
    try:
        answer = transport.open(
            "GET", f"{path}/log", query=query, timeout_s=max(1.0, min(left, _SILENCE_SECONDS))
        )
    except (urllib3.exceptions.HTTPError, OSError):
        return
    try:
        if answer.status >= 400:
            refused = refusal(answer.status, bytes(answer.data), method="GET", path=f"{path}/log")
            if answer.status == 429 or answer.status >= 500:
                return
            raise refused
        for line in lines(answer):
            stamp, _, text = line.decode(errors="replace").partition(" ")
            yield _sortable(stamp), text
    except (urllib3.exceptions.HTTPError, OSError):
        return
    finally:
        answer.close()


def _sortable(stamp: str) -> str:
    """A time whose fraction always has nine digits, so that text sorts as time does."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"


def _has_ended(transport: Transport, path: str, container: str) -> bool:
    try:
        pod = json.loads(transport.request("GET", path))
    except Refused as error:
        if error.status != 404:
            raise
        return True
    states = [state for name, state in container_states(pod) if not container or name == container]
    over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return over or (bool(states) and all("terminated" in state for state in states))
