"""What the lake knows of its files, as numbers: the answers that the names would give."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from visionloop.media.known import COLUMNS, Known, files_of, find

WORDS = st.integers(0, 3)


@given(
    st.lists(st.tuples(WORDS, WORDS), unique=True, max_size=16),
    st.lists(st.tuples(WORDS, WORDS), max_size=16),
)
def test_hashes_that_share_their_first_word_are_told_apart(
    held: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    there = np.array(sorted(held, key=lambda pair: pair[0]), np.uint64).reshape(-1, 2)
    asked = np.array(wanted, np.uint64).reshape(-1, 2)
    rows = find(there, asked).tolist()
    assert [row >= 0 for row in rows] == [pair in held for pair in wanted]
    for row, pair in zip(rows, wanted, strict=True):
        assert row < 0 or tuple(there[row].tolist()) == pair


def known(*rows: tuple[str, str, str], **options: bool) -> Known:
    """Files by URI, generation and state."""
    columns = dict(zip(COLUMNS[:3], map(list, zip(*rows, strict=True)), strict=True))
    n = len(rows)
    table = pa.table(
        columns | {"sidecar": [None] * n, "source": ["file:///s"] * n, "size": [1] * n}
    )
    return Known.read(table.to_batches(max_chunksize=2), **options)


ROWS = (
    ("file:///s/a.png", "1", "ok"),
    ("file:///s/a.png", "2", "ok"),
    ("file:///s/b.png", "1", "skipped"),
    ("file:///s/c.png", "1", "removed"),
    ("file:///s/t.tar", "7", "container"),
    ("file:///s/t.tar!/1.png", "7", "ok"),
    ("file:///s/t.tar!/2.png", "7", "unreadable"),
    ("file:///s/t.tar!/1.png", "6", "removed"),
)


def test_a_file_is_known_by_uri_and_generation_and_a_skipped_one_is_tried_again() -> None:
    found = known(*ROWS)
    asked = [*ROWS, ("file:///s/a.png", "3", "")]
    rows = found.find(files_of([r[0] for r in asked], [r[1] for r in asked]))
    assert (rows >= 0).tolist() == [True, True, False, True, True, True, True, True, False]
    assert len(known(*ROWS, skipped_too=True)) == len(found) + 1 == len(ROWS)


def test_members_are_seen_with_their_container_at_its_generation() -> None:
    found = known(*ROWS)
    assert found.see_members("file:///s/t.tar", "7") == 2
    assert int(found.seen.sum()) == 2
    # The container itself and both generations of a.png were not shown.
    assert int(found.gone(["file:///s"]).sum()) == 3
    assert not found.gone(["file:///elsewhere"]).any()


def test_a_known_file_takes_under_fifty_bytes_however_long_its_name_is() -> None:
    n = 20_000
    found = known(*((f"file:///s/{'long name ' * 20}{i}.png", "1", "ok") for i in range(n)))
    held = [v for v in vars(found).values() if isinstance(v, np.ndarray)]
    assert sum(array.nbytes for array in held) < 50 * n
