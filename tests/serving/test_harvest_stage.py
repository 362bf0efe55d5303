"""The stage: incremental, resumable, into a real lake."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import picture, write_events
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.stages.harvest import HarvestOutputs, harvest


class Loop:
    """A lake, and events that are harvested into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = folder / "events"
        self.config: dict[str, Any] = {"lake": str(folder), "name": "test"}

    def harvest(self, events: Path | None = None, **arguments: Any) -> HarvestOutputs:
        return harvest(
            config=json.dumps(self.config), events=str(events) if events else "", **arguments
        )

    def rows(self, table: str) -> list[dict[str, Any]]:
        return Lake.open(str(self.folder), loop="test").read(table).to_pylist()

    def states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self.rows("harvest_events"):
            found[row["state"]] = found.get(row["state"], 0) + 1
        return found


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path / "lake")


def event(kind: str, event_id: str, body: bytes, **more: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": f"org.kubeflow.serving.inference.{kind}",
        "ce-inferenceservicename": "svc",
        "ce-namespace": "ns",
        "ce-time": now.isoformat(),
        "content-type": "application/json",
    }
    return {
        "received_at": more.pop("received_at", now).isoformat(),
        "headers": {**headers, **more},
        "body_b64": base64.b64encode(body).decode(),
    }


def request(event_id: str, seed: int = 0, **more: Any) -> dict[str, Any]:
    image = base64.b64encode(picture(seed)).decode()
    body = json.dumps({"instances": [{"b64": image}]}).encode()
    return event("request", event_id, body, **more)


def response(event_id: str, p: float = 0.25, **more: Any) -> dict[str, Any]:
    reply = {"predictions": [[p, 1 - p]], "model_id": "model-1"}
    return event("response", event_id, json.dumps(reply).encode(), **more)


def test_harvesting_again_adds_nothing(loop: Loop) -> None:
    write_events(loop.events / "a.events.jsonl", [request("1"), response("1"), request("2")])
    first = loop.harvest()
    assert (first.n_events, first.n_confidences, first.n_pending) == (3, 1, 1)
    before = loop.rows("confidences"), loop.rows("harvest_events")
    again = loop.harvest()
    assert (again.n_events, again.n_confidences) == (0, 0)
    assert again.lake_version == first.lake_version
    assert (loop.rows("confidences"), loop.rows("harvest_events")) == before


def test_a_copy_of_a_segment_is_counted_as_repeated_and_adds_nothing(loop: Loop) -> None:
    path = write_events(loop.events / "a.events.jsonl", [request("1"), response("1")])
    loop.harvest()
    with gzip.open(loop.events / "b.events.jsonl.gz", "wb") as copy:
        copy.write(path.read_bytes())
    outputs = loop.harvest()
    assert (outputs.n_events, outputs.n_confidences) == (2, 0)
    assert loop.states() == {"harvested": 2, "duplicate": 2}
    assert len(loop.rows("confidences")) == 1


def test_halves_in_two_harvests_are_joined(loop: Loop) -> None:
    write_events(loop.events / "a.events.jsonl", [request("1", seed=7), response("2")])
    assert loop.harvest().n_pending == 2
    # The answer whose request is not there yet is known, though its image is not.
    assert [row["sample_id"] for row in loop.rows("confidences")] == [None]
    write_events(loop.events / "b.events.jsonl", [response("1"), request("2", seed=8)])
    outputs = loop.harvest()
    assert (outputs.n_events, outputs.n_pending) == (2, 0)
    assert loop.states() == {"harvested": 4}
    rows = loop.rows("confidences")
    assert len(rows) == 2
    assert all(row["sample_id"] for row in rows)


def test_an_orphan_is_joined_when_its_counterpart_comes_at_last(loop: Loop) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=3)
    write_events(loop.events / "a.events.jsonl", [request("1", received_at=long_ago)])
    assert loop.harvest().n_orphans == 1
    write_events(loop.events / "b.events.jsonl", [response("1", received_at=long_ago)])
    loop.harvest()
    assert loop.states() == {"harvested": 2}
    assert len(loop.rows("confidences")) == 1


def test_what_waited_long_enough_becomes_an_orphan(loop: Loop) -> None:
    loop.config["serving"] = {"pending_hours": 2 / 3600}
    write_events(loop.events / "a.events.jsonl", [request("1")])
    assert loop.harvest().n_pending == 1
    import time

    time.sleep(2.2)
    loop.harvest()
    assert loop.states() == {"orphan": 1}


def test_a_growing_segment_is_read_from_where_it_stopped(loop: Loop) -> None:
    path = write_events(loop.events / "a.events.jsonl", [request("1"), response("1")])
    torn = json.dumps(request("2", seed=1)).encode()
    with path.open("ab") as file:
        file.write(torn[:100])
    assert loop.harvest().n_events == 2
    with path.open("ab") as file:
        file.write(torn[100:] + b"\n" + json.dumps(response("2")).encode())
    outputs = loop.harvest()
    assert (outputs.n_events, outputs.n_confidences, outputs.n_rejected) == (2, 1, 0)
    assert loop.states() == {"harvested": 4}
    ledger = loop.rows("harvest_ledger")
    assert max(row["bytes_read"] for row in ledger) == path.stat().st_size
    assert max(row["lines_read"] for row in ledger) == 4


def test_a_gzip_file_that_grew_or_is_cut_is_read_as_far_as_it_goes(loop: Loop) -> None:
    path = loop.events / "a.events.jsonl.gz"
    path.parent.mkdir(parents=True)
    lines = [json.dumps(line).encode() + b"\n" for line in (request("1"), response("1"))]
    path.write_bytes(gzip.compress(lines[0]))
    assert loop.harvest().n_events == 1
    path.write_bytes(gzip.compress(lines[0]) + gzip.compress(lines[1]) + b"\x1f\x8b\x08\x00")
    assert loop.harvest().n_events == 1
    assert loop.states() == {"harvested": 2}


def test_broken_lines_are_counted_where_they_stand(loop: Loop) -> None:
    path = write_events(loop.events / "a.events.jsonl", [request("1")])
    with path.open("ab") as file:
        file.write(b'not json\n{"headers": 1}\n{"headers": {}, "body_b64": "*"}\n\n[1]\n\xff\n')
        file.write(json.dumps(response("1")).encode() + b"\n")
    outputs = loop.harvest()
    assert (outputs.n_events, outputs.n_rejected, outputs.n_confidences) == (7, 5, 1)
    rejected = [row for row in loop.rows("harvest_events") if row["state"] == "rejected"]
    assert {row["reason"] for row in rejected} == {"line_invalid"}
    assert {row["line"] for row in rejected} == {2, 3, 4, 6, 7}


def test_nothing_logged_yet_is_no_error_and_a_wrong_name_is(loop: Loop, tmp_path: Path) -> None:
    loop.events.mkdir(parents=True, exist_ok=True)
    assert loop.harvest().n_events == 0
    with pytest.raises(InputError, match="no events to harvest"):
        loop.harvest(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="holds no events"):
        loop.harvest(tmp_path / "notes.txt")


def test_other_files_beside_the_segments_are_left_alone(loop: Loop) -> None:
    write_events(loop.events / "a.events.jsonl", [request("1"), response("1")])
    (loop.events / "README.md").write_text("not an event")
    assert loop.harvest().n_events == 2


def test_the_label_is_named_by_the_models_card_where_the_reply_names_none(loop: Loop) -> None:
    import pyarrow as pa

    lake = Lake.open(str(loop.folder), loop="test")
    with lake.run(stage="train") as run:
        run.append(
            "experiments", pa.Table.from_pylist([{"model_id": "model-1", "classes": ["a", "b"]}])
        )
        run.commit()
    write_events(loop.events / "a.events.jsonl", [request("1"), response("1", p=0.25)])
    loop.harvest()
    (row,) = loop.rows("confidences")
    assert (row["label"], row["model_id"]) == ("b", "model-1")
    assert row["confidence"] == 0.75


def test_headers_keep_their_unicode_and_name_model_and_time(loop: Loop) -> None:
    wire = {"ce-id": "Füchse-1", "ce-namespace": "größe"}
    latin = {name: value.encode().decode("latin-1") for name, value in wire.items()}
    latin["ce-annotations"] = '{"visionloop.dev/model-id":"m-7"}'
    latin["ce-time"] = "2026-03-04T05:06:07.123456789Z"
    body = json.dumps({"predictions": [[0.5, 0.5]]}).encode()
    received = datetime(2026, 3, 4, 6, tzinfo=UTC)
    write_events(
        loop.events / "a.events.jsonl",
        [
            request("x", received_at=received, **latin),
            event("response", "x", body, received_at=received, **latin),
        ],
    )
    loop.harvest()
    (row,) = loop.rows("confidences")
    assert (row["event_id"], row["namespace"], row["model_id"]) == ("Füchse-1", "größe", "m-7")
    assert row["occurred_at"] == datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)


def test_a_clock_that_is_years_off_is_not_believed(loop: Loop) -> None:
    write_events(
        loop.events / "a.events.jsonl",
        [
            request("1", **{"ce-time": "2036-01-01T00:00:00Z"}),
            response("1", **{"ce-time": "1970-01-01T00:00:00Z"}),
        ],
    )
    loop.harvest()
    (row,) = loop.rows("confidences")
    assert abs(row["occurred_at"] - datetime.now(UTC)) < timedelta(minutes=5)


def test_structured_events_and_batches_of_them_are_read(loop: Loop) -> None:
    def structured(line: dict[str, Any]) -> dict[str, Any]:
        attributes = {
            name.removeprefix("ce-"): value
            for name, value in line["headers"].items()
            if name.startswith("ce-")
        }
        return {
            **attributes,
            "datacontenttype": "application/json",
            "data_base64": line["body_b64"],
        }

    def line(content_type: str, value: Any) -> dict[str, Any]:
        return {
            "received_at": datetime.now(UTC).isoformat(),
            "headers": {"content-type": content_type},
            "body_b64": base64.b64encode(json.dumps(value).encode()).decode(),
        }

    write_events(
        loop.events / "a.events.jsonl",
        [
            line("application/cloudevents+json", structured(request("1"))),
            line(
                "application/cloudevents-batch+json; charset=utf-8",
                [structured(response("1")), structured(request("2")), structured(response("2"))],
            ),
        ],
    )
    outputs = loop.harvest()
    assert (outputs.n_events, outputs.n_confidences) == (4, 2)


def test_the_stage_writes_its_page_and_metrics(loop: Loop, tmp_path: Path) -> None:
    class Page:
        path, uri, metadata = str(tmp_path / "page.md"), "", {}

    class Metrics(dict):  # type: ignore[type-arg]
        log_metric = dict.__setitem__

    metrics = Metrics()
    write_events(loop.events / "a.events.jsonl", [request("1"), response("1")])
    loop.harvest(page=Page(), metrics=metrics)
    assert metrics["n_events"] == 2
    text = Path(Page.path).read_text()
    assert "2 events were read" in text
    assert "| 0.7-0.8 | 1 |" in text


def test_every_recorded_scenario_at_once(loop: Loop, shared: Path) -> None:
    events = loop.folder / "recorded"
    events.mkdir(parents=True)
    lines = 0
    for path in (shared / "events").glob("*.events.jsonl.gz"):
        shutil.copy(path, events)
        lines += gzip.decompress(path.read_bytes()).count(b"\n")
    outputs = loop.harvest(events)
    states = loop.states()
    assert outputs.n_events == sum(states.values()) == lines
    assert states["harvested"] == 2210
    assert loop.harvest(events).n_events == 0
    assert loop.states() == states
