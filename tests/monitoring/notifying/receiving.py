"""A receiver of notifications: a real HTTP server that keeps what it is sent."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pyarrow as pa

from tests.servers import answering
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Receiver:
    """What a receiver was sent, and how it answers.

    Attributes:
        url: Its address.
        status: What it answers with; the first of `statuses` goes before.
        statuses: Answers to the next requests.
        seconds: How long it takes.
        requests: Headers and body of each request, refused ones too.
        taken: Bodies that it answered with 2xx.
    """

    url: str = ""
    status: int = 204
    statuses: list[int] = field(default_factory=list)
    seconds: float = 0.0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    held = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            held.requests.append((headers, body))
            time.sleep(held.seconds)
            status = held.statuses.pop(0) if held.statuses else held.status
            if 200 <= status < 300:
                held.taken.append(json.loads(body))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                self.send_header("content-length", "0")
                if status == 302:
                    self.send_header("location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as address:
        held.url = f"http://{address}/hook"
        yield held


def flag(kind: str, subject: str, **changed: Any) -> dict[str, Any]:
    """Return a row of flags."""
    row = {
        "subject": subject,
        "subject_type": "camera",
        "stage": "monitor",
        "kind": kind,
        "score": 3.0,
        "threshold": 1.0,
        "evidence": json.dumps({"reference": "the day before", "unit": "hours"}),
        "flagged_at": NOW,
    }
    return row | changed


def write(lake: Lake, table: str, *rows: dict[str, Any], round_id: str = "0000") -> str:
    """Append rows to a table as a stage does."""
    with lake.run(stage="monitor", round_id=round_id, run_id="run-1") as run:
        run.append(table, pa.Table.from_pylist(list(rows), schema=_open(table)))
        return run.commit()


def decision(name: str, outcome: str, reason: str, after: int = 0) -> dict[str, Any]:
    """Return a row of decisions."""
    return {
        "decision": name,
        "subject": "model-1",
        "outcome": outcome,
        "reason": reason,
        "inputs": "{}",
        "decided_at": NOW + timedelta(seconds=after),
    }


def _open(table: str) -> pa.Schema:
    return arrow_schema(table)
