"""Stage `collect_labels`: bring labels into the lake, and say whether the round can go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

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
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


class CollectLabelsOutputs(NamedTuple):
    """What `collect_labels` returns.

    Attributes:
        lake_version: Lake version with the new labels.
        trainable_version: The same once every requested label of the round is there; empty while
            the round waits for people.
        n_labels: Labels of this round that are there.
        n_missing: Labels of this round that are not.
    """

    lake_version: str
    trainable_version: str
    n_labels: int
    n_missing: int


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

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version that the pipeline is at, the key of its cache; the newest is read.
        round_id: The round; empty for the open one.
        run_id: The run that collects.
        metrics: Receives ``n_labels`` and ``n_missing``.
        page: Receives a Markdown page.

    Raises:
        InputError: An answer is of a class that the configuration lacks.
    """
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    loop, opened = open_stage(config, lake)
    with opened.run(stage="collect_labels", round_id=round_id, run_id=run_id) as run:
        requested = run.read("label_requests", where=f"round_id == '{run.round_id}'").to_pylist()
        wanted = {row["sample_id"]: row["purpose"] for row in requested}
        labelled = set(run.read("labels", columns=["sample_id"])["sample_id"].to_pylist())
        open_requests = [sample for sample in wanted if sample not in labelled]
        answers, where = _answers(loop, opened, run.round_id, run.base, open_requests)
        _check_classes(loop, answers, where)
        now = datetime.now(UTC)
        rows = [
            {
                "sample_id": sample,
                "task": loop.task,
                "label": label,
                "annotator": loop.labeling.provider,
                "origin": loop.labeling.provider,
                "created_at": now,
            }
            for sample, label in sorted(answers.items())
        ]
        run.append("labels", pa.Table.from_pylist(rows, schema=arrow_schema("labels")))
        missing = [sample for sample in open_requests if sample not in answers]
        n_labels = len(wanted) - len(missing)
        run.set_round(
            state="waiting" if missing else "running",
            counts={"labels": n_labels, "labels_missing": len(missing)},
        )
        version = run.commit(
            counts={"in": len(wanted), "ok": n_labels, "skipped": len(missing)},
            outputs={"waiting_for": where if missing else ""},
        )
    log_metrics(metrics, {"n_labels": n_labels, "n_missing": len(missing)})
    write_page(page, _page(wanted, missing, where, loop.labeling.provider))
    return CollectLabelsOutputs(version, "" if missing else version, n_labels, len(missing))


def _answers(
    loop: LoopConfig, lake: Lake, round_id: str, version: str, wanted: list[str]
) -> tuple[dict[str, str], str]:
    if loop.labeling.provider == "oracle":
        from visionloop.labeling.oracle import open_oracle

        oracle = open_oracle(loop, lake, version=version or None)
        return oracle.labels(wanted), oracle.where
    from visionloop.labeling.oracle import sample_uris
    from visionloop.labeling.requests import answers_uri
    from visionloop.labeling.tables import labels_of_files

    where = answers_uri(loop, lake, round_id)
    if not lake.storage.exists(where):
        return {}, where
    known, _ = labels_of_files(where, sample_uris(lake, version=version or None))
    return {sample: known[sample] for sample in wanted if sample in known}, where


def _check_classes(loop: LoopConfig, answers: dict[str, str], where: str) -> None:
    strange = sorted({label for label in answers.values() if label not in loop.classes})
    if loop.classes and strange:
        from visionloop.validation import nearest

        named = ", ".join(f"`{label}`" + nearest(label, loop.classes) for label in strange[:5])
        raise InputError(
            f"{len(strange)} classes in the labels are not in the configuration: {named}",
            where=where,
            remedy="Correct the labels, or add the classes to `classes:` at its end; nothing was "
            "stored",
        )


def _page(wanted: dict[str, str], missing: list[str], where: str, provider: str) -> str:
    rows = []
    for purpose in ("training", "holdout"):
        asked = [sample for sample, why in wanted.items() if why == purpose]
        open_ones = len(set(asked) & set(missing))
        rows.append([purpose, len(asked), len(asked) - open_ones, open_ones])
    state = (
        f"**Waiting** for {len(missing)} labels in `{where}`. Start the round again when they "
        "are there."
        if missing
        else "Every requested label is there."
    )
    table = markdown_table(["purpose", "requested", "labelled", "missing"], rows)
    return f"# Labels\n\n{state}\n\nProvider: {provider}.\n\n{table}\n"
