"""The checks of what was ingested: every file found gets exactly one state, flags say why.

The subjects are files. A file that carries a sample first is checked as that sample; a further
copy of the same bytes is a flagged file; a file that cannot be read is checked under its URI. So
the states add up to the files that came in, and none is counted twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake.schemas import arrow_schema
from visionloop.media.fingerprint import NEAR_DUPLICATE_BITS, as_words
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.duplicates import nearest_earlier
from visionloop.monitoring.likeness import likeness
from visionloop.monitoring.metadata import metadata_problems
from visionloop.monitoring.quality import Limit, limits, net_sharpness, telling
from visionloop.monitoring.subjects import AGAIN, CARRIER, COPY, UNKNOWN, subjects

# Takes URIs; returns float64 [SIDE, SIDE] of those that can be read.
ReadGreys = Callable[[list[str]], Mapping[str, NDArray[np.float64]]]

STATES = ("ok", "flagged", "unreadable", "unchecked")
MEASURES = ("sharpness", "brightness", "contrast")


@dataclass(frozen=True)
class Checked:
    """The outcome of the checks of a batch of files.

    Attributes:
        checks: Rows of the table ``checks``, one a file that could be checked.
        flags: Rows of the table ``flags``.
        states: Number of files in each of the four states.
        kinds: Number of flags of each kind.
    """

    checks: pa.Table
    flags: pa.Table
    states: dict[str, int]
    kinds: dict[str, int]

    @property
    def n_in(self) -> int:
        """Number of files that came in: the sum of the four states."""
        return sum(self.states.values())


@dataclass
class _Rows:
    """Rows of ``checks`` and ``flags`` as they are found."""

    now: datetime
    checks: list[dict[str, Any]] = field(default_factory=list)
    flags: list[dict[str, Any]] = field(default_factory=list)

    def check(self, subject: str, generation: str, state: str) -> None:
        self.checks.append(
            {
                "subject": subject,
                "generation": generation,
                "state": state,
                "checked_at": self.now,
            }
        )

    def flag(
        self,
        subject: str,
        kind: str,
        *,
        score: float | None = None,
        threshold: float | None = None,
        subject_type: str = "sample",
        **evidence: Any,
    ) -> None:
        self.flags.append(
            {
                "subject": subject,
                "subject_type": subject_type,
                "stage": "monitor",
                "kind": kind,
                "score": score,
                "threshold": threshold,
                "evidence": json.dumps(evidence, sort_keys=True),
                "flagged_at": self.now,
            }
        )


def check_samples(
    files: pa.Table,
    samples: pa.Table,
    metadata: pa.Table | None,
    checks: pa.Table,
    thresholds: MonitoringConfig,
    *,
    now: datetime,
    read_greys: ReadGreys = lambda uris: {},
) -> Checked:
    """Check every file that has no check yet, against all samples of earlier rounds too.

    Args:
        files: Table ``files`` (uri, generation, state, reason, detail, sample_id, round_id,
            found_at), all rows.
        samples: Table ``samples`` (sample_id, uri, source, captured_at, fingerprint, sharpness,
            brightness, contrast), all rows.
        metadata: Table ``metadata`` (sample_id, raw and typed columns), or None.
        checks: Table ``checks`` (subject, generation), what was checked before.
        thresholds: What counts as odd.
        now: Time that is written as ``checked_at`` and ``flagged_at``, in UTC.
        read_greys: Reads the grey pixels of pictures by URI, to confirm near duplicates, see
            `visionloop.monitoring.pixels`; what it leaves out is judged by fingerprint alone.
    """
    done = set(
        zip(
            checks.column("subject").to_pylist(),
            (value or "" for value in checks.column("generation").to_pylist()),
            strict=True,
        )
    )
    rows = _Rows(now)
    new, unknown = _check_files(files, samples, done, rows)
    new.update(s for s in samples["sample_id"].to_pylist() if (s, "") not in done)
    unmeasured = _check_new_samples(samples, metadata, new, thresholds, read_greys, rows)

    states = Counter({state: 0 for state in STATES})
    states.update(row["state"] for row in rows.checks)
    states["unchecked"] += unknown + unmeasured
    kinds = Counter(row["kind"] for row in rows.flags)
    return Checked(
        _table("checks", rows.checks), _table("flags", rows.flags), dict(states), dict(kinds)
    )


def _check_files(
    files: pa.Table, samples: pa.Table, done: set[tuple[str, str]], rows: _Rows
) -> tuple[set[str], int]:
    """Check what is a matter of files; return the samples to check and the files left unchecked."""
    reasons = files.select(["reason", "detail", "sample_id"]).to_pylist()
    uris = files["uri"].to_pylist()
    found_all = subjects(files, samples)
    originals = {f.subject: uris[f.row] for f in found_all if f.role == CARRIER}
    new: set[str] = set()
    unknown = 0
    for found in found_all:
        if found.role == UNKNOWN:
            # Ingest wrote the file but not its sample: it stays visible and is tried again.
            unknown += 1
        elif (found.subject, found.generation) in done:
            continue
        elif found.role == CARRIER:
            new.add(found.subject)
        elif found.role == AGAIN:
            rows.check(found.subject, found.generation, "ok")
        elif found.role == COPY:
            sample = reasons[found.row]["sample_id"]
            rows.check(found.subject, found.generation, "flagged")
            rows.flag(
                found.subject,
                "exact_duplicate",
                subject_type="file",
                sample_id=sample,
                original=originals[sample],
            )
        else:
            said = reasons[found.row]
            rows.check(found.subject, found.generation, "unreadable")
            rows.flag(
                found.subject,
                "unreadable",
                subject_type="file",
                reason=said["reason"],
                detail=said["detail"],
            )
    return new, unknown


def _check_new_samples(
    samples: pa.Table,
    metadata: pa.Table | None,
    new: set[str],
    thresholds: MonitoringConfig,
    read_greys: ReadGreys,
    rows: _Rows,
) -> int:
    """Check the new samples; return how many lack a measure and stay unchecked."""
    if not new:
        return 0
    ids = samples.column("sample_id").to_pylist()
    is_new = np.array([sample in new for sample in ids])
    measures = {name: _floats(samples, name) for name in MEASURES}
    measures["sharpness"] = net_sharpness(measures["sharpness"], measures["contrast"])
    prints = samples.column("fingerprint").to_pylist()
    measured = np.array([p is not None for p in prints]) & np.all(
        [np.isfinite(values) for values in measures.values()], axis=0
    )
    first = len(rows.flags)
    _flag_quality(ids, samples.column("source").to_pylist(), measures, is_new, thresholds, rows)
    _flag_near_duplicates(
        ids, carriers_of(samples), prints, measured, is_new, thresholds, read_greys, rows
    )
    for sample, problem in metadata_problems(metadata, samples, new, now=rows.now):
        rows.flag(sample, "bad_metadata", **problem)
    flagged = {flag["subject"] for flag in rows.flags[first:]}
    unmeasured = 0
    for row in np.flatnonzero(is_new).tolist():
        sample = ids[row]
        if sample in flagged:
            rows.check(sample, "", "flagged")
        elif measured[row]:
            rows.check(sample, "", "ok")
        else:
            unmeasured += 1
    return unmeasured


def _flag_quality(
    ids: list[str],
    sources: list[str | None],
    measures: Mapping[str, NDArray[np.float64]],
    is_new: NDArray[np.bool_],
    thresholds: MonitoringConfig,
    rows: _Rows,
) -> None:
    names = np.array([source or "" for source in sources], dtype=object)
    found: dict[int, list[tuple[Limit, float]]] = {}
    for source in sorted(set(names)):
        own = names == source
        # A source too small to be a population of its own is judged among all samples.
        population = own if own.sum() >= thresholds.min_population else np.ones_like(own)
        for limit in limits(
            measures["sharpness"][population],
            measures["brightness"][population],
            measures["contrast"][population],
            thresholds,
        ):
            values = measures[limit.measure]
            for row in np.flatnonzero(own & is_new & limit.flags(values)).tolist():
                found.setdefault(row, []).append((limit, float(values[row])))
    for row in sorted(found, key=lambda r: ids[r]):
        kept = telling({limit.kind for limit, _ in found[row]}, float(measures["contrast"][row]))
        for limit, value in found[row]:
            if limit.kind not in kept:
                continue
            rows.flag(
                ids[row],
                limit.kind,
                score=value,
                threshold=limit.value,
                measure=limit.measure,
                median=limit.median,
                population=limit.population,
                rule=limit.rule,
            )


def _flag_near_duplicates(
    ids: list[str],
    uris: list[str],
    prints: list[bytes | None],
    measured: NDArray[np.bool_],
    is_new: NDArray[np.bool_],
    thresholds: MonitoringConfig,
    read_greys: ReadGreys,
    rows: _Rows,
) -> None:
    # Arrival: known samples first, then the new ones by name. Clocks and thread timing have no say.
    known = [r for r in range(len(ids)) if measured[r] and not is_new[r]]
    fresh = [r for r in range(len(ids)) if measured[r] and is_new[r]]
    if not fresh:
        return
    order = [
        *sorted(known, key=lambda r: (uris[r], ids[r])),
        *sorted(fresh, key=lambda r: (uris[r], ids[r])),
    ]
    nearest, distance = nearest_earlier(as_words([prints[r] or b"" for r in order]), len(known))
    candidates = [
        (row, order[other], int(bits))
        for row, other, bits in zip(order[len(known) :], nearest, distance, strict=True)
        if other >= 0 and bits <= thresholds.near_duplicate_distance
    ]
    greys = read_greys([uris[r] for row, other, _ in candidates for r in (row, other)])
    for row, other, bits in candidates:
        left, right = greys.get(uris[row]), greys.get(uris[other])
        evidence = {"original": ids[other], "original_uri": uris[other], "bits": bits}
        if left is not None and right is not None:
            score, threshold = likeness(left, right), thresholds.near_duplicate_likeness
            same = score >= threshold
            # Flat pictures have nothing to correlate; equal fingerprints are all they can show.
            same |= bits == 0 and min(float(left.std()), float(right.std())) < 1
        else:
            # Without the pixels only what the fingerprint alone is good for can be said.
            score, threshold = float(bits), float(NEAR_DUPLICATE_BITS)
            same = bits <= NEAR_DUPLICATE_BITS
            evidence["unconfirmed"] = "the pictures' bytes could not be read"
        if same:
            rows.flag(ids[row], "near_duplicate", score=score, threshold=threshold, **evidence)


def carriers_of(samples: pa.Table) -> list[str]:
    """Return the URI of each sample, "" where none is written."""
    return [uri or "" for uri in samples.column("uri").to_pylist()]


def _floats(table: pa.Table, column: str) -> NDArray[np.float64]:
    values: Iterable[float | None] = table.column(column).to_pylist()
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    schema = arrow_schema(name)
    written_later = {"round_id", "run_id"}
    columns = pa.schema([f for f in schema if f.name not in written_later])
    return pa.Table.from_pylist(rows, schema=columns)
