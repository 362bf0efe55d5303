"""The collector's route for a labelling tool: ``POST /label-studio/<loop>``.

Label Studio calls when somebody has answered. It must show the secret, as ``Authorization: Bearer
SECRET`` or ``X-Visionloop-Secret: SECRET``; what it tells is not kept, for it proves nothing. That
it called is left as a hint (`visionloop.labeling.hints`), and whoever follows the loop then asks
the tool itself. The call is answered at once, since the tool makes its user wait for it: hints are
written by a thread, at most one a loop and second.

=========================================== ====================================================
``visionloop_collector_webhooks_total``     calls, by `outcome`: ``taken``, ``off`` (no secret is
                                            set), ``unauthorized``, ``no_loop``, ``too_large``,
                                            ``incomplete``
``visionloop_collector_label_hints_total``  hints, by `outcome`: ``written`` or ``failed``
=========================================== ====================================================
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import threading
from collections import Counter

from visionloop.errors import InputError
from visionloop.labeling import hints
from visionloop.lake.storage import Storage, StorageError, open_storage
from visionloop.progress import log
from visionloop.serving.asgi import Receive, Scope, Send, reply
from visionloop.serving.refusals import now

PATH = "/label-studio/"
MAX_BYTES = 4 * 1024 * 1024
SHORTEST = 16
OUTCOMES = ("taken", "off", "unauthorized", "no_loop", "too_large", "incomplete")
_SECONDS = 1.0
_AFTER_FAILURE = 5.0
_BODY_SECONDS = 10.0
_ACTION = re.compile(r"[A-Z_]{1,64}")


class LabelWebhook:
    """Takes calls and leaves hints.

    Args:
        place: Folder of the hints.
        secret: What a caller has to show; empty: every call is refused.

    Attributes:
        calls: Calls by outcome.
        written: Hints by outcome.

    Raises:
        InputError: The secret is short enough to be guessed.
    """

    def __init__(self, place: str, secret: str) -> None:
        if secret and len(secret) < SHORTEST:
            raise InputError(
                f"the secret of webhooks has fewer than {SHORTEST} characters",
                where="VISIONLOOP_WEBHOOK_SECRET",
                remedy="Make one with: openssl rand -hex 32",
            )
        self.calls = dict.fromkeys(OUTCOMES, 0)
        self.written = {"written": 0, "failed": 0}
        self._digest = _digest(secret) if secret else b""
        self._place = place
        self._storage: Storage | None = None
        self._count: Counter[str] = Counter()
        self._waiting: dict[str, hints.Hint] = {}
        self._change = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="label-hints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._change:
            self._ending = True
            self._change.notify()
        self._thread.join(timeout=30)

    async def take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call.

        Args:
            scope: Of the request, whose path names the loop.
            receive: Receives its body.
            send: Sends the answer.
        """
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        outcome, status = self._permitted(scope["path"], headers)
        action = ""
        if outcome == "taken":
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    action = _action(await _body(receive))
            except TimeoutError:
                outcome, status = "incomplete", 408
            except _NotTakenError as error:
                outcome, status = str(error), error.status
        if outcome == "taken":
            self._note(scope["path"][len(PATH) :], action)
        self.calls[outcome] += 1
        more = ((b"www-authenticate", b"Bearer"),) if status == 401 else ()
        await reply(send, status, json.dumps({"outcome": outcome}).encode(), *more)

    def _permitted(self, path: str, headers: dict[bytes, str]) -> tuple[str, int]:
        if not self._digest:
            return "off", 404
        kind, _, value = headers.get(b"authorization", "").partition(" ")
        shown = value.strip() if kind.lower() == "bearer" else ""
        given = (shown, headers.get(b"x-visionloop-secret", "").strip())
        # Digests have one length, and both are compared: how long it takes tells nothing.
        if not any([hmac.compare_digest(_digest(one), self._digest) for one in given]):
            return "unauthorized", 401
        if not hints.LOOP.fullmatch(path[len(PATH) :]):
            return "no_loop", 404
        return "taken", 202

    def _note(self, loop: str, action: str) -> None:
        with self._change:
            self._count[loop] += 1
            self._waiting[loop] = hints.Hint(loop, action, now(), self._count[loop])
            self._change.notify()

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self._change:
                # What comes meanwhile is told by the same hint.
                self._change.wait_for(lambda: self._ending, timeout=pause)
                self._change.wait_for(lambda: bool(self._waiting) or self._ending)
                waiting, self._waiting = self._waiting, {}
                ending = self._ending
            left = {loop: hint for loop, hint in waiting.items() if not self._leave(hint)}
            if ending:
                return
            with self._change:
                self._waiting = left | self._waiting
            pause = _AFTER_FAILURE if left else _SECONDS

    def _leave(self, hint: hints.Hint) -> bool:
        try:
            if self._storage is None:
                self._storage = open_storage(self._place)
            hints.leave(self._storage, self._place, hint)
        except (StorageError, InputError) as error:
            self.written["failed"] += 1
            log(f"collect: no hint of new labels could be left: {error}")
            return False
        self.written["written"] += 1
        return True


class _NotTakenError(Exception):
    """A call is not taken."""

    def __init__(self, outcome: str, status: int) -> None:
        super().__init__(outcome)
        self.status = status


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _NotTakenError("incomplete", 408)
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BYTES:
            raise _NotTakenError("too_large", 413)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _action(body: bytes) -> str:
    """Return what a call says has happened, as far as it is a word of the tool's."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    action = said.get("action") if isinstance(said, dict) else None
    return action if isinstance(action, str) and _ACTION.fullmatch(action) else ""


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
