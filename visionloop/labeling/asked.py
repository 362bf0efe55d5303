"""Which samples somebody was or will be asked about, so that no round picks them again."""

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
