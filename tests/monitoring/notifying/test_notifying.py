"""New flags, decisions and failures reach whoever wants to know, once each, and in order."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.notifying.receiving import NOW, Receiver, decision, flag, receiver, write
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.lake.vacuum import vacuum
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.notify_config import NotifyConfig
from visionloop.monitoring.notifying import delivery, outbox
from visionloop.monitoring.notifying.events import flags_event
from visionloop.monitoring.notifying.noticing import tell_new
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as held:
        yield held


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_PAUSE", 0.01)


def telling(url: str, **fields: Any) -> NotifyConfig:
    return NotifyConfig.model_validate({"to": [{"url": url, **fields}], "timeout_seconds": 0.5})


def test_a_new_flag_is_told_once_as_a_cloudevent_whose_number_is_that_of_the_flags(
    lake: Lake, hook: Receiver
) -> None:
    config = telling(hook.url)
    write(lake, "flags", *(flag("unreadable", f"file-{i}", score=float(i)) for i in range(5)))
    assert tell_new(lake, config) == delivery.Sent(taken=1)
    assert tell_new(lake, config) == delivery.Sent()
    [told] = hook.taken
    headers, _ = hook.requests[0]
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert (told["specversion"], told["type"]) == ("1.0", "org.visionloop.flags.new")
    assert (told["source"], told["subject"]) == ("/visionloop/loops/test", "0000")
    assert told["id"] == headers["webhook-id"]
    [kind] = told["data"]["kinds"]
    assert told["data"]["n"] == kind["n"] == lake.read("flags").num_rows == 5
    assert "5 new flags" in told["data"]["text"]
    assert [one["subject"] for one in kind["examples"]] == ["file-4", "file-3", "file-0"]
    assert kind["examples"][0]["unit"] == "hours"


def test_what_stood_before_is_not_told_again_and_what_came_since_is(
    lake: Lake, hook: Receiver
) -> None:
    config = telling(hook.url, format="json")
    write(lake, "flags", flag("unreadable", "old"))
    tell_new(lake, config)
    write(lake, "flags", flag("unreadable", "new"), round_id="0001")
    tell_new(lake, config)
    second = hook.taken[1]
    assert second["n"] == 1 and second["kinds"][0]["examples"][0]["subject"] == "new"
    assert second["round_id"] == "0001"


def test_of_an_older_lake_only_the_newest_round_is_told_at_first(
    lake: Lake, hook: Receiver
) -> None:
    lake.rounds.open("run-0")
    with lake.run(stage="publish") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    lake.rounds.open("run-1")
    write(lake, "flags", flag("unreadable", "old"), round_id="0000")
    write(lake, "flags", flag("unreadable", "new"), round_id="0001")
    tell_new(lake, telling(hook.url))
    assert [told["data"]["n"] for told in hook.taken] == [1]


def test_after_an_outage_what_waited_arrives_later_and_in_order(
    lake: Lake, hook: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    config, hook.status = telling(hook.url), 503
    write(lake, "decisions", decision("block", "", "too many doubted labels"))
    assert tell_new(lake, config).left == 1
    assert len(hook.requests) == 3
    assert "was not reached" in capsys.readouterr().err
    write(lake, "decisions", decision("rollback", "", "drift", after=60))
    assert tell_new(lake, config) == delivery.Sent(left=2)
    assert len(hook.requests) == 6  # what comes second is not tried before the first
    hook.status = 200
    write(lake, "decisions", decision("gate", "rejected", "less accurate", after=120))
    assert tell_new(lake, config) == delivery.Sent(taken=3)
    told = [one["data"]["decision"] for one in hook.taken]
    assert told == ["block", "rollback", "gate"]
    assert [one["data"]["severity"] for one in hook.taken] == ["error", "error", "warning"]
    assert not list(outbox.waiting(lake))


def test_one_bad_answer_is_tried_again_at_once(lake: Lake, hook: Receiver) -> None:
    hook.statuses = [500, 429]
    write(lake, "flags", flag("unreadable", "a"))
    assert tell_new(lake, telling(hook.url)) == delivery.Sent(taken=1)
    assert len({headers["webhook-id"] for headers, _ in hook.requests}) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_what_a_person_can_mend_waits(lake: Lake, hook: Receiver, status: int) -> None:
    hook.status = status
    write(lake, "flags", flag("unreadable", "a"))
    assert tell_new(lake, telling(hook.url)) == delivery.Sent(left=1)
    assert len(hook.requests) == 1


def test_what_a_receiver_will_never_take_holds_nothing_back(lake: Lake, hook: Receiver) -> None:
    config, hook.statuses = telling(hook.url), [422]
    write(lake, "flags", flag("unreadable", "a"))
    write(lake, "decisions", decision("block", "", "why"))
    assert tell_new(lake, config) == delivery.Sent(taken=1, refused=1)


def test_a_receiver_that_hangs_or_is_not_there_costs_bounded_time(
    lake: Lake, hook: Receiver
) -> None:
    hook.seconds = 3.0
    silent = NotifyConfig.model_validate(
        {
            "to": [{"url": hook.url}, {"name": "nobody", "url": "http://127.0.0.1:9/"}],
            "timeout_seconds": 0.05,
        }
    )
    write(lake, "flags", flag("unreadable", "a"))
    assert tell_new(lake, silent) == delivery.Sent(left=2)


def test_what_waits_for_too_long_or_for_nobody_is_dropped_with_a_line(
    lake: Lake, hook: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    hook.status = 503
    write(lake, "flags", flag("unreadable", "a"))
    tell_new(lake, telling(hook.url))
    soon = telling(hook.url).model_copy(update={"keep_days": 1e-9})
    assert tell_new(lake, soon) == delivery.Sent(expired=1)
    write(lake, "flags", flag("unreadable", "b"))
    tell_new(lake, telling(hook.url))
    assert tell_new(lake, telling(hook.url, name="other")) == delivery.Sent(expired=1)
    assert "waited too long" in (said := capsys.readouterr().err) and "nobody of that name" in said


def test_a_process_that_died_before_it_told_loses_nothing(
    lake: Lake, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "flags", flag("unreadable", "before"))
    tell_new(lake, telling(hook.url))
    write(lake, "flags", flag("unreadable", "unheard"))  # and nobody told: it was killed
    write(lake, "checks", {"subject": "x", "generation": "", "state": "ok", "checked_at": NOW})
    tell_new(lake, telling(hook.url))
    assert hook.taken[1]["data"]["kinds"][0]["examples"][0]["subject"] == "unheard"


def test_a_vacuum_of_the_version_that_was_told_tells_nothing_again(
    lake: Lake, hook: Receiver
) -> None:
    lake.rounds.open("r")
    write(lake, "flags", flag("unreadable", "known"))
    tell_new(lake, telling(hook.url))
    with lake.run(stage="publish") as run:
        run.set_round(state="done", outcome="kept")  # an open round's versions stay
        run.commit()
    later = NOW + timedelta(minutes=1)
    write(lake, "flags", flag("unreadable", "unheard", flagged_at=later))
    assert vacuum(lake, keep_versions=1, safety=timedelta(0)).dropped
    tell_new(Lake.open(lake.uri, loop="test"), telling(hook.url))
    named = [one["data"]["kinds"][0]["examples"][0]["subject"] for one in hook.taken]
    assert named == ["known", "unheard"] and hook.taken[1]["data"]["n"] == 1


def test_the_same_happening_has_the_same_id_however_often_it_is_told() -> None:
    rows = [flag("unreadable", name, round_id="0000", run_id="r") for name in ("a", "b")]
    one = flags_event(rows, loop="l", place="/lake", names={})
    again = flags_event(rows[::-1], loop="l", place="/lake", names={"a": "A"})
    assert one.id == again.id
    other = flags_event(rows[:1], loop="l", place="/lake", names={})
    assert other.id != one.id != flags_event(rows, loop="m", place="/lake", names={}).id


def test_a_receiver_is_told_only_what_it_asked_for(lake: Lake, hook: Receiver) -> None:
    grave = telling(hook.url, min_severity="error", events=["flags"])
    write(lake, "flags", flag("near_duplicate", "twin"))
    write(lake, "decisions", decision("block", "", "why"))
    assert tell_new(lake, grave) == delivery.Sent()
    kinds = telling(hook.url, min_severity="info", kinds=["near_duplicate"], events=["flags"])
    write(lake, "flags", flag("near_duplicate", "triplet"), flag("unreadable", "a"))
    tell_new(lake, kinds)
    assert [told["data"]["n"] for told in hook.taken] == [1]


def test_a_chat_gets_words_and_no_markup_of_others(lake: Lake, hook: Receiver) -> None:
    write(lake, "flags", flag("unreadable", "<b>&.png", score=math.nan))
    tell_new(lake, telling(hook.url, format="text"))
    [told] = hook.taken
    assert set(told) == {"text"}
    assert (
        "&lt;b&gt;&amp;.png" in told["text"]
        and "Loop test, before round 0: 1 new flag" in told["text"]
    )


def test_a_decision_between_two_rounds_is_told_as_flags_of_that_time_are(
    lake: Lake, hook: Receiver
) -> None:
    config = telling(hook.url, format="json")
    write(lake, "flags", flag("unreadable", "a"))
    write(lake, "decisions", decision("block", "blocked", "Doubts."))
    tell_new(lake, config)
    lake.rounds.open("r")
    write(lake, "decisions", decision("gate", "rejected", "Worse.", after=1))
    tell_new(lake, config)
    assert [told["text"].splitlines()[0] for told in hook.taken] == [
        "Loop test, before round 0: 1 new flag",
        "Loop test, before round 0: block blocked: Doubts.",
        "Loop test, round 0: gate rejected: Worse.",
    ]


def test_a_rollback_that_another_model_overtook_wakes_nobody(lake: Lake, hook: Receiver) -> None:
    config = telling(hook.url, min_severity="error")
    write(lake, "decisions", decision("rollback", "overtaken", "m3 is in service by now"))
    assert tell_new(lake, config) == delivery.Sent()
    write(lake, "decisions", decision("rollback", "failed", "it is broken", after=1))
    assert tell_new(lake, config) == delivery.Sent(taken=1)


def test_requests_are_signed_and_carry_the_token_and_no_secret_is_told(
    lake: Lake, hook: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = base64.b64encode(b"0123456789abcdef").decode()
    monkeypatch.setenv("VISIONLOOP_NOTIFY_SECRET_ON_CALL", f"whsec_{key}")
    monkeypatch.setenv("VISIONLOOP_NOTIFY_TOKEN_ON_CALL", "token-of-the-receiver")
    monkeypatch.setenv("VISIONLOOP_NOTIFY_URL_ON_CALL", hook.url)
    write(lake, "flags", flag("unreadable", "token-of-the-receiver"))
    tell_new(lake, telling("", name="on-call"))
    headers, body = hook.requests[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert headers["authorization"] == "Bearer token-of-the-receiver"
    assert b"***" in body.partition(b'"text"')[2] and b"token-of-the-receiver" not in body
    hook.status = 503
    write(lake, "flags", flag("unreadable", "b"))
    tell_new(lake, telling("", name="on-call"))
    said = capsys.readouterr().err
    assert "on-call was not reached" in said and hook.url not in said and key not in said


def test_a_stage_tells_after_its_commit_what_it_found(tmp_path: Path, hook: Receiver) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(images / "whole.png")
    config = {
        "lake": str(tmp_path / "lake"),
        "name": "told",
        "sources": [{"uri": str(images)}],
        "notify": {"to": [{"url": hook.url}]},
    }
    ingest(config=json.dumps(config))
    monitor(config=json.dumps(config))
    [told] = hook.taken
    flags = Lake.open(str(tmp_path / "lake"), loop="told").read("flags").to_pylist()
    # The picture of one colour is only good to know.
    grave = [row["kind"] for row in flags if KINDS[row["kind"]].severity != "info"]
    assert told["data"]["n"] == len(grave) < len(flags)
    assert "Not readable (warning): 1: torn.png" in told["data"]["text"]


def test_a_stage_that_fails_is_told_with_its_remedy_and_its_error_stays_the_first(
    tmp_path: Path, hook: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "lake": str(tmp_path / "lake"),
        "name": "told",
        "sources": [{"uri": str(tmp_path / "absent")}],
        "notify": {"to": [{"url": hook.url}]},
    }
    with pytest.raises(InputError):
        ingest(config=json.dumps(config))
    [told] = hook.taken
    assert told["type"] == "org.visionloop.stage.failed"
    assert told["data"]["stage"] == "ingest" and told["data"]["severity"] == "error"
    assert told["data"]["remedy"] and told["data"]["text"].startswith(
        "Loop told, before round 0: the stage ingest failed: "
    )
    hook.status = 500
    with pytest.raises(InputError):
        ingest(config=json.dumps(config | {"name": "other"}))
    assert "notifications: 0 taken, 1 waiting" in capsys.readouterr().err


def test_a_configuration_is_checked_where_it_is_read(tmp_path: Path) -> None:
    def config(**receiver: Any) -> None:
        load_config(json.dumps({"lake": str(tmp_path), "notify": {"to": [receiver]}}))

    with pytest.raises(InputError, match="unreadable"):
        config(url="http://x", kinds=["unreadabel"])
    with pytest.raises(InputError, match="http"):
        config(url="ftp://x")
    with pytest.raises(InputError, match="password or token"):
        config(url="https://user:password@x/")
    twice = {"to": [{"url": "http://x"}, {"url": "http://y"}]}
    with pytest.raises(InputError, match="two receivers"):
        load_config(json.dumps({"lake": str(tmp_path), "notify": twice}))
