"""Who labelled, by number, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from visionloop.labeling.trust.annotators import Share, annotator_table, first_answers, gold_labels
from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.data_cost import AnnotatorLine, Annotators
from visionloop.monitoring.report.reading import Reader

ORACLE = "oracle"


def annotators(reader: Reader) -> Annotators:
    """Return a line for each annotator, who answered most first.

    Names stay in the lake: the page is handed around, and ``visionloop labels status`` has them.
    """
    rows = reader.read("annotations").to_pylist()
    if not rows:
        return Annotators(note="No answer of an annotator is on record.")
    requests: dict[str, list[Mapping[str, Any]]] = {}
    for row in reader.requests:
        requests.setdefault(row["round_id"] or "", []).append(row)
    came: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        came.setdefault(row["round_id"] or "", []).append(row)
    compared = [
        answer
        for round_id, mine in requests.items()
        for answer in first_answers(mine, came.get(round_id, []))
    ]
    asked = {row["sample_id"] for row in rows}
    answers = reader.answers
    about = answers.filter(pc.is_in(answers["sample_id"], value_set=_ids(asked)))
    standing = {row["sample_id"]: row for row in about.to_pylist()}
    known = {s: row["label"] for s, row in standing.items() if row["label"] is not None}
    gold = gold_labels(standing, set(reader.holdout.to_pylist()))
    table = annotator_table(rows, compared=compared, labels=known, gold=gold)
    oracles = {row["annotator"] for row in rows if row["provider"] == ORACLE}
    lines: list[AnnotatorLine] = []
    number = 0
    for one in table:
        machine = one.annotator in oracles
        number += not machine
        lines.append(
            AnnotatorLine(
                "the oracle" if machine else f"annotator {number}",
                one.n,
                one.skipped,
                one.rejected,
                _rate(one.with_others),
                one.with_others.n,
                # The oracle knows the label: that it agrees with it says nothing.
                None if machine else _rate(one.with_gold),
                one.median_seconds,
            )
        )
    note = ""
    if all(line.name == "the oracle" for line in lines):
        note = "No person labelled: an oracle answered, which knows every label."
    return Annotators(tuple(lines), note)


def _rate(share: Share) -> Rate | None:
    if share.value is None or not share.enough:
        return None
    return Rate(share.value, share.low, share.high, share.n)


def _ids(samples: set[str]) -> Any:
    import pyarrow as pa

    return pa.array(sorted(samples), pa.string())
