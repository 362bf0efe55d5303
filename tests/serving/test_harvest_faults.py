"""What may go wrong around a harvest: nothing is lost or doubled, and all is accounted for."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.small_events import PROGRAM, harvest_beside, write_segments
from tests.serving.test_collector_garbage import BODIES, HEADERS
from tests.serving.test_harvest_stage import Loop, event, loop, request, response
from visionloop.lake import Lake
from visionloop.serving.harvesting import STATES, harvest_events
from visionloop.serving.seen import see_all
from visionloop.serving.segments import parse_line
from visionloop.serving.spilling import PREFIX
from visionloop.stages import harvest as stage

from .conftest import write_events

__all__ = ["loop"]

TABLES = {
    "harvest_events": ("event_id", "line_sha256", "uri", "line", "state", "reason"),
    "confidences": ("event_id", "occurrence", "row", "sample_id", "confidence", "model_id"),
}


def held(lake: Path) -> dict[str, Counter[Any]]:
    """Return the rows of a lake without what names the run, wherever the lake lies."""
    opened = Lake.open(str(lake), loop="test")
    return {
        table: Counter(
            tuple(Path(row[c]).name if c == "uri" else row[c] for c in columns)
            for row in opened.read(table).to_pylist()
        )
        for table, columns in TABLES.items()
    }


# --- killed, and two at once ----------------------------------------------------------------------


def start(lake: Path, events: Path, temporary: Path) -> subprocess.Popen[bytes]:
    config = json.dumps({"lake": str(lake), "name": "test"})
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), config, str(events)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip


def begun(process: subprocess.Popen[bytes], temporary: Path) -> float:
    """Wait until a harvest has its folder for temporary rows: most of the time before is imports.

    It may sweep away what killed ones left at the same time.
    """
    deadline = time.monotonic() + 60
    held = {path.name for path in temporary.iterdir()}
    while {path.name for path in temporary.iterdir()} <= held:
        assert process.poll() is None, "it ended before it began"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return time.monotonic()


def killed_and_run_again(folder: Path, kills: int, seed: int) -> None:
    events, temporary = folder / "events", folder / "tmp"
    write_segments(events, 600, a_segment=150)
    with start(folder / "whole", events, temporary) as process:
        began = begun(process, temporary)
        process.communicate(timeout=100)
    seconds = time.monotonic() - began
    chance = random.Random(seed)
    hit = 0
    for _ in range(kills):
        with start(folder / "killed", events, temporary) as process:
            begun(process, temporary)
            time.sleep(seconds * chance.uniform(0.0, 0.8))
            process.send_signal(signal.SIGKILL)
            process.wait()
            hit += process.returncode == -signal.SIGKILL
    with start(folder / "killed", events, temporary) as process:
        process.communicate(timeout=100)
    assert hit
    assert held(folder / "killed") == held(folder / "whole")
    assert held(folder / "whole")["confidences"].total() == 600
    assert not list(temporary.glob(f"{PREFIX}*"))


def test_killed_anywhere_and_run_again_it_leaves_the_rows_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    killed_and_run_again(tmp_path, kills=3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_killed_fifty_times_it_leaves_the_rows_of_an_undisturbed_one(
    tmp_path: Path, seed: int
) -> None:
    killed_and_run_again(tmp_path, kills=10, seed=seed)


def test_two_harvesters_at_once_write_every_event_once(tmp_path: Path) -> None:
    events = tmp_path / "events"
    write_segments(events, 600, a_segment=150)
    harvest_beside(tmp_path / "alone", events)
    both = [start(tmp_path / "both", events, tmp_path / "tmp") for _ in range(2)]
    said = [json.loads(one.communicate(timeout=100)[0].splitlines()[-1]) for one in both]
    # The second one to write began anew, on what the first had written.
    assert sorted(one["n_events"] for one in said) == [0, 1200]
    assert harvest_beside(tmp_path / "both", events)["n_events"] == 0
    assert held(tmp_path / "both") == held(tmp_path / "alone")


def test_a_harvest_that_was_overtaken_takes_nothing_back(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one pairs what this one takes for an orphan, between its reading and writing."""
    long_ago = datetime.now(UTC) - timedelta(days=3)
    loop.config["serving"] = {"pending_hours": 24 * 7}
    write_events(loop.events / "a.events.jsonl", [request("1", received_at=long_ago)])
    assert loop.harvest().n_pending == 1
    join, tries = stage._join, []

    def overtaken(*arguments: Any, **named: Any) -> Any:
        found = join(*arguments, **named)
        tries.append(found[0].later)
        if len(tries) == 1:
            monkeypatch.setattr(stage, "_join", join)
            write_events(loop.events / "b.events.jsonl", [response("1")])
            assert Loop(loop.folder).harvest().n_confidences == 1
            monkeypatch.setattr(stage, "_join", overtaken)
        return found

    loop.config["serving"] = {"pending_hours": 1}
    monkeypatch.setattr(stage, "_join", overtaken)
    loop.harvest()
    assert tries == [{("pending", "orphan"): 1}, {}]
    assert loop.states() == {"harvested": 2}
    assert len(loop.rows("confidences")) == 1


# --- models, clocks, objects, headers -------------------------------------------------------------


def test_of_a_canary_each_row_names_the_model_that_answered(loop: Loop) -> None:
    lines: list[dict[str, Any]] = []
    for number in range(30):
        new = number >= 10 and number % 3 == 0  # rolled out to a third in the middle
        pod = {"ce-source": f"pod-{'new' if new else 'old'}"}
        body: dict[str, Any] = {"predictions": [[0.1 + number / 100, 0.9 - number / 100]]}
        # The reply names its model, or the pod's annotations do; Triton's own number tells nothing.
        if number % 4 == 1:
            body["model_id"] = "m-new" if new else "m-old"
        else:
            body |= {"model_version": "1"} if number % 4 == 3 else {}
            model = json.dumps({"visionloop.dev/model-id": "m-new" if new else "m-old"})
            pod["ce-annotations"] = model
        lines += [request(f"{number}", seed=number, **pod)]
        lines += [event("response", f"{number}", json.dumps(body).encode(), **pod)]
    random.Random(1).shuffle(lines)
    write_events(loop.events / "a.events.jsonl", lines[:25])
    loop.harvest()
    write_events(loop.events / "b.events.jsonl", lines[25:])
    loop.harvest()
    rows = loop.rows("confidences")
    assert {int(row["event_id"]): row["model_id"] for row in rows} == {
        n: "m-new" if n >= 10 and n % 3 == 0 else "m-old" for n in range(30)
    }
    assert len(rows) == 30
    assert all(row["linked_by"] == "hash" for row in rows)


@pytest.mark.parametrize("skew", [-86_000, -30, 30, 86_000, 10**9])
def test_halves_of_clocks_that_disagree_are_one_inference(loop: Loop, skew: int) -> None:
    later = (datetime.now(UTC) + timedelta(seconds=skew)).isoformat()
    write_events(
        loop.events / "a.events.jsonl",
        [request("1"), response("1", **{"ce-time": later}), request("2", **{"ce-time": later})],
    )
    write_events(loop.events / "b.events.jsonl", [response("2")])
    outputs = loop.harvest()
    assert (outputs.n_events, outputs.n_confidences) == (4, 2)
    assert loop.states() == {"harvested": 4}
    assert all(row["sample_id"] for row in loop.rows("confidences"))


def blob(folder: Path, kind: str, event_id: str, body: bytes) -> Path:
    record = {
        "reqType": f"org.kubeflow.serving.inference.{kind}",
        "id": event_id,
        "inferenceService": "svc",
        "namespace": "ns",
        "occurrenceTime": datetime.now(UTC).isoformat(),
        "contentType": "application/json",
        "bytes": base64.b64encode(body).decode(),
    }
    path = folder / f"{event_id}-{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def test_an_object_overwritten_with_as_many_bytes_is_read_again(loop: Loop) -> None:
    def answer(p: str) -> bytes:
        return b'{"predictions": [[%s, %.2f]]}' % (p.encode(), 1 - float(p))

    path = blob(loop.events, "response", "1", answer("0.25"))
    before = path.stat()
    assert loop.harvest().n_events == 1
    assert loop.harvest().n_events == 0
    blob(loop.events, "response", "1", answer("0.35"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    assert loop.harvest().n_events == 1
    assert sorted(row["confidence"] for row in loop.rows("confidences")) == [
        pytest.approx(0.65), pytest.approx(0.75)
    ]  # fmt: skip
    # Written again with the same bytes it is a repeated delivery.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 2))
    loop.harvest()
    assert loop.states() == {"pending": 2, "duplicate": 1}


def test_a_tensor_is_linked_by_the_sample_that_its_header_names(loop: Loop) -> None:
    tensor = json.dumps({"instances": [[[[1, 2, 3]]], [[[4, 5, 6]]]]}).encode()
    answer = json.dumps({"predictions": [[0.5, 0.5], [0.25, 0.75]]}).encode()

    def inference(event_id: str, names: Any) -> list[dict[str, Any]]:
        more = {"ce-metadata": json.dumps({"X-Sample-Id": names})}
        return [
            event("request", event_id, tensor, **more),
            event("response", event_id, answer, **more),
        ]

    a, b = "a" * 64, "B" * 64
    lines = [
        *inference("both", [f"{a}, {b}"]),
        *inference("one-a-row", [a, b]),
        *inference("too-few", [a]),
        *inference("own-names", ["cam1/frame-1", b]),
        inference("no-request", [a, b])[1],
        *(request("image", **{"ce-metadata": json.dumps({"X-Sample-Id": [a]})}), response("image")),
    ]
    write_events(loop.events / "a.events.jsonl", lines)
    loop.harvest()
    found: dict[str, list[Any]] = {}
    for row in sorted(loop.rows("confidences"), key=lambda row: row["row"]):
        found.setdefault(row["event_id"], []).append((row["sample_id"], row["linked_by"]))
    named = [(a, "header"), (b.lower(), "header")]
    assert found["both"] == found["one-a-row"] == found["no-request"] == named
    assert found["too-few"] == [(None, None)] * 2
    assert found["own-names"] == [(None, None), (b.lower(), "header")]
    # What was sent tells more than what is said of it.
    assert [link for _, link in found["image"]] == ["hash"]
    assert found["image"][0][0] != a


# --- every event is accounted for -----------------------------------------------------------------


def test_orphans_by_half_and_rejected_by_reason_add_up(loop: Loop, tmp_path: Path) -> None:
    class Page:
        path, uri, metadata = str(tmp_path / "page.md"), "", {}

    class Metrics(dict):  # type: ignore[type-arg]
        log_metric = dict.__setitem__

    metrics = Metrics()
    old = datetime.now(UTC) - timedelta(days=9)
    lines = [
        request("pair"), response("pair"), response("pair"),  # one delivered again
        request("lost-answer", received_at=old), request("lost-2", received_at=old),
        response("lost-question", received_at=old),
        request("waits"),
        request("bad"), event("response", "bad", b'{"predictions": [[0.9, 0.9]]}'),
        event("response", "odd", b"{"),
        event("response", "live", b'{"live": true}'),
        event("nothing", "unknown", b""),
    ]  # fmt: skip
    lines[2] = dict(lines[1])
    write_events(loop.events / "a.events.jsonl", lines)
    loop.harvest(page=Page(), metrics=metrics)
    expected = {
        "n_events": 12, "n_harvested": 2, "n_duplicate": 1, "n_orphan": 3, "n_orphan_requests": 2,
        "n_orphan_responses": 1, "n_pending": 1, "n_ignored": 1, "n_rejected": 4,
        "n_rejected_sum_not_1": 2, "n_rejected_not_json": 1, "n_rejected_type_unknown": 1,
    }  # fmt: skip
    assert {name: metrics[name] for name in expected} == expected
    assert sum(metrics[f"n_{state}"] for state in STATES) == metrics["n_events"]
    history = Lake.open(str(loop.folder), loop="test").history().to_pylist()
    counts = json.loads(history[-1]["counts"])
    assert {f"n_{name}": number for name, number in counts.items()}.items() >= expected.items()
    text = Path(Page.path).read_text()
    for state, reason, number in (
        ("orphan", "request_without_response", 2),
        ("orphan", "response_without_request", 1),
        ("rejected", "sum_not_1", 2),
        ("duplicate", "delivered_again", 1),
    ):
        assert f"| {state} | {reason} | {number} |" in text


def test_the_page_tells_what_became_of_earlier_events(loop: Loop, tmp_path: Path) -> None:
    class Page:
        path, uri, metadata = str(tmp_path / "page.md"), "", {}

    write_events(loop.events / "a.events.jsonl", [request("1")])
    loop.harvest()
    write_events(loop.events / "b.events.jsonl", [response("1")])
    loop.harvest(page=Page())
    assert "| pending | harvested | 1 |" in Path(Page.path).read_text()


IDS = st.sampled_from(["a", "b", "c", ""])
KINDS = st.sampled_from(["request", "response"])
LINES = st.one_of(
    st.binary(max_size=200).map(lambda line: line.replace(b"\n", b"")),
    st.tuples(HEADERS, BODIES, IDS, KINDS).map(
        lambda one: json.dumps(
            {
                "headers": {
                    "ce-id": one[2], "ce-type": f"org.kubeflow.serving.inference.{one[3]}", **one[0]
                },
                "body_b64": base64.b64encode(one[1]).decode(),
            }
        ).encode()
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINES, max_size=12))
def test_garbage_ends_in_exactly_one_state_each(lines: Sequence[bytes]) -> None:
    events = [one for line in lines if line.strip() for one in parse_line(line)]
    found = harvest_events(see_all(events), [], orphaned_before=datetime.now(UTC))
    states = Counter(found.new_events["state"].to_pylist())
    assert set(states) <= set(STATES)
    assert found.counts == {
        "events": len(events), **{state: states[state] for state in STATES},
        "inferences": found.new_confidences.num_rows,
    }  # fmt: skip
