"""Every scenario that KServe's own logger recorded, against what the clients got."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.serving.events import parse_line
from visionloop.serving.harvesting import STATES, Harvest, Seen, harvest_events, see, seen_rows
from visionloop.serving.segments import Position, Reader, find

SCENARIOS = [
    "burst",
    "disorder",
    "duplicates",
    "errors",
    "garbage",
    "grpc",
    "metadata",
    "other_paths",
    "request_only",
    "response_only",
    "v1_jpeg",
    "v1_json",
    "v1_reply_objects",
    "v2_binary",
    "v2_binary_rawjpeg",
    "v2_bytes",
    "v2_json",
]
NOW = datetime(2100, 1, 1, tzinfo=UTC)


def read(uri: Path) -> list[Seen]:
    return [see(event) for info in find(str(uri)) for event in Reader(info, Position()).events()]


def truths(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answered(rows: list[dict[str, Any]], *, known: bool = True) -> Counter[Any]:
    """Count what clients got: image or tensor, place in the batch, probabilities to the bit."""
    found: Counter[Any] = Counter()
    for row in rows:
        for index, values in enumerate(row["probabilities"] or []):
            image = row["image_sha256"][index] if row["image_sha256"] else None
            tensor = row["tensor_sha256"][index] if row["tensor_sha256"] else None
            names = (image, tensor) if known else (None, None)
            found[(*names, index, np.asarray(values, np.float32).tobytes())] += 1
    return found


def harvested(table: pa.Table) -> Counter[Any]:
    return Counter(
        (
            row["sample_id"],
            row["tensor_sha256"],
            row["row"],
            np.asarray(row["probabilities"], np.float32).tobytes(),
        )
        for row in table.to_pylist()
    )


def assert_counts_add_up(found: Harvest) -> None:
    assert found.counts["events"] == sum(found.counts[state] for state in STATES)
    assert found.counts["events"] == sum(found.reasons.values())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_harvested_probabilities_are_the_answered_ones_to_the_bit(
    shared: Path, scenario: str
) -> None:
    found = harvest_events(
        read(shared / "events" / f"{scenario}.events.jsonl.gz"), [], orphaned_before=NOW
    )
    truth = truths(shared / "events" / f"{scenario}.truth.jsonl")
    rows = harvested(found.new_confidences)
    assert_counts_add_up(found)
    if scenario == "request_only":
        assert not rows  # nobody logged an answer
        assert found.reasons == {("orphan", "request_without_response"): 40}
    elif scenario == "response_only":
        assert rows == answered(truth, known=False)
        assert found.reasons == {("orphan", "response_without_request"): 60}
    elif scenario == "garbage":
        assert not answered(truth) - rows
    else:
        assert rows == answered(truth)


def test_every_event_is_counted_with_its_reason(shared: Path) -> None:
    def reasons(scenario: str) -> dict[Any, int]:
        path = shared / "events" / f"{scenario}.events.jsonl.gz"
        return harvest_events(read(path), [], orphaned_before=NOW).reasons

    # 400, 404, 422, 500 and 502 give no response event; a gRPC error gives an empty one.
    assert reasons("errors") == {
        ("harvested", ""): 96,
        ("orphan", "request_without_response"): 50,
        ("rejected", "grpc_error"): 4,
    }
    assert reasons("other_paths") == {("harvested", ""): 48, ("ignored", "not_an_inference"): 48}


def test_an_id_that_clients_reuse_joins_each_answer_to_its_own_image(shared: Path) -> None:
    found = harvest_events(
        read(shared / "events" / "duplicates.events.jsonl.gz"), [], orphaned_before=NOW
    )
    rows = found.new_confidences.to_pylist()
    for truth in truths(shared / "events" / "duplicates.truth.jsonl"):
        values = np.asarray(truth["probabilities"][0], np.float32)
        mine = [r for r in rows if r["request_sha256"] == truth["request_body_sha256"]]
        assert any(
            (truth["key"] is None or row["event_id"] == truth["key"])
            and row["sample_id"] == truth["image_sha256"][0]
            and np.array_equal(np.asarray(row["probabilities"], np.float32), values)
            for row in mine
        )


def test_garbage_gives_no_confidence_that_is_no_probability(shared: Path) -> None:
    found = harvest_events(
        read(shared / "events" / "garbage.events.jsonl.gz"), [], orphaned_before=NOW
    )
    for row in found.new_confidences.to_pylist():
        values = np.asarray(row["probabilities"], np.float64)
        assert len(values) >= 2
        assert ((values >= 0) & (values <= 1)).all()
        assert abs(values.sum() - 1) <= 1e-3
    reasons = {reason for state, reason in found.reasons if state == "rejected"}
    assert reasons >= {
        "nested_too_deep", "not_finite", "sum_not_1", "not_probabilities", "shape_mismatch",
        "shape_invalid", "binary_size", "not_numbers", "unknown_datatype", "grpc_truncated",
        "compression_invalid", "rows_differ", "conflicting_responses", "response_empty",
        "error_reply", "not_utf8", "not_json", "id_missing", "type_missing", "type_unknown",
    }  # fmt: skip


def test_uncertainty_scores_are_those_of_the_selection_room(shared: Path) -> None:
    from visionloop.selection.scores import entropy, least_confidence, margin

    found = harvest_events(
        read(shared / "events" / "v1_jpeg.events.jsonl.gz"), [], orphaned_before=NOW
    )
    rows = found.new_confidences
    values = np.array(rows["probabilities"].to_pylist(), np.float32)
    for name, score in (
        ("least_confidence", least_confidence),
        ("margin", margin),
        ("entropy", entropy),
    ):
        assert np.allclose(rows[name].to_numpy(), score(values), atol=1e-6)


@pytest.mark.parametrize(
    "variant", ["json_single", "json_single_grpc", "json_batch", "json_timed_batch", "csv_batch"]
)
def test_objects_of_the_blob_logger_are_read_too(shared: Path, variant: str) -> None:
    found = harvest_events(read(shared / "events" / "blob" / variant), [], orphaned_before=NOW)
    truth = [
        row
        for row in truths(shared / "events" / "blob" / "blob.truth.jsonl")
        if row["scenario"] == f"blob/{variant}"
    ]
    rows = harvested(found.new_confidences)
    # The second inference with one id overwrote the objects of the first.
    lost = sum((answered(truth) - rows).values())
    assert not rows - answered(truth)
    assert lost == (1 if variant == "json_single" else 0)
    assert_counts_add_up(found)


def in_harvests(batches: list[list[Seen]]) -> tuple[list[Any], list[Any]]:
    """Harvest one batch after the other as the stage does; return both tables, sorted."""
    events: list[dict[str, Any]] = []
    confidences: list[dict[str, Any]] = []
    for batch in batches:
        ids = {seen.event_id for seen in batch if seen.event_id}
        table = pa.Table.from_pylist(
            [row for row in events if row["event_id"] in ids],
            schema=harvest_events([], [], orphaned_before=NOW).new_events.schema,
        )
        found = harvest_events(batch, seen_rows(table), orphaned_before=NOW)
        assert_counts_add_up(found)
        changed = set(found.changed_ids)
        events = [row for row in events if row["event_id"] not in changed]
        confidences = [row for row in confidences if row["event_id"] not in changed]
        events += found.new_events.to_pylist() + found.changed_events.to_pylist()
        confidences += found.new_confidences.to_pylist() + found.changed_confidences.to_pylist()

    def key(row: dict[str, Any]) -> Any:
        return json.dumps(row, default=str, sort_keys=True)

    states = [
        (row["event_id"], row["line_sha256"], row["state"], row["reason"])
        for row in events
        if row["state"] != "duplicate" and row["event_id"]
    ]
    return sorted(confidences, key=key), sorted(states)


@pytest.fixture(scope="module")
def mixed(shared: Path) -> list[Seen]:
    """Reused ids, lost halves and garbage."""
    found: list[Seen] = []
    for scenario, count in (("duplicates", 212), ("errors", 40), ("garbage", 171)):
        found += read(shared / "events" / f"{scenario}.events.jsonl.gz")[:count]
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.integers(0, 6), repeats=st.integers(0, 40))
def test_order_repetition_and_harvests_make_no_difference(
    mixed: list[Seen], seed: int, cuts: int, repeats: int
) -> None:
    rng = random.Random(seed)
    shuffled = mixed + rng.sample(mixed, repeats)
    rng.shuffle(shuffled)
    places = sorted(rng.sample(range(len(shuffled)), cuts))
    batches = [shuffled[a:b] for a, b in zip([0, *places], [*places, len(shuffled)], strict=True)]
    assert in_harvests(batches) == in_harvests([mixed])


def test_a_repeated_delivery_is_counted_and_adds_nothing(shared: Path) -> None:
    seen = read(shared / "events" / "v2_json.events.jsonl.gz")
    found = harvest_events(seen + seen, [], orphaned_before=NOW)
    assert found.counts["duplicate"] == len(seen)
    assert found.counts["inferences"] == 93
    assert_counts_add_up(found)


@settings(max_examples=150, deadline=timedelta(seconds=5))
@given(data=st.data())
def test_no_mutation_of_a_body_stops_the_harvest(shared: Path, data: Any) -> None:
    line = data.draw(st.sampled_from(_lines(shared)))
    body = bytearray(line)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[place] = data.draw(st.integers(0, 255))
        else:
            del body[place : place + data.draw(st.integers(1, 40))]
    seen = [see(event) for event in parse_line(bytes(body))]
    found = harvest_events(seen, [], orphaned_before=NOW)
    assert_counts_add_up(found)


_LINES: list[bytes] = []


def _lines(shared: Path) -> list[bytes]:
    if not _LINES:
        for scenario in ("grpc", "v2_binary", "v1_jpeg", "v1_reply_objects"):
            with gzip.open(shared / "events" / f"{scenario}.events.jsonl.gz") as file:
                _LINES.extend(sorted(file, key=len)[:10])
    return _LINES
