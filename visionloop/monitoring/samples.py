"""The checks of what was ingested: every file found gets exactly one state, flags say why.

The subjects are files. A file that carries a sample first is checked as that sample; a further
copy of the same bytes is a flagged file; a file that cannot be read is checked under its URI, and
is no picture where its name says so: a note, a table, the sidecar of a photograph that is gone. So
the states add up to the files that came in, and none is counted twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from visionloop.media.listing import is_no_image
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.contradictions import flag_contradictions
from visionloop.monitoring.findings import Findings
from visionloop.monitoring.outliers import Outliers, flag_outliers
from visionloop.monitoring.same_pixels import ReadPixels, flag_attached, flag_pixel_duplicates
from visionloop.monitoring.sample_flags import (
    ReadGreys,
    flag_near_duplicates,
    flag_quality,
    population_of,
)
from visionloop.monitoring.semantic_duplicates import flag_semantic_duplicates
from visionloop.monitoring.subjects import AGAIN, CARRIER, COPY, STATES, UNKNOWN, subjects
from visionloop.monitoring.unjudged import Unjudged, of_pictures
from visionloop.monitoring.vector_parts import ReadVectors, parts_of


@dataclass(frozen=True)
class Checked:
    """The outcome of the checks of a batch of files.

    Attributes:
        checks: Rows of the table ``checks``, one a file that could be checked.
        flags: Rows of the table ``flags``.
        states: Number of files in each of the `STATES`.
        kinds: Number of flags of each kind.
        outliers: How the new samples were judged for lying far from all others, or why not.
        not_judged: What the new samples were not judged for; None where none is new.
    """

    checks: pa.Table
    flags: pa.Table
    states: dict[str, int]
    kinds: dict[str, int]
    outliers: Outliers
    not_judged: tuple[Unjudged, ...] | None

    @property
    def n_in(self) -> int:
        """Number of files that came in: the sum of the states."""
        return sum(self.states.values())


def check_samples(
    files: pa.Table,
    samples: pa.Table,
    metadata: pa.Table | None,
    checks: pa.Table,
    thresholds: MonitoringConfig,
    *,
    now: datetime,
    read_greys: ReadGreys = lambda uris: {},
    read_pixels: ReadPixels = lambda uris: (),
    read_vectors: ReadVectors = lambda: (),
) -> Checked:
    """Check every file that has no check yet, against all samples of earlier rounds too.

    Args:
        files: Table ``files`` (uri, generation, state, reason, detail, sample_id, round_id,
            found_at), all findings.
        samples: Table ``samples``, all findings.
        metadata: Table ``metadata`` (sample_id, raw and typed columns), or None.
        checks: Table ``checks`` (subject, generation), what was checked before.
        thresholds: What counts as odd.
        now: Time that is written as ``checked_at`` and ``flagged_at``, in UTC.
        read_greys: Reads the grey pixels of pictures by URI, to confirm near duplicates, see
            `visionloop.monitoring.pixels`; what it leaves out is judged by fingerprint alone.
        read_pixels: Reads whole pictures, to confirm equal pixels; what it leaves out is judged by
            the key that ingest took of them.
        read_vectors: Reads the embeddings of all samples; without any none is a semantic duplicate.
    """
    done = set(
        zip(
            checks.column("subject").to_pylist(),
            (value or "" for value in checks.column("generation").to_pylist()),
            strict=True,
        )
    )
    findings = Findings(now)
    new, unknown = _check_files(files, samples, done, findings)
    new.update(s for s in samples["sample_id"].to_pylist() if (s, "") not in done)
    unmeasured, outliers, not_judged = _check_new_samples(
        samples, metadata, new, thresholds, read_greys, read_pixels, read_vectors, findings
    )

    states = Counter({state: 0 for state in STATES})
    states.update(row["state"] for row in findings.checks)
    states["unchecked"] += unknown + unmeasured
    kinds = Counter(row["kind"] for row in findings.flags)
    return Checked(
        findings.checks_table(),
        findings.flags_table(),
        dict(states),
        dict(kinds),
        outliers,
        not_judged,
    )


def _check_files(
    files: pa.Table, samples: pa.Table, done: set[tuple[str, str]], findings: Findings
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
            findings.check(found.subject, found.generation, "ok")
        elif found.role == COPY:
            sample = reasons[found.row]["sample_id"]
            findings.check(found.subject, found.generation, "flagged")
            findings.flag(
                found.subject,
                "exact_duplicate",
                subject_type="file",
                unit="",
                reference="the bytes of the file that came first",
                images=[sample],
                sample_id=sample,
                original=originals[sample],
            )
        else:
            said = reasons[found.row]
            if is_no_image(found.subject, said["reason"] or ""):
                # A note among photographs is no broken one: it is told, and not flagged.
                findings.check(found.subject, found.generation, "no_picture")
                continue
            findings.check(found.subject, found.generation, "unreadable")
            findings.flag(
                found.subject,
                "unreadable",
                subject_type="file",
                unit="",
                reference="a file that can be decoded to its last pixel",
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
    read_pixels: ReadPixels,
    read_vectors: ReadVectors,
    findings: Findings,
) -> tuple[int, Outliers, tuple[Unjudged, ...] | None]:
    """Check the new samples; return how many lack a measure and so stay unchecked."""
    if not new:
        return 0, Outliers(why_not="no sample is new"), None
    population = population_of(samples, new)
    first = len(findings.flags)
    flag_quality(population, thresholds, findings)
    flag_attached(samples, new, findings)
    flag_pixel_duplicates(samples, new, read_pixels, findings)
    flag_near_duplicates(population, thresholds, read_greys, findings)
    n_vectors = flag_semantic_duplicates(population, thresholds, read_vectors, findings)
    outliers = flag_outliers(new, thresholds, read_vectors, findings)
    flag_contradictions(metadata, samples, new, thresholds, findings)
    flagged = {flag["subject"] for flag in findings.flags[first:]}
    unchecked: set[str] = set()
    for row in np.flatnonzero(population.is_new).tolist():
        sample = population.ids[row]
        if sample in flagged:
            findings.check(sample, "", "flagged")
        elif population.measured[row]:
            findings.check(sample, "", "ok")
        else:
            unchecked.add(sample)
    n_measured = int(population.measured.sum())
    again = _with_and_without(unchecked, read_vectors)
    not_judged = of_pictures(outliers, n_measured, n_vectors, thresholds, again)
    return len(unchecked), outliers, not_judged


def _with_and_without(ids: set[str], read_vectors: ReadVectors) -> tuple[int, int]:
    """Return how many samples have an embedding, and how many have none."""
    if not ids:
        return 0, 0
    n = sum(len(ids.intersection(part.names.tolist())) for part in parts_of(read_vectors))
    return n, len(ids) - n
