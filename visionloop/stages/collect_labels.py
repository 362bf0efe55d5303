"""Stage `collect_labels`: bring labels into the lake, and say whether the round can go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.errors import InputError
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.labeling.collecting import Answers
    from visionloop.lake.run import Run


class CollectLabelsOutputs(NamedTuple):
    """What `collect_labels` returns; requested = n_labels + n_skipped + n_missing.

    Attributes:
        lake_version: Lake version with the new labels.
        trainable_version: The same once every request of the round is answered; empty while the
            round waits for people, and where it ends since nearly all was skipped.
        n_labels: Labels of this round that are there.
        n_missing: Requests of this round that nobody has answered.
        n_skipped: Requests of this round that were answered with ``-`` or ``skip``.
    """

    lake_version: str
    trainable_version: str
    n_labels: int
    n_missing: int
    n_skipped: int


@stage
def collect_labels(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    run_id: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> CollectLabelsOutputs:
    """Collect the answers to the round's label requests.

    A sample that a person answers with ``-`` or ``skip`` is skipped, and so is at once one that the
    oracle does not know, since it will never know more. A skipped sample is a row of `labels`
    without a label, of the origin ``skipped``: it is never asked about, selected, trained on or
    evaluated. A label that is imported later takes its place.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version that the pipeline is at, the key of its cache; the newest is read.
        round_id: The round; empty for the open one.
        run_id: The run that collects.
        metrics: Receives ``n_labels``, ``n_skipped``, ``n_missing`` and ``n_unknown_rows``.
        page: Receives a Markdown page.

    Raises:
        InputError: An answer is of a class that the configuration lacks.
    """
    from visionloop.labeling.answers import latest_answers, skipped_samples
    from visionloop.labeling.collecting import read_answers

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    with opened.run(stage="collect_labels", round_id=round_id, run_id=run_id) as run:
        requested = run.read("label_requests", where=f"round_id == '{run.round_id}'").to_pylist()
        wanted = {row["sample_id"]: row["purpose"] for row in requested}
        held = run.read("labels").to_pylist()
        known = latest_answers(held, loop.task)
        open_requests = [sample for sample in wanted if sample not in known]
        answers = read_answers(loop, opened, run.round_id, open_requests, version=run.base)
        _check_classes(loop.classes or _frozen_classes(run), answers.labels, answers.where)
        rows = _rows(loop, answers)
        run.append("labels", rows)
        missing = {s for s in open_requests if s not in answers.labels} - set(answers.skipped)
        skipped = skipped_samples([*held, *rows.to_pylist()], loop.task) & set(wanted)
        n_labels = len(wanted) - len(missing) - len(skipped)
        # Nothing can be trained on, and nobody is asked again: the next round picks other samples.
        ended = bool(skipped) and not missing and _n_trainable(run, [*held, *rows.to_pylist()]) < 2
        run.set_round(
            state="waiting" if missing else "done" if ended else "running",
            outcome="kept" if ended else None,
            counts={
                "labels": n_labels,
                "labels_skipped": len(skipped),
                "labels_missing": len(missing),
            },
        )
        version = run.commit(
            counts={
                "in": len(wanted),
                "ok": n_labels,
                "skipped": len(skipped),
                "missing": len(missing),
                "unknown_rows": len(answers.unknown),
            },
            outputs={"waiting_for": answers.where if missing else ""},
        )
    counts = {"n_labels": n_labels, "n_skipped": len(skipped), "n_missing": len(missing)}
    log_metrics(metrics, counts | {"n_unknown_rows": len(answers.unknown)})
    write_page(page, _page(wanted, missing, skipped, answers, loop.labeling.provider, ended))
    return CollectLabelsOutputs(
        version, "" if missing or ended else version, n_labels, len(missing), len(skipped)
    )


def _n_trainable(run: Run, answers: list[dict[str, Any]]) -> int:
    from visionloop.labeling.answers import latest_labels

    pool = run.read("samples", columns=["sample_id"], where="split == 'pool'")
    return len(latest_labels(answers).keys() & set(pool["sample_id"].to_pylist()))


def _rows(loop: LoopConfig, answers: Answers) -> pa.Table:
    import pyarrow as pa

    from visionloop.labeling.answers import SKIPPED
    from visionloop.lake.schemas import arrow_schema

    provider, now = loop.labeling.provider, datetime.now(UTC)
    found: list[tuple[str, str | None, str]]
    found = [(sample, label, provider) for sample, label in answers.labels.items()]
    found += [(sample, None, SKIPPED) for sample in answers.skipped]
    rows = [
        {
            "sample_id": sample,
            "task": loop.task,
            "label": label,
            "annotator": provider,
            "origin": origin,
            "created_at": now,
        }
        for sample, label, origin in sorted(found, key=lambda row: row[0])
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("labels"))


def _frozen_classes(run: Run) -> list[str]:
    """Return the classes that the first model learned from its labels, none before there is one."""
    models = run.read("experiments", columns=["round_id", "arm", "classes"]).to_pylist()
    first = min(
        (row for row in models if row["arm"] == "loop" and row["classes"]),
        key=lambda row: row["round_id"],
        default=None,
    )
    return list(first["classes"]) if first else []


def _check_classes(classes: list[str], answers: dict[str, str], where: str) -> None:
    strange = sorted({label for label in answers.values() if label not in classes})
    if classes and strange:
        from visionloop.validation import nearest

        named = ", ".join(f"`{label}`" + nearest(label, classes) for label in strange[:5])
        raise InputError(
            f"labels of classes that are not among the loop's classes: {named}",
            where=where,
            remedy="Correct the labels, or name every class in `classes:`, a new one at its end; "
            "nothing was stored",
        )


def _page(
    wanted: dict[str, str],
    missing: set[str],
    skipped: set[str],
    answers: Answers,
    provider: str,
    ended: bool,
) -> str:
    from visionloop.labeling.requests import named

    rows = []
    for purpose in ("training", "holdout"):
        asked = {sample for sample, why in wanted.items() if why == purpose}
        n_skipped, n_open = len(asked & skipped), len(asked & missing)
        rows.append([purpose, len(asked), len(asked) - n_skipped - n_open, n_skipped, n_open])
    state = (
        f"**Waiting** for {len(missing)} labels in `{answers.where}`. Start the round again when "
        "they are there; a sample that nobody can label is answered with `-` or `skip`."
        if missing
        else "Every request is answered."
    )
    parts = ["# Labels", state, f"Provider: {provider}."]
    parts.append(markdown_table(["purpose", "requested", "labelled", "skipped", "missing"], rows))
    if ended:
        parts.append(
            "Too few labels are left to train on: **the round ends here**, and the next one "
            "selects other samples."
        )
    if skipped:
        why = "the oracle does not know them" if provider == "oracle" else "nobody can label them"
        shown = named([f"`{sample[:12]}`" for sample in sorted(skipped)])
        parts.append(
            f"**{len(skipped)} skipped**, since {why}: {shown}. They are not trained on, not "
            "evaluated and not asked about again."
        )
    if answers.unknown:
        shown = named([f"`{name}`" for name in answers.unknown])
        parts.append(
            f"Rows of `{answers.where}` that name no sample of the lake, and were not used: "
            f"**{len(answers.unknown)}** ({shown})."
        )
    return "\n\n".join(parts) + "\n"
