"""A receiver that is slow, endless or wrongly set up costs the others and a stage no time."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pyarrow as pa
import pytest

from tests.monitoring.notifying.receiving import NOW, Receiver, decision, flag, receiver, write
from tests.servers import answering
from visionloop.lake import Lake
from visionloop.lake.vacuum import vacuum
from visionloop.monitoring.notify_config import NotifyConfig
from visionloop.monitoring.notify_config import Receiver as Named
from visionloop.monitoring.notifying import delivery, outbox
from visionloop.monitoring.notifying.events import trial_event
from visionloop.monitoring.notifying.noticing import tell_new

EVENT = trial_event("test", "/lake")


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as held:
        yield held


def telling(url: str) -> NotifyConfig:
    return NotifyConfig.model_validate({"to": [{"url": url}], "timeout_seconds": 0.5})


def test_a_slow_receiver_takes_no_time_from_the_others(
    lake: Lake, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SECONDS", 0.2)
    with receiver() as slow:
        slow.seconds = 1.0
        to = [Named(name="slow", url=slow.url), Named(name="quick", url=hook.url)]
        for one in to:  # that of the slow one is the older: it is sent first
            outbox.put(lake, one, EVENT)
        sent = delivery.flush(lake, NotifyConfig(to=to))
    assert sent == delivery.Sent(taken=1, left=1)
    assert len(hook.taken) == 1


@pytest.mark.parametrize("status", [200, 503])
def test_an_answer_without_an_end_holds_up_no_stage(status: int) -> None:
    told, ended = threading.Event(), threading.Event()

    class Trickles(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(100):
                    if told.wait(0.1):
                        return
                    self.wfile.write(b"x")
                    self.wfile.flush()
                ended.set()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Trickles) as address:
        named = Named(url=f"http://{address}/")
        answer = delivery.send(named, EVENT, timeout=5.0, limit=1.0)
        assert not ended.is_set()
        told.set()
    assert answer.state == ("taken" if status == 200 else "later")


def test_a_token_that_no_header_can_hold_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_NOTIFY_TOKEN_DEFAULT", "first-part\nsecond-part")
    answer = delivery.send(Named(url="http://127.0.0.1:9/"), EVENT, timeout=0.1)
    assert answer.state == "later" and "its token" in answer.told
    assert "part" not in answer.told


def test_what_another_stage_commits_meanwhile_is_told_once(
    lake: Lake, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "flags", flag("unreadable", "mine"))
    read, others = Lake.read, [flag("unreadable", "another's")]

    def late(self: Lake, table: str, **how: Any) -> pa.Table:
        while table == "flags" and others:
            write(Lake.open(lake.uri, loop="test"), "flags", others.pop())
        return read(self, table, **how)

    monkeypatch.setattr(Lake, "read", late)
    tell_new(lake, telling(hook.url))
    tell_new(lake, telling(hook.url))
    told = [[one["subject"] for one in e["data"]["kinds"][0]["examples"]] for e in hook.taken]
    assert told == [["mine"], ["another's"]]


def test_what_an_older_round_brought_is_told_where_a_vacuum_took_the_version_before(
    lake: Lake, hook: Receiver
) -> None:
    lake.rounds.open("r")
    write(lake, "flags", flag("unreadable", "known"))
    tell_new(lake, telling(hook.url))
    later = NOW + timedelta(minutes=1)
    write(lake, "flags", flag("unreadable", "unheard", flagged_at=later))
    with lake.run(stage="publish") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    lake.rounds.open("r")
    with lake.run(stage="publish") as run:
        run.set_round(state="done", outcome="kept")  # an open round's versions stay
        run.commit()
    assert vacuum(lake, keep_versions=1, safety=timedelta(0)).dropped
    tell_new(Lake.open(lake.uri, loop="test"), telling(hook.url))
    named = [one["data"]["kinds"][0]["examples"][0]["subject"] for one in hook.taken]
    assert named == ["known", "unheard"]


def test_evidence_of_another_form_holds_no_notification_back(lake: Lake, hook: Receiver) -> None:
    write(lake, "flags", flag("bad_sidecar", "x", evidence=json.dumps(["no object"])))
    write(lake, "decisions", decision("block", "blocked", "why"))
    assert tell_new(lake, telling(hook.url)) == delivery.Sent(taken=2)


def test_what_names_no_subject_is_told_once_in_words(lake: Lake, hook: Receiver) -> None:
    nameless = [
        flag("unreadable", "x") | {"subject": None, "subject_type": kind}
        for kind in ("sample", "file", "camera", None)
    ]
    write(lake, "flags", *nameless, flag("unreadable", "named"))
    write(lake, "decisions", decision("block", "blocked", "") | {"subject": None, "reason": None})
    tell_new(lake, telling(hook.url))
    write(lake, "flags", flag("unreadable", "later"))
    tell_new(lake, telling(hook.url))
    flags, block, more = (event["data"] for event in hook.taken)
    assert flags["n"] == 5 and more["n"] == 1
    names = {one["name"] for one in flags["kinds"][0]["examples"]}
    assert names <= {
        "named",
        *(f"{kind} without a name" for kind in ("sample", "file", "camera", "something")),
    }
    assert "None" not in flags["text"] + block["text"]
    assert block["text"].endswith("block blocked: no reason was written")
