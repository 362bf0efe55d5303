"""The monitor's look at labels beside what the model in service answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from visionloop.stages.monitor_part import Look, Part
from visionloop.words import counted, round_name

if TYPE_CHECKING:
    from visionloop.monitoring.disagreement import Contradicted, Said


def check_answers(look: Look) -> Part:
    """Flag labels that the model in service contradicts surely, and labels that are stale.

    Args:
        look: What the monitor looks at.
    """
    from visionloop.monitoring import disagreement, stale
    from visionloop.monitoring.standing import write_standing
    from visionloop.monitoring.unjudged import of_answers

    thresholds = look.loop.monitoring
    models = look.run.read("experiments", where="arm == 'loop'").to_pylist()
    said = read_answers(look, models)
    rows: list[dict[str, Any]] = []
    found = None
    if said is not None:
        share = thresholds.disagreement_share
        found = disagreement.contradicted(said, share)
        rows = disagreement.disagreement_rows(said, found, share, look.now)
        added = stale.added_classes(models)
        rows += stale.stale_rows(said, found, added, thresholds.stale_after_days, look.now)
    new = write_standing(look.run, [disagreement.KIND, stale.KIND], rows)
    n = {kind: sum(row["kind"] == kind for row in rows) for kind in (disagreement.KIND, stale.KIND)}
    told = {"n": int((~said.holdout).sum()) if said else 0, "why": _why(said, found), **n}
    if found is not None and not found.why:
        told |= {"limit": found.limit, "n_holdout": found.n_holdout}
    metrics = {f"n_{kind}": float(count) for kind, count in n.items()}
    not_judged = of_answers(
        told["why"],
        told["n"],
        found.n_holdout if found else None,
        disagreement.least_holdout(thresholds.disagreement_share),
    )
    return Part(new, metrics, _page(said, told), {"answers": told}, not_judged)


def read_answers(look: Look, models: list[dict[str, Any]]) -> Said | None:
    """Return what the model in service answered to samples that people labelled.

    The newest answer counts, in production or of the stage ``infer``; one whose sample is only
    guessed from its embedding does not. Labels of a class that the model does not know are left
    out: it cannot but contradict them.

    Args:
        look: What the monitor looks at.
        models: Rows of ``experiments`` of the loop's own arm.

    Returns:
        None without a model in service that gives each class a probability.
    """
    from visionloop.labeling.answers import MODEL, latest_answers
    from visionloop.lake import parts
    from visionloop.monitoring.disagreement import Said
    from visionloop.selection.in_service import model_in_service

    run = look.run
    model = model_in_service(models)
    if model is None or not model["classes"]:
        return None
    classes = list(model["classes"])
    place = {name: k for k, name in enumerate(classes)}
    rows = [row for row in run.read("labels").to_pylist() if row["origin"] != MODEL]
    people = {
        sample: row
        for sample, row in latest_answers(rows, look.loop.task).items()
        if row["label"] in place
    }
    answers = _answers(look, model["model_id"], people.keys(), classes)
    if not answers:
        return None
    ids = sorted(answers)
    splits = parts.rows_of(
        look.lake, "samples", set(ids), columns=["sample_id", "split"], version=run.base
    )
    holdout = {row["sample_id"] for row in splits.to_pylist() if row["split"] == "holdout"}
    trained = parts.rows_of(
        look.lake,
        "training_sets",
        set(ids),
        columns=["sample_id", "training_set"],
        version=run.base,
    ).to_pylist()
    mine = {row["sample_id"] for row in trained if row["training_set"] == model["training_set"]}
    given = _given(look, rows, {sample: people[sample]["label"] for sample in ids})
    return Said(
        f"the model of {round_name(model['round_id'])}",
        classes,
        ids,
        np.array([place[people[sample]["label"]] for sample in ids], dtype=np.int64),
        np.array([answers[sample]["probabilities"] for sample in ids], dtype=np.float64),
        [answers[sample]["endpoint"] for sample in ids],
        [answers[sample]["at"] for sample in ids],
        [max((at for at, _ in given[sample] if at), default=None) for sample in ids],
        np.array(
            [len({voice for _, voice in given[sample]}) > 1 for sample in ids], dtype=np.bool_
        ),
        np.array([sample in mine for sample in ids], dtype=np.bool_),
        np.array([sample in holdout for sample in ids], dtype=np.bool_),
    )


def _answers(
    look: Look, model_id: str, wanted: Any, classes: list[str]
) -> dict[str, dict[str, Any]]:
    """Return the newest answer of a model to each sample that has one."""
    from visionloop.lake import parts

    quoted = model_id.replace("'", "''")

    def rows(table: str, *columns: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = parts.rows_of(
            look.lake,
            table,
            wanted,
            columns=["sample_id", "probabilities", *columns],
            where=f"model_id == '{quoted}'",
            version=look.run.base,
        ).to_pylist()
        return [row for row in found if len(row["probabilities"] or ()) == len(classes)]

    found = [
        {**row, "at": row["predicted_at"], "endpoint": ""}
        for row in rows("predictions", "predicted_at")
    ]
    found += [
        {**row, "at": row["occurred_at"], "endpoint": row["endpoint"] or ""}
        for row in rows("confidences", "occurred_at", "endpoint", "linked_by", "classes")
        if row["linked_by"] != "embedding" and (row["classes"] or classes) == classes
    ]
    found.sort(key=lambda row: (row["at"] is not None, row["at"], row["endpoint"]))
    return {row["sample_id"]: row for row in found}


def _given(
    look: Look, rows: list[dict[str, Any]], labels: Mapping[str, str]
) -> dict[str, list[tuple[datetime | None, tuple[str, str]]]]:
    """Return when, by whom and in which round people gave each sample the label that counts."""
    from visionloop.labeling.answers import is_collected
    from visionloop.labeling.provider import DONE
    from visionloop.lake import parts

    given: dict[str, list[tuple[datetime | None, tuple[str, str]]]] = defaultdict(list)
    asked = parts.rows_of(
        look.lake,
        "annotations",
        labels.keys(),
        columns=["sample_id", "annotator", "external_id", "state", "label", "updated_at",
                 "round_id"],
        version=look.run.base,
    ).to_pylist()  # fmt: skip
    for row in asked:
        sample = row["sample_id"]
        if row["state"] == DONE and row["label"] == labels[sample]:
            voice = (str(row["annotator"] or row["external_id"]), row["round_id"] or "")
            given[sample].append((row["updated_at"], voice))
    for row in rows:
        sample = row["sample_id"]
        if sample in labels and row["label"] == labels[sample]:
            voice = (str(row["annotator"] or row["origin"]), row["round_id"] or "")
            if is_collected(row) and given[sample]:
                voice = given[sample][0][1]  # what was made of answers is not one more of them
            given[sample].append((row["created_at"], voice))
    return given


def _why(said: Said | None, found: Contradicted | None) -> str:
    if said is None or found is None:
        return "no model in service has answered to a sample that people labelled"
    return found.why


def _page(said: Said | None, told: dict[str, Any]) -> str:
    if said is None:
        return ""
    head = "## Labels beside the model in service\n\n"
    if told["why"]:
        return f"{head}How sure a contradiction must be cannot be told: {told['why']}.\n"
    n = counted(told["n"], "label")
    limit = min(told["limit"], 1.0)
    sure = "1" if math.isclose(limit, 1.0) else f"{limit:.3f}"
    return (
        f"{head}Of {n} that {said.model} answered to, "
        f"{counted(told['confident_disagreement'], 'is', 'are')} contradicted with "
        f"a calibrated confidence above {sure}, learned from "
        f"{counted(told['n_holdout'], 'label')} of the holdout; "
        f"{counted(told['stale_label'], 'label is', 'labels are')} stale.\n"
    )
