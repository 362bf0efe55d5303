"""Sends events to web addresses, signed, in bounded time.

Signatures follow Standard Webhooks (https://www.standardwebhooks.com): the header
``webhook-signature`` is ``v1,`` and the base64 of HMAC-SHA256 over ``<webhook-id>.
<webhook-timestamp>.<body>`` (one line), with the receiver's key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from visionloop import __version__, environment
from visionloop.monitoring.notifying import outbox
from visionloop.monitoring.notifying.events import Event
from visionloop.progress import log
from visionloop.redaction import redacted

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.monitoring.notify_config import NotifyConfig, Receiver

# Three tries, half a second and one second apart.
_TRIES = 3
_PAUSE = 0.5
# What may be well a moment later, and what this event will never be taken with.
_LATER = (408, 425, 429, 500, 502, 503, 504)
_NEVER = (400, 413, 415, 422)
# No stage sends longer than this to one receiver: the next stage goes on.
SECONDS = 30.0
# So much of an answer is read.
_SAID_BYTES = 200


@dataclass(frozen=True)
class Answer:
    """What became of an event at its receiver.

    Attributes:
        state: ``taken``, ``later`` (try again with the next stage) or ``refused`` (for good).
        told: What the receiver said, or why it was not reached; fit to be told.
        seconds: How long it took.
    """

    state: Literal["taken", "later", "refused"]
    told: str
    seconds: float


@dataclass(frozen=True)
class Sent:
    """What became of the outbox.

    Attributes:
        taken: Events that were taken.
        left: Events that still wait.
        refused: Events that were refused for good, and removed.
        expired: Events that waited too long, and were removed.
    """

    taken: int = 0
    left: int = 0
    refused: int = 0
    expired: int = 0


def address(receiver: Receiver) -> str:
    """Return where a receiver is told, empty where nobody said."""
    return receiver.url or environment.notify_url(receiver.name)


def send(
    receiver: Receiver,
    event: Event,
    *,
    timeout: float,
    tries: int = _TRIES,
    limit: float = SECONDS,
) -> Answer:
    """Send an event, with up to three tries.

    Args:
        receiver: Whom.
        event: What.
        timeout: Seconds for a connection, and for each part of its answer.
        tries: At most so many.
        limit: Seconds for all of it: also where a name does not resolve, or an answer trickles.
    """
    began = time.monotonic()
    told: list[Answer] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            told.append(_send(receiver, event, timeout, tries))
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=work, name="notifies", daemon=True)
    worker.start()
    worker.join(limit)
    if failed:
        raise failed[0]
    if told:
        return told[0]
    return Answer("later", f"no whole answer in {limit:.0f} s", time.monotonic() - began)


def _send(receiver: Receiver, event: Event, timeout: float, tries: int) -> Answer:
    import urllib3

    url, began = address(receiver), time.monotonic()
    if not url:
        name = receiver.name.upper().replace("-", "_")
        return Answer("later", f"it has no address: set VISIONLOOP_NOTIFY_URL_{name}", 0.0)
    kind, body = event.body(receiver.format)
    retries = urllib3.Retry(
        total=tries - 1,
        redirect=0,
        backoff_factor=_PAUSE,
        status_forcelist=_LATER,
        allowed_methods=None,
        raise_on_status=False,
        raise_on_redirect=False,
        respect_retry_after_header=False,
    )
    waits = urllib3.Timeout(connect=timeout, read=timeout)
    try:
        with urllib3.PoolManager(retries=retries, timeout=waits) as pool:
            reply = pool.request(
                "POST",
                url,
                body=body,
                headers=headers(receiver, event.id, body, kind),
                redirect=False,
                preload_content=False,
            )
            taken = 200 <= reply.status < 300
            start = b"" if taken else reply.read(_SAID_BYTES)
            reply.close()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        return Answer("later", _reason(error), time.monotonic() - began)
    seconds = time.monotonic() - began
    told = f"HTTP {reply.status} {reply.reason or ''}".strip()
    if taken:
        return Answer("taken", told, seconds)
    said = redacted(start.decode("utf-8", "replace")).strip().replace("\n", " ")
    told += f": {said}" if said else ""
    return Answer("refused" if reply.status in _NEVER else "later", told, seconds)


def headers(receiver: Receiver, event_id: str, body: bytes, kind: str) -> dict[str, str]:
    """Return the headers of a request.

    Args:
        receiver: Whom it is for.
        event_id: The event's id, by which a receiver knows what it had already.
        body: What is sent.
        kind: Its content type.
    """
    stamp = str(int(time.time()))
    found = {
        "content-type": kind,
        "user-agent": f"visionloop/{__version__}",
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
    }
    if token := environment.notify_token(receiver.name):
        found["authorization"] = f"Bearer {token}"
    if secret := environment.notify_secret(receiver.name):
        found["webhook-signature"] = signature(secret, event_id, stamp, body)
    return found


def signature(secret: str, event_id: str, stamp: str, body: bytes) -> str:
    """Return the signature of a request.

    Args:
        secret: The receiver's key: ``whsec_`` and base64, or any other text as it is.
        event_id: Header ``webhook-id``.
        stamp: Header ``webhook-timestamp``, seconds since 1970.
        body: What is sent.
    """
    key = secret.encode()
    if secret.startswith("whsec_"):
        key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{event_id}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def flush(lake: Lake, config: NotifyConfig) -> Sent:
    """Send what waits in the outbox, of each receiver the oldest first.

    Where a receiver takes none, what comes after waits behind it. Each event that does not arrive
    is a line of the log.

    Args:
        lake: The lake.
        config: The receivers.

    Raises:
        StorageError: The outbox cannot be read.
    """
    receivers = {one.name: one for one in config.to}
    now, spent = time.time(), dict.fromkeys(receivers, 0.0)
    taken = left = refused = expired = 0
    down: set[str] = set()
    for one in list(outbox.waiting(lake)):
        receiver = receivers.get(one.receiver)
        if receiver is None or now - one.since > config.keep_days * 86400:
            why = "nobody of that name is told" if receiver is None else "it waited too long"
            log(f"notify: an event for {one.receiver} is dropped: {why}", level="warning")
            lake.storage.delete(one.uri)
            expired += 1
            continue
        # One that is slow takes no time from the others: they would never be told.
        limit = SECONDS - spent[one.receiver]
        if one.receiver in down or limit <= 0:
            left += 1
            continue
        event = outbox.read(lake, one)
        if event is None:
            continue
        answer = send(receiver, event, timeout=config.timeout_seconds, limit=limit)
        spent[one.receiver] += answer.seconds
        if answer.state == "later":
            down.add(one.receiver)
            left += 1
            told = f"{one.receiver} was not reached, the next stage tries again: {answer.told}"
            log(f"notify: {told}", level="warning")
            continue
        if answer.state == "refused":
            told = f"{one.receiver} refuses an event, it is dropped: {answer.told}"
            log(f"notify: {told}", level="warning")
        lake.storage.delete(one.uri)
        taken += answer.state == "taken"
        refused += answer.state == "refused"
    return Sent(taken, left, refused, expired)


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError) and "header" in str(error):
        return "its token cannot stand in a header: it has a line break, or is not ASCII"
    reason = getattr(error, "reason", None) or error
    text = str(reason)
    # urllib3 puts an object's address before its words.
    return redacted(text.rpartition(">: ")[2] or type(reason).__name__)
