"""Eight writers lose and double nothing, and one that is killed ends with the same tables."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.lake.old_lake import on_disk, rows
from tests.lake.writers import count, processes, work
from tests.servers import postgresql, postgresql_programs
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.lake.vacuum import vacuum

WRITERS = 8
STEPS = 6


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param(
            "postgresql",
            marks=[
                pytest.mark.postgres,
                pytest.mark.skipif(
                    postgresql_programs() is None, reason="PostgreSQL's server is not installed"
                ),
            ],
        ),
    ]
)
def catalog(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield a catalog's address; empty for the one inside the lake."""
    if request.param == "sqlite":
        yield ""
        return
    with postgresql() as address:
        yield address


def nothing_broken(lake: Lake) -> bool:
    # A file that was skipped has no sample, and these vectors are of none.
    return not [
        found
        for found in check(lake)
        if found.broken and not found.check.startswith("embeddings_s")
    ]


def test_eight_writers_at_once_lose_and_double_nothing(catalog: str, tmp_path: Path) -> None:
    times = 2
    lake = Lake.open(str(tmp_path / "lake"), catalog=catalog, loop="test")
    children = [
        processes.Process(target=count, args=(lake.uri, catalog, writer, times))
        for writer in range(WRITERS)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(280)
    assert [child.exitcode for child in children] == [0] * WRITERS
    names = sorted(f"{writer}-{i}" for writer in range(WRITERS) for i in range(times))
    assert sorted(lake.read("files")["uri"].to_pylist()) == names
    assert lake.embeddings("s")[0] == names
    assert lake.read("decisions")["outcome"].to_pylist() == [str(WRITERS * times)]
    history = lake.history()
    assert history["sequence"].to_pylist() == list(range(WRITERS * times))
    # Each version is one writer's, whole: its tables agree with each other.
    for number, version in enumerate(history["version"].to_pylist(), start=1):
        held = [lake.read(name, version=version).num_rows for name in ("files", "decisions")]
        assert held == [number, 1]
        assert lake.read("decisions", version=version)["outcome"].to_pylist() == [str(number)]


def killed_and_run_again(lake: Lake, catalog: str, kills: int, within: float, seed: int) -> int:
    """Start the job again and again, kill it after a while, and then let it end.

    Args:
        lake: The lake.
        catalog: Its catalog.
        kills: How often it is killed.
        within: The longest time that it is left alone, in seconds.
        seed: Of the times.

    Returns:
        How often it was killed before it had ended.
    """
    chance = random.Random(seed)
    hit = 0
    for last in [False] * kills + [True]:
        ours, theirs = processes.Pipe()
        child = processes.Process(target=work, args=(lake.uri, catalog, STEPS, theirs))
        child.start()
        assert ours.recv() == "ready"
        if not last:
            time.sleep(chance.uniform(0, within))
            child.kill()
        child.join(280)
        hit += child.exitcode == -9
    assert child.exitcode == 0
    return hit


def compare_with_uninterrupted(catalog: str, tmp_path: Path, kills: int, jobs: int) -> None:
    whole = Lake.open(str(tmp_path / "whole"), loop="test")
    began = time.monotonic()
    work(whole.uri, "", STEPS)
    seconds = time.monotonic() - began
    expected = rows(whole)
    assert sorted(map(len, expected.values())) == [STEPS + 1, 5 * STEPS, 5 * STEPS]
    hit = 0
    for job in range(jobs):
        # One PostgreSQL keeps a loop of one name: each job begins with an empty database.
        lake = Lake.open(str(tmp_path / f"lake-{job}"), catalog=catalog, loop="test")
        # Each start gets a part further: a share of the job's time a kill.
        hit += killed_and_run_again(lake, catalog, kills // jobs, 2 * seconds * jobs / kills, job)
        assert rows(lake) == expected
        sequences = lake.history()["sequence"].to_pylist()
        assert sequences == list(range(len(sequences)))
        assert lake.history()["stage"].to_pylist().count("step") == STEPS
        assert nothing_broken(lake)
        vacuum(lake, keep_versions=1, safety=timedelta(0))
        assert rows(lake) == expected
        # Nothing is left of what was killed: the files that stay are those that are read.
        there = sum("/data/" in path for path in on_disk(lake.uri))
        named = 0
        for name in [*lake._version(None).tables, "stage_runs"]:
            table = lake.table(name)
            assert table is not None
            named += len(list(table.scan().plan_files()))
        assert there == named
    assert hit > 0, "the job always ended before it was killed"


def test_a_writer_that_is_killed_and_run_again_makes_the_same_tables_to_the_row(
    tmp_path: Path,
) -> None:
    compare_with_uninterrupted("", tmp_path, kills=3, jobs=1)


@pytest.mark.soak
def test_fifty_kills_leave_the_same_tables(catalog: str, tmp_path: Path) -> None:
    # A PostgreSQL keeps one lake of that name.
    compare_with_uninterrupted(catalog, tmp_path, kills=50, jobs=1 if catalog else 10)
