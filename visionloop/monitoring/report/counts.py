"""What became of every file, round by round."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from visionloop.monitoring.report.data import Funnel
from visionloop.monitoring.subjects import UNKNOWN, subjects


def file_states(files: pa.Table, samples: pa.Table, checks: pa.Table) -> dict[str, Counter[str]]:
    """Return how many files of each round are in each state of the checks.

    A file counts in the round that found it, whenever its check came.

    Args:
        files: Table ``files`` (uri, generation, state, sample_id, round_id, found_at).
        samples: Table ``samples`` (sample_id, uri).
        checks: Table ``checks`` (subject, generation, state).
    """
    states = {
        (subject, generation or ""): state
        for subject, generation, state in zip(
            checks["subject"].to_pylist(),
            checks["generation"].to_pylist(),
            checks["state"].to_pylist(),
            strict=True,
        )
    }
    rounds = files["round_id"].to_pylist()
    counted: dict[str, Counter[str]] = {}
    for found in subjects(files, samples):
        state = states.get((found.subject, found.generation), "unchecked")
        if found.role == UNKNOWN:
            state = "unchecked"
        counted.setdefault(rounds[found.row] or "", Counter())[state] += 1
    return counted


def funnels(
    states: Mapping[str, Counter[str]],
    selections: pa.Table,
    labelled: set[str],
    trained: Mapping[str, int],
    stage_runs: list[dict[str, Any]],
) -> dict[str, Funnel]:
    """Return the funnel of each round.

    Args:
        states: From `file_states`.
        selections: Table ``selections`` (round_id, sample_id).
        labelled: Samples that have a label.
        trained: Number of labels in each round's training set.
        stage_runs: Rows of ``stage_runs``, oldest first.
    """
    chosen: dict[str, set[str]] = {}
    for round_id, sample in zip(
        selections["round_id"].to_pylist(), selections["sample_id"].to_pylist(), strict=True
    ):
        chosen.setdefault(round_id, set()).add(sample)
    known: dict[str, int] = {}
    pool: dict[str, int] = {}
    for row in stage_runs:
        counts = json.loads(row["counts"] or "{}")
        if row["stage"] == "ingest":
            # A round that was started again met its own files a second time: the first run says
            # what earlier rounds had brought.
            known.setdefault(row["round_id"], int(counts.get("skipped", 0)))
        elif row["stage"] == "select":
            # A round that selects again returns its picks and has no pool to tell of.
            eligible = json.loads(row["outputs"] or "{}").get("eligible")
            if eligible is not None:
                pool[row["round_id"]] = int(eligible)
    rounds = set(states) | set(chosen) | set(trained) | set(known)
    return {
        round_id: Funnel(
            found=sum(states.get(round_id, Counter()).values()),
            ok=states.get(round_id, Counter())["ok"],
            flagged=states.get(round_id, Counter())["flagged"],
            unreadable=states.get(round_id, Counter())["unreadable"],
            unchecked=states.get(round_id, Counter())["unchecked"],
            skipped=known.get(round_id, 0),
            pool=pool.get(round_id),
            selected=len(chosen.get(round_id, ())),
            labelled=len(chosen.get(round_id, set()) & labelled),
            trained=trained.get(round_id),
        )
        for round_id in sorted(rounds)
    }
