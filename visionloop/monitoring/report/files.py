"""What became of every file and every sample, counted without a Python object for each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.monitoring.report.reading import array
from visionloop.monitoring.subjects import AGAIN, CARRIER, COPY, STATES, UNKNOWN, UNREADABLE

_ROLES = (CARRIER, COPY, AGAIN, UNREADABLE, UNKNOWN)
_BETWEEN = "\x1f"


@dataclass
class FileCounts:
    """Files of each round, by the state of their check and by what they are.

    Attributes:
        states: ``{round id: {state: files}}``, of the states of checks.
        roles: ``{round id: {role: files}}``, of the roles of `visionloop.monitoring.subjects`.
        carried: Samples that a file which is there carries: their row in the table of samples.
        carried_in: The round that found that file, in the same order.
    """

    states: dict[str, Counter[str]] = field(default_factory=dict)
    roles: dict[str, Counter[str]] = field(default_factory=dict)
    carried: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    carried_in: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))


def count_files(files: pa.Table, samples: pa.Table, checks: pa.Table) -> FileCounts:
    """Count files as `visionloop.monitoring.subjects.subjects` tells them apart.

    A file counts in the round that found it, whenever its check came.

    Args:
        files: Columns uri, generation, state, sample_id, round_id and found_at.
        samples: Columns sample_id and uri.
        checks: Columns subject, generation and state.
    """
    there = files.filter(pc.not_equal(files["state"], "removed"))
    if not there.num_rows:
        return FileCounts()
    sample_ids, places = array(samples["sample_id"]), array(samples["uri"])
    # Row of each file's sample in `samples`, -1 where it has none.
    owner = _positions(array(there["sample_id"]), sample_ids)
    uri, generation = array(there["uri"]), array(pc.fill_null(there["generation"], ""))
    known = owner >= 0
    lies = np.zeros(len(owner), np.bool_)
    if known.any():
        at = pa.array(np.where(known, owner, 0))
        same = pc.fill_null(pc.equal(uri, places.take(at)), False)
        lies = _numpy(same) & known
    role = np.full(len(owner), _ROLES.index(UNKNOWN), np.int8)
    first = _first_uris(there, owner, lies)
    codes = uri.dictionary_encode().indices.to_numpy()
    chosen = np.full(len(sample_ids) + 1, -1, np.int64)
    chosen[owner[first]] = codes[first]
    at_first = known & (chosen[owner] == codes)
    newest = _newest(there)
    there, owner, known, at_first = (
        there.take(newest),
        owner[newest],
        known[newest],
        at_first[newest],
    )
    uri, generation, role = uri.take(newest), generation.take(newest), role[newest]
    unreadable = _numpy(pc.equal(there["state"], "unreadable"))
    role[known] = _ROLES.index(COPY)
    role[at_first] = _ROLES.index(AGAIN)
    role[unreadable] = _ROLES.index(UNREADABLE)
    # In the order of URI and generation the first of each sample carries it; those after it are
    # the same file, rewritten with the same bytes.
    own = np.flatnonzero(at_first & ~unreadable)
    keys = pa.table({"uri": uri.take(own), "generation": generation.take(own), "row": own})
    order = pc.sort_indices(keys, sort_keys=[("uri", "ascending"), ("generation", "ascending")])
    ordered = own[order.to_numpy()]
    _, where = np.unique(owner[ordered], return_index=True)
    carriers = ordered[where]
    role[carriers] = _ROLES.index(CARRIER)

    state = _states(role, uri, generation, array(there["sample_id"]), checks)
    found_in = array(pc.fill_null(there["round_id"], ""))
    counts = FileCounts(carried=owner[carriers], carried_in=found_in.take(pa.array(carriers)))
    rounds = found_in.dictionary_encode()
    names = rounds.dictionary.to_pylist()
    number = rounds.indices.to_numpy()
    for kinds, values, target in (
        (STATES, state, counts.states),
        (_ROLES, role, counts.roles),
    ):
        table = np.bincount(number * len(kinds) + values, minlength=len(names) * len(kinds))
        for i, row in enumerate(table.reshape(len(names), len(kinds))):
            target[names[i]] = Counter(
                {kind: int(n) for kind, n in zip(kinds, row, strict=True) if n}
            )
    return counts


def _newest(files: pa.Table) -> NDArray[np.int64]:
    """Return the row that counts of each file: one that was skipped gives way to any other."""
    key = pc.binary_join_element_wise(files["uri"], pc.fill_null(files["generation"], ""), _BETWEEN)
    codes = array(key).dictionary_encode().indices.to_numpy()
    skipped = _numpy(pc.equal(files["state"], "skipped"))
    row = np.arange(len(codes))
    order = np.lexsort((np.where(skipped, -row, row), skipped, codes))
    _, first = np.unique(codes[order], return_index=True)
    return np.sort(order[first])


def _first_uris(
    files: pa.Table, owner: NDArray[np.int64], lies: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the row of each sample's first file: where its bytes lie, else what came first."""
    rows = np.flatnonzero(owner >= 0)
    table = pa.table(
        {
            "owner": owner[rows],
            "elsewhere": ~lies[rows],
            "round_id": array(pc.fill_null(files["round_id"], "")).take(rows),
            "found_at": array(files["found_at"].cast(pa.string())).take(rows),
            "uri": array(files["uri"]).take(rows),
        }
    )
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names])
    ordered = rows[order.to_numpy()]
    _, first = np.unique(owner[ordered], return_index=True)
    return np.asarray(ordered[first])


def _states(
    role: NDArray[np.int8], uri: pa.Array, generation: pa.Array, sample: pa.Array, checks: pa.Table
) -> NDArray[np.int8]:
    """Return the number of each file's state in `STATES`."""
    state = np.full(len(role), STATES.index("unchecked"), np.int8)
    if not checks.num_rows:
        return state
    carries = pa.array(role == _ROLES.index(CARRIER))
    subject = pc.if_else(carries, sample, uri)
    part = pc.if_else(carries, "", generation)
    wanted = array(pc.binary_join_element_wise(subject, part, _BETWEEN))
    held = pc.binary_join_element_wise(
        checks["subject"], pc.fill_null(checks["generation"], ""), _BETWEEN
    )
    # The last row of a subject counts: looked up from behind, it is met first.
    held = array(held)[::-1]
    at = _positions(wanted, held)
    names = array(checks["state"])[::-1].dictionary_encode()
    known = [name if name in STATES else "unchecked" for name in names.dictionary.to_pylist()]
    numbers = np.array([STATES.index(name) for name in known], np.int8)
    found = at >= 0
    state[found] = numbers[names.indices.to_numpy()][at[found]]
    state[role == _ROLES.index(UNKNOWN)] = STATES.index("unchecked")
    return state


def _positions(values: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    """Return where each value first lies among others, -1 where it does not."""
    found = pc.index_in(values, value_set=among)
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)


def _numpy(mask: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False), np.bool_)
