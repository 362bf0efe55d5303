"""An event says the same in whichever mode of CloudEvents it came, kept whole or as hashes."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import Starter, picture
from tests.serving.test_collector import encoded_request, lines
from visionloop.lake import Lake
from visionloop.serving import raw_spool, reducing
from visionloop.serving.blobs import blob_events
from visionloop.serving.events import Event, events_of, parse_line
from visionloop.serving.pixels import Pixels
from visionloop.serving.seen import event_table, see
from visionloop.serving.segment_writer import SegmentWriter
from visionloop.stages.harvest import harvest

TYPE = "org.kubeflow.serving.inference."
ONE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
ANSWER = {"predictions": [[0.25, 0.75]]}


def structured(name: str, kind: str, data: Any, **more: Any) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(seconds=1)
    return {
        "specversion": "1.0",
        "id": name,
        "source": "/größe",
        "type": TYPE + kind,
        "time": at.isoformat(),
        "datacontenttype": "application/json",
        "data": data,
        **more,
    }


def asked(seed: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(encoded_request(picture(seed)))
    return told


def whole(headers: dict[str, str], body: bytes) -> list[Event]:
    """Return the events of a delivery whose body is kept."""
    line = {"received_at": "2026-11-22T12:00:00Z", "headers": headers}
    line["body_b64"] = base64.b64encode(body).decode()
    return list(parse_line(json.dumps(line).encode()))


def as_hashes(headers: dict[str, str], body: bytes, **how: bool) -> tuple[list[Event], bytes]:
    """Return the events of a delivery of which hashes are kept, and what is kept."""
    record = {"received_at": "2026-11-22T12:00:00Z", "headers": dict(headers)}
    kept = list(reducing.reduced(record, body, Pixels(0.0), **how))
    return [event for line in kept for event in parse_line(line)], b"".join(kept)


def told(events: list[Event]) -> list[Any]:
    """Return what a harvest makes of events."""
    plain = [dataclasses.replace(event, body=b"", kept=None) for event in events]
    return [*plain, event_table([see(event) for event in events]).to_pylist()]


TEXTS = st.sampled_from(
    ["", "größe", "Ã¶", "a", "\ud800", ONE, BATCH, "application/json"]
) | st.text(max_size=5)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["id", "ID", "source", "metadata", "annotations", "datacontenttype", "ü"]),
    TEXTS | st.integers() | st.none() | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.sampled_from(["model-id", "a"]), TEXTS, max_size=2),
    max_size=4,
)  # fmt: skip
DATA = st.sampled_from(
    [
        {},
        {"data": asked(1)},
        {"data": ANSWER},
        {"data": json.dumps(ANSWER)},
        {"data_base64": base64.b64encode(encoded_request(picture(2))).decode()},
        {"data_base64": "no base64!"},
        {"data": None},
        {"data": structured("inner", "response", ANSWER)},
    ]
)
TYPES = st.sampled_from([{}, {"type": "odd"}, {"type": TYPE + "request"}]) | st.just(
    {"type": TYPE + "response"}
)
MEMBERS = st.builds(
    lambda *parts: {k: v for p in parts for k, v in p.items()}, ATTRIBUTES, TYPES, DATA
)
BODIES = (
    MEMBERS.map(json.dumps)
    | st.lists(MEMBERS | st.integers(), max_size=4).map(json.dumps)
    | st.sampled_from(["", "[]", "{", "[1] x", "null"])
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([ONE, BATCH, "application/json", f"\xa0{ONE}", f"Â\xa0{ONE}"]), BODIES)
@example(ONE, json.dumps(structured("a", "response", ANSWER, datacontenttype=ONE)))
@example(BATCH, json.dumps([structured("Ã¶", "request", asked(1)), 0, {}, "x"]))
def test_hashes_say_what_the_bodies_say(kind: str, body: str) -> None:
    headers = {"content-type": kind, "ce-id": "outer", "ce-type": TYPE + "response"}
    data = body.encode("utf-8", "surrogatepass")
    assert told(as_hashes(headers, data)[0]) == told(whole(headers, data))


def test_collectors_that_keep_hashes_and_bodies_come_to_the_same_confidences(
    start: Starter, tmp_path: Path
) -> None:
    pairs = [(structured(f"{n}", "request", asked(n)), structured(f"{n}", "response", ANSWER))
             for n in range(4)]  # fmt: skip
    deliveries = [
        (ONE, pairs[0][0]),
        (ONE, pairs[0][1]),
        (BATCH, [pairs[1][0], *pairs[2], pairs[1][1]]),
        (f"{BATCH}; charset=utf-8", pairs[3]),
        (BATCH, [structured("odd", "request", asked(9), type="some.other.type"), 7, 8]),
        (ONE, [structured("lost", "request", asked(8))]),
    ]
    found = []
    for keep in ("bodies", "hashes"):
        folder = tmp_path / keep / "events"
        server = start("collect", events=str(folder), port=0, keep=keep)
        for kind, value in deliveries:
            body = json.dumps(value).encode()
            assert server.post("/", body, {"Content-Type": kind, "Cookie": "s=1"})[0] == 200
        assert server.stop() == 0
        outputs = harvest(config=json.dumps({"lake": str(folder.parent), "name": "test"}))
        lake = Lake.open(str(folder.parent), loop="test")
        events, rows = (lake.read(name).to_pylist() for name in ("harvest_events", "confidences"))
        assert (outputs.n_events, len(rows)) == (11, 4)
        states = Counter((e["event_id"], e["kind"], e["state"], e["reason"]) for e in events)
        sure = sorted(
            (row["event_id"], row["sample_id"], tuple(row["probabilities"])) for row in rows
        )
        found.append((states, {e["line_sha256"] for e in events}, sure))
    assert found[0] == found[1]
    assert found[0][0]["odd", "unknown", "rejected", "type_unknown"] == 1
    assert found[0][0][None, "unknown", "rejected", "structured_invalid"] == 2
    kept = lines(tmp_path / "hashes" / "events")
    assert sum("body_b64" in line for line in kept) == 4  # the replies
    text = b"".join(one.read_bytes() for one in (tmp_path / "hashes").rglob("*.jsonl"))
    for seed in (0, 1, 2, 3, 8, 9):
        assert encoded_request(picture(seed))[40:100] not in text


def test_nothing_of_what_is_no_event_is_kept_but_its_hash() -> None:
    image = base64.b64encode(picture(3)).decode()
    for value in (
        {"instances": [{"b64": image}]},
        {"id": "1", "type": TYPE + "request", "b64": image},
        {"id": "1", "type": TYPE + "request", "source": [image]},
        {"id": "1", "type": TYPE + "other", "data": image},
        [image],
        image,
    ):
        for kind in (ONE, BATCH):
            body = json.dumps(value).encode()
            events, kept = as_hashes({"content-type": kind}, body)
            assert len(events) == 1
            assert image[-40:].encode() not in kept
            assert told(events) == told(whole({"content-type": kind}, body))


def test_a_share_of_structured_requests_keeps_its_pixels() -> None:
    body = json.dumps([structured("a", "request", asked(1)), structured("a", "response", ANSWER)])
    record = {"received_at": "", "headers": {"content-type": BATCH}}
    pixels = Pixels(1.0)
    kept = list(reducing.reduced(record, body.encode(), pixels))
    (request,) = parse_line(kept[0])
    assert json.loads(request.body) == asked(1)
    assert (request.kept and request.kept.rate, pixels.counts) == (1.0, {"kept": 1})
    assert orjson.loads(kept[1]).get("keep_rate") is None


def test_what_kills_its_reader_is_not_taken_apart_again() -> None:
    body = json.dumps(structured("a", "request", asked(1))).encode()
    (event,), kept = as_hashes({"content-type": ONE}, body, hopeless=True)
    assert event.problem == "structured_decoder_failed"
    assert b"b64" not in kept


def test_to_read_one_event_takes_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(*_: object) -> Any:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(reducing, "_READ_SECONDS", 0.1)
    monkeypatch.setattr(reducing, "decode_request", forever)
    monkeypatch.setattr(reducing, "taken_apart", forever)
    headers = {"ce-id": "a", "ce-type": TYPE + "request"}
    (event,), _ = as_hashes(headers, b"{}")
    assert event.kept and event.kept.request
    assert event.kept.request.problem == "request_decoder_failed"
    (event,), _ = as_hashes({"content-type": ONE}, b"{}")
    assert event.problem == "structured_decoder_failed"


def test_an_event_that_is_nested_too_deep_is_told_and_stops_nobody() -> None:
    deep = b"[" * 1000 + b"]" * 1000
    body = b'{"id": "a", "type": "%srequest", "data": %s}' % (TYPE.encode(), deep)
    for events in (whole({"content-type": ONE}, body), as_hashes({"content-type": ONE}, body)[0]):
        assert [event.problem for event in events] == ["structured_invalid"]
    (event,) = parse_line(b'{"headers": {"ce-id": %s}}' % deep)
    assert event.problem == "line_invalid"
    records = b'[{"annotations": %s}, {"bytes": 5}, {"bytes": "e30=", "id": "a"}]' % deep
    found = list(blob_events(records, "a-request.json"))
    assert [event.problem for event in found] == ["blob_invalid", "blob_invalid", "type_missing"]


def test_a_long_batch_of_nothing_is_told_once() -> None:
    body = b"[" + b"0," * 200_000 + b"0]"
    began = time.process_time()
    for _ in range(2):
        found = list(events_of({"content-type": BATCH}, body, received_at=None))
        assert [event.problem for event in found] == ["structured_invalid"]
    assert time.process_time() - began < 2  # hashed for each member, it takes a minute


def test_lines_of_a_long_batch_are_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reducing, "_WRITE_BYTES", 5000)
    raw = raw_spool.make_private(tmp_path / ".raw")
    body = json.dumps([structured(f"{n}", "response", ANSWER) for n in range(100)]).encode()
    head = {"received_at": "", "headers": {"content-type": BATCH}}
    (raw / "20260101.raw").write_bytes(b"".join(raw_spool.pack(head, [body])))
    writer = SegmentWriter(tmp_path)
    written: list[int] = []
    write = writer.write

    def note(buffers: Any, done: Any) -> None:
        written.append(sum(map(len, buffers)))
        write(buffers, done)

    monkeypatch.setattr(writer, "write", note)
    assert reducing.reduce_folder(raw, writer, Pixels(0.0))
    writer.close()
    assert [line["headers"]["ce-id"] for line in lines(tmp_path)] == [f"{n}" for n in range(100)]
    assert len(written) > 3
    assert max(written) < 6000
