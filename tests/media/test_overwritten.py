"""Images that are overwritten between the listing of a source and their reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bucket_stub import bucket_stub
from tests.media.pictures import encoded, photograph
from tests.media.sources.making import source_of
from visionloop.media.inspect import sample_id_of
from visionloop.media.reading import examine

BEFORE, AFTER, OTHER = (encoded(photograph(40, 32, seed)) for seed in (1, 2, 3))


@pytest.fixture(params=["file", "gs"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Callable[[str, bytes], object]]]:
    """Yield a source's URI and what writes into it."""
    if request.param == "file":
        yield str(tmp_path), lambda name, data: (tmp_path / name).write_bytes(data)
        return
    with bucket_stub() as (address, bucket):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield "gs://photos/in", lambda name, data: bucket.put(f"in/{name}", data)


def test_bytes_of_a_later_generation_are_not_filed_under_the_one_that_was_listed(
    place: tuple[str, Callable[[str, bytes], object]],
) -> None:
    uri, put = place
    put("a.png", BEFORE)
    put("b.png", OTHER)
    source = source_of(uri)
    entries = list(source.entries())
    put("a.png", AFTER)
    changed, kept = examine(source, entries)
    assert (changed.state, changed.reason, changed.sample_id) == ("skipped", "changed", "")
    assert (kept.state, kept.sample_id) == ("ok", sample_id_of(OTHER))
    again = list(source.entries())
    assert again[0].info.generation != entries[0].info.generation
    assert again[1].info.generation == entries[1].info.generation
    assert [one.sample_id for one in examine(source, again)] == [
        sample_id_of(AFTER),
        sample_id_of(OTHER),
    ]
