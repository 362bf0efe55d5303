"""A harvest in parts on the disk gives what one join in memory gives."""

from __future__ import annotations

import errno
import json
import random
import subprocess
import sys
import textwrap
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.conftest import write_events
from tests.serving.small_events import harvest_beside, write_segments
from tests.serving.test_harvest_stage import Loop, loop, request, response
from visionloop.errors import VisionloopError
from visionloop.serving import joining
from visionloop.serving.events import Event
from visionloop.serving.harvesting import STATES, harvest_events
from visionloop.serving.joining import Joined, Joiner
from visionloop.serving.key_hashes import among, hashes
from visionloop.serving.seen import see
from visionloop.serving.segments import Position, Reader, find
from visionloop.serving.spilling import PREFIX, Rows, Scratch

__all__ = ["loop"]

NOW = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def mixed(shared: Path) -> list[Event]:
    """Reused ids, lost halves, repeated deliveries and garbage."""
    found: list[Event] = []
    for scenario, count in (("duplicates", 212), ("errors", 40), ("garbage", 171), ("v2_json", 20)):
        (info,) = find(str(shared / "events" / f"{scenario}.events.jsonl.gz"))
        found += list(Reader(info, Position()).events())[:count]
    return found


def plain(rows: pa.Table | list[dict[str, Any]]) -> list[str]:
    listed = rows.to_pylist() if isinstance(rows, pa.Table) else rows
    return sorted(json.dumps(row, default=repr, sort_keys=True) for row in listed)


def rows_of(*spilled: Any) -> list[dict[str, Any]]:
    return [row for rows in spilled for part in rows.parts(10_000) for row in part.to_pylist()]


def harvested(batches: list[list[Event]], parts: int) -> tuple[list[Any], list[Any], Counter[Any]]:
    """Harvest one batch after the other as the stage does; return both tables, and the counts."""
    events: list[dict[str, Any]] = []
    confidences: list[dict[str, Any]] = []
    counts: Counter[Any] = Counter()
    schema = harvest_events([], [], orphaned_before=NOW).new_events.schema
    for batch in batches:
        with Scratch() as folder:
            joiner = Joiner(folder, parts)
            joiner.read(batch)
            table = pa.Table.from_pylist(events, schema=schema)
            held = table.filter(pa.array(among(table["event_id"], joiner.hashes())))
            joined = joiner.join([held], orphaned_before=NOW, classes={})
            changed = set(joined.changed_ids.to_pylist())
            events = [row for row in events if row["event_id"] not in changed]
            events += rows_of(joined.new_events, joined.changed_events)
            confidences = [row for row in confidences if row["event_id"] not in changed]
            confidences += rows_of(joined.new_confidences, joined.changed_confidences)
            assert_accounted(joined, len(batch))
            counts.update(joined.counts)
    return events, confidences, counts


def assert_accounted(joined: Joined, events: int) -> None:
    assert joined.counts["events"] == events
    assert sum(joined.counts[state] for state in STATES) == events
    assert joined.reasons.total() == events


@pytest.mark.parametrize("parts", [1, 7])
def test_the_tables_and_counts_are_those_of_one_join_in_memory(
    mixed: list[Event], parts: int
) -> None:
    whole = harvest_events([see(event) for event in mixed], [], orphaned_before=NOW)
    events, confidences, counts = harvested([mixed], parts)
    assert plain(events) == plain(whole.new_events)
    assert plain(confidences) == plain(whole.new_confidences)
    assert counts == Counter(whole.counts)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.integers(0, 4),
    parts=st.integers(1, 40),
    batch=st.integers(1, 600),
)
def test_no_order_cut_batch_or_number_of_parts_makes_a_difference(
    mixed: list[Event], seed: int, cuts: int, parts: int, batch: int
) -> None:
    rng = random.Random(seed)
    shuffled = list(mixed)
    rng.shuffle(shuffled)
    places = sorted(rng.sample(range(len(shuffled)), cuts))
    cut = [shuffled[a:b] for a, b in zip([0, *places], [*places, len(shuffled)], strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "BATCH_EVENTS", batch)
        events, confidences, _ = harvested(cut, parts)
    expected, rows, _ = harvested([mixed], 3)
    assert states(events) == states(expected)
    assert plain(confidences) == plain(rows)


def states(rows: list[dict[str, Any]]) -> Counter[Any]:
    names = ("event_id", "line_sha256", "state", "reason")
    return Counter(tuple(row[name] for name in names) for row in rows)


@given(st.lists(st.text(max_size=300) | st.none(), max_size=30))
def test_the_hash_is_of_the_text_alone_however_it_is_stored(texts: list[str | None]) -> None:
    texts = [None if one is None else one.encode("utf-8", "replace").decode() for one in texts]
    found = hashes(pa.array(texts, pa.string()))
    for kind in (pa.string(), pa.large_string()):
        padded = pa.array(["x", *texts, "y"], kind)[1:-1]
        assert np.array_equal(hashes(padded), found)
    # Equal texts have equal hashes, and by chance nothing else does.
    assert len(set(found.tolist())) == len({one or "" for one in texts})
    wanted = np.unique(found)
    assert among(pa.array(texts, pa.string()), wanted).tolist() == [
        one is not None for one in texts
    ]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_events_need_hardly_more_memory_than_a_hundred_thousand(tmp_path: Path) -> None:
    peaks = []
    for inferences in (50_000, 500_000):
        events = tmp_path / f"events-{inferences}"
        write_segments(events, inferences)
        found = harvest_beside(tmp_path / f"lake-{inferences}", events)
        assert (found["n_events"], found["n_confidences"]) == (2 * inferences, inferences)
        peaks.append(found["peak_mib"])
        print(f"{2 * inferences} events: {peaks[-1]} MiB, {found['cpu_s']:.0f} s of CPU")
    # 8 bytes an event, and what the allocators keep.
    assert peaks[1] < peaks[0] + 150


def test_what_a_killed_harvest_left_is_removed_and_what_one_holds_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
        import sys, time
        from visionloop.serving.spilling import Scratch
        with Scratch() as folder:
            (folder / "rows.arrow").write_bytes(bytes(1000))
            print(folder, flush=True)
            sys.stdin.read()
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().decode().strip())
        with Scratch() as mine:
            assert mine.parent == tmp_path
            assert folder.exists()
        process.kill()
        process.wait()
    assert folder.exists()
    with Scratch() as mine:
        assert list(tmp_path.glob(f"{PREFIX}*")) == [mine]
    assert not list(tmp_path.iterdir())


def test_a_harvest_without_room_for_temporary_rows_says_so_and_leaves_the_lake(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_events(loop.events / "a.events.jsonl", [request("1"), response("1")])
    with monkeypatch.context() as patch:
        patch.setattr(Rows, "add", full)
        with pytest.raises(VisionloopError, match="cannot keep its temporary rows") as told:
            loop.harvest()
    assert "TMPDIR" in str(told.value)
    assert loop.harvest().n_confidences == 1
