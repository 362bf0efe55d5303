"""Which samples somebody was or will be asked about, so that no round asks about them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def asked_or_selected(read: Callable[..., pa.Table]) -> set[str]:
    """Return the samples that were selected, or sent to labelling, and not taken back.

    Args:
        read: Reads columns of a table of the lake: ``read(table, *columns)``.
    """
    columns = ("sample_id", "round_id")
    requests = read("label_requests", *columns, "recalled")
    pairs = list(zip(*(requests[name].to_pylist() for name in columns), strict=True))
    gone = {p for p, back in zip(pairs, requests["recalled"].to_pylist(), strict=True) if back}
    selections = read("selections", *columns)
    pairs += zip(*(selections[name].to_pylist() for name in columns), strict=True)
    return {pair[0] for pair in pairs if pair not in gone}


def unanswered(read: Callable[..., pa.Table]) -> set[str]:
    """Return the samples with a request that was neither answered nor taken back.

    Those of a round that went on too: somebody has begun a draft of them.

    Args:
        read: Reads columns of a table of the lake: ``read(table, *columns)``.
    """
    labels = read("labels", "sample_id", "round_id")
    columns = ("sample_id", "round_id")
    given = set(zip(*(labels[name].to_pylist() for name in columns), strict=True))
    requests = read("label_requests", *columns, "recalled")
    rows = zip(*(requests[name].to_pylist() for name in (*columns, "recalled")), strict=True)
    return {sample for sample, of, back in rows if not back and (sample, of) not in given}
