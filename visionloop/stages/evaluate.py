"""Stage `evaluate`: measure a model on the frozen holdout, and decide whether it may serve."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.progress import progress
from visionloop.stages.artifacts import (
    Artifact,
    ClassificationMetricsArtifact,
    MetricsArtifact,
    log_confusion,
    log_metrics,
    write_page,
)
from visionloop.stages.evaluation_page import evaluation_page
from visionloop.stages.holdout_predictions import keep_predictions
from visionloop.stages.opening import open_stage
from visionloop.task import stage
from visionloop.training.evaluation import Measured, evaluate_predictions, slice_rates
from visionloop.training.experiments import (
    LOOP,
    ever_in_service,
    find_experiment,
    in_service,
    load_bundle,
    random_arm,
)
from visionloop.training.gate import Verdict, judge
from visionloop.training.holdout import Holdout, measured_before
from visionloop.training.slice_confusion import worst_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from visionloop.config import LoopConfig
    from visionloop.inference.images import Loaded
    from visionloop.inference.model import OnnxModel
    from visionloop.lake import Lake
    from visionloop.lake.run import Run


class EvaluateOutputs(NamedTuple):
    """What `evaluate` returns.

    Attributes:
        lake_version: Lake version with the measures and the gate's decision.
        passed: Whether the model may be published.
        accuracy: On the holdout, from 0 to 1; 0 where nothing could be measured.
    """

    lake_version: str
    passed: bool
    accuracy: float


@stage
def evaluate(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    model_id: str = "",
    model: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
    confusion: ClassificationMetricsArtifact | None = None,
    slice_1: ClassificationMetricsArtifact | None = None,
    slice_2: ClassificationMetricsArtifact | None = None,
    slice_3: ClassificationMetricsArtifact | None = None,
    slice_4: ClassificationMetricsArtifact | None = None,
    slice_5: ClassificationMetricsArtifact | None = None,
    slice_6: ClassificationMetricsArtifact | None = None,
    page: Artifact | None = None,
) -> EvaluateOutputs:
    """Evaluate a model, the one in service and the control arm's on the same holdout; apply gates.

    The candidate is compared with the best model that was ever in service. What an earlier gate
    measured on the same samples under the same labels is taken from its decision; where the holdout
    has grown or a label was corrected, the models that served before are measured again.

    A rejected model's round ends with the outcome ``kept``. Without labelled holdout samples a
    model is rejected unless ``gates.allow_unevaluated`` is set.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        model_id: The model; empty for the newest of the loop's own arm.
        model: Its bundle; None for the lake's copy.
        metrics: Receives accuracy overall and by slice, macro F1, calibration error.
        confusion: Receives the confusion matrix.
        slice_1: Receives the confusion matrix of the slice that the model is worst at.
        slice_2: Receives that of the slice that is the second worst.
        slice_3: Receives that of the slice that is the third worst.
        slice_4: Receives that of the slice that is the fourth worst.
        slice_5: Receives that of the slice that is the fifth worst.
        slice_6: Receives that of the slice that is the sixth worst.
        page: Receives a Markdown page.

    Raises:
        InputError: There is no such model, or its bundle is another's.
    """
    from visionloop.inference.images import flag_unreadable

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    candidate = find_experiment(opened, model_id)
    own_id = candidate["model_id"]
    with opened.run(
        stage="evaluate",
        round_id=round_id,
        base_version=lake_version,
        inputs={"model_id": own_id},
    ) as run:
        holdout = _holdout(loop, run)
        serving, random = in_service(opened), random_arm(opened, candidate["round_id"])
        shown = [row for row in (serving, random) if row and row["model_id"] != own_id]
        measured, served, unreadable = _measure_all(
            opened,
            run,
            [candidate, *shown],
            holdout,
            model.path if model is not None else None,
            loop.monitoring.small_slice_below,
        )
        own = measured[0]
        columns = _metadata(run, list(own.sample_ids))
        worst = worst_slices(own, holdout.labels, columns, most=6)
        before = next((m for m in measured[1:] if m.row["arm"] == LOOP), None)
        # Of equals the one in service, else the newest.
        current = before.row["model_id"] if before else ""
        best = max(served, key=lambda name: (served[name], name == current, name), default="")
        e = own.evaluation
        verdict = judge(
            e.accuracy if e else None,
            n=e.n if e else 0,
            n_holdout=holdout.n,
            interval=(e.low, e.high) if e else None,
            in_service=current,
            in_service_accuracy=served.get(current),
            best=best,
            best_accuracy=served.get(best),
            min_accuracy=loop.gates.min_accuracy,
            max_drop=loop.gates.max_drop,
            allow_unevaluated=loop.gates.allow_unevaluated,
        )
        if e:
            gone = {loaded.sample_id for loaded in unreadable}
            verdict.inputs["holdout"] = holdout.digest(s for s in holdout.media if s not in gone)
            verdict.inputs["measured"] = served | {own_id: e.accuracy}
        if candidate["state"] == "in_service":
            # Run again after it was published: the decision that was taken stands.
            verdict = Verdict(True, "in service already; " + verdict.reason, verdict.inputs)
        else:
            _write_decision(run, own_id, verdict)
        for one in measured:
            if one is own:
                _write_experiment(run, one, verdict, _paired(own, measured[1:], holdout))
            elif one is not before:
                _write_experiment(run, one, None)
        if verdict.passed:
            keep_predictions(run, own)
        flag_unreadable(opened, run, unreadable, holdout.media, stage="evaluate")
        run.set_round(
            outcome="" if verdict.passed else "kept",
            counts={"accuracy": own.evaluation.accuracy if own.evaluation else None},
        )
        n = own.evaluation.n if own.evaluation else 0
        version = run.commit(
            outputs={"passed": verdict.passed, "reason": verdict.reason},
            counts={"in": n + len(unreadable), "ok": n, "unreadable": len(unreadable)},
        )
    _report(measured, before, verdict, unreadable, metrics, confusion, page)
    places = [slice_1, slice_2, slice_3, slice_4, slice_5, slice_6]
    for place, found in zip(places, worst, strict=False):
        log_confusion(place, found.classes, found.counts, title=found.title)
    accuracy = own.evaluation.accuracy if own.evaluation else 0.0
    return EvaluateOutputs(version, verdict.passed, accuracy)


def _holdout(loop: LoopConfig, run: Run) -> Holdout:
    from visionloop.labeling.answers import MODEL, latest_labels

    held = run.read("samples", columns=["sample_id", "uri"], where="split == 'holdout'")
    rows = run.read("labels").to_pylist()
    labels = latest_labels((row for row in rows if row["origin"] != MODEL), loop.task)
    media = dict(zip(held["sample_id"].to_pylist(), held["uri"].to_pylist(), strict=True))
    labelled = {sample_id: uri for sample_id, uri in media.items() if sample_id in labels}
    return Holdout(len(media), labelled, {sample_id: labels[sample_id] for sample_id in labelled})


def _measure_all(
    lake: Lake,
    run: Run,
    shown: list[dict[str, Any]],
    holdout: Holdout,
    folder: str | None,
    small_below: int,
) -> tuple[list[Measured], dict[str, float], list[Loaded[Any]]]:
    """Measure the candidate and what it is shown beside, and the models that served before.

    Returns:
        What was measured of those shown, the accuracy of every model that is or was in service,
        and the samples that could not be read.
    """
    candidate, names = shown[0], {row["model_id"] for row in shown}
    past = [row for row in ever_in_service(lake) if row["model_id"] not in names]
    known = measured_before(run.read("decisions").to_pylist(), holdout.digest(holdout.media))

    def measure(old: list[dict[str, Any]]) -> tuple[list[Measured], list[Loaded[Any]]]:
        models = [load_bundle(candidate["model_id"], candidate["uri"], folder)]
        models += [load_bundle(row["model_id"], row["uri"]) for row in [*shown[1:], *old]]
        classes = list(candidate["classes"])
        return _measure(run, [*shown, *old], models, classes, holdout, small_below)

    old = [row for row in past if row["model_id"] not in known]
    measured, unreadable = measure(old)
    if unreadable and len(old) < len(past):
        # What is known is of more samples than could be read now.
        known = {}
        measured, unreadable = measure(past)
    served = {row["model_id"]: known[row["model_id"]] for row in past if row["model_id"] in known}
    for one in measured[1:]:
        if one.row["arm"] == LOOP and one.evaluation:
            served[one.row["model_id"]] = one.evaluation.accuracy
    return measured[: len(shown)], served, unreadable


def _measure(
    run: Run,
    rows: list[dict[str, Any]],
    models: list[OnnxModel],
    classes: list[str],
    holdout: Holdout,
    small_below: int,
) -> tuple[list[Measured], list[Loaded[Any]]]:
    from visionloop.inference.prediction import predict_media

    media, labels = holdout.media, holdout.labels
    with progress("evaluate", total=len(media), unit="images") as bar:
        found = predict_media(models, media, bar=bar)
        truth = [labels[sample_id] for sample_id in found.sample_ids]
        # A label outside the candidate's classes is a sample that it gets wrong, not one to drop;
        # so is a class that only the model in service knows.
        known = [name for model in models for name in model.card.classes]
        everything = list(dict.fromkeys([*classes, *known, *sorted(set(truth))]))
        columns = _metadata(run, found.sample_ids)
        measured = []
        for row, model, probabilities in zip(rows, models, found.probabilities, strict=True):
            if not truth:
                measured.append(Measured(row, None, []))
                continue
            names = model.card.classes
            right = np.array(
                [names[i] == label for i, label in zip(probabilities.argmax(1), truth, strict=True)]
            )
            result = evaluate_predictions(
                probabilities, truth, model_classes=names, classes=everything
            )
            slices = slice_rates(columns, right, small_below=small_below)
            measured.append(Measured(row, result, slices, probabilities, found.sample_ids))
        if measured[0].evaluation:
            bar.note(f"accuracy {measured[0].evaluation.accuracy:.3f}")
    return measured, found.unreadable


def _metadata(run: Run, sample_ids: list[str]) -> dict[str, list[Any]]:
    table = run.read("metadata")
    # Of all samples only the holdout's become rows of Python's.
    table = table.filter(pc.is_in(table["sample_id"], value_set=pa.array(sample_ids, pa.string())))
    names = [
        name
        for name in table.column_names
        if name not in ("sample_id", "raw", "round_id", "run_id")
    ]
    rows = {row["sample_id"]: row for row in table.select(["sample_id", *names]).to_pylist()}
    return {name: [rows.get(s, {}).get(name) for s in sample_ids] for name in names}


def _write_decision(run: Run, model_id: str, verdict: Verdict) -> None:
    row = {
        "decision": "gate",
        "subject": model_id,
        "outcome": "passed" if verdict.passed else "rejected",
        "reason": verdict.reason,
        "inputs": json.dumps(verdict.inputs, sort_keys=True),
        "decided_at": datetime.now(UTC),
    }
    from visionloop.lake.schemas import arrow_schema

    run.replace(
        "decisions",
        pa.Table.from_pylist([row], schema=arrow_schema("decisions")),
        f"round_id == '{run.round_id}' and decision == 'gate' and subject == '{model_id}'",
    )


def _paired(own: Measured, others: list[Measured], holdout: Holdout) -> list[dict[str, Any]]:
    """Return on how many samples the candidate alone was right, and on how many another alone.

    Two rates on the same samples differ by much less than chance lets two rates on different ones
    differ; the counts that tell so are known here only.
    """

    def right(one: Measured) -> NDArray[np.bool_]:
        names = list(one.row["classes"])
        assert one.probabilities is not None
        said = [names[i] for i in one.probabilities.argmax(1)]
        return np.array([holdout.labels[s] == name for s, name in zip(ids, said, strict=True)])

    ids = list(own.sample_ids)
    if own.probabilities is None or not ids:
        return []
    mine = right(own)
    return [
        {
            "model_id": other.row["model_id"],
            "n": len(ids),
            "only_this": int((mine & ~theirs).sum()),
            "only_that": int((theirs & ~mine).sum()),
        }
        for other, theirs in ((o, right(o)) for o in others if o.probabilities is not None)
    ]


def _write_experiment(
    run: Run,
    one: Measured,
    verdict: Verdict | None,
    paired: list[dict[str, Any]] | None = None,
) -> None:
    row = dict(one.row)
    training = {
        name: value
        for name, value in json.loads(row["metrics"] or "{}").items()
        if name == "training"
    }
    if one.evaluation:
        told = {"paired": paired} if paired else {}
        row["metrics"] = json.dumps(training | one.evaluation.metrics() | told)
        row["slices"] = json.dumps(one.slices)
        row["confusion"] = json.dumps(
            {"classes": one.evaluation.classes, "counts": one.evaluation.confusion}
        )
    if verdict is not None and row["state"] != "in_service":
        row["state"] = "passed" if verdict.passed else "rejected"
    from visionloop.lake.schemas import arrow_schema

    # The row stays the round's and the run's that trained it.
    rows = pa.Table.from_pylist([row], schema=arrow_schema("experiments"))
    run.replace("experiments", rows, f"model_id == '{row['model_id']}'")


def _report(
    measured: list[Measured],
    before: Measured | None,
    verdict: Verdict,
    unreadable: list[Loaded[Any]],
    metrics: MetricsArtifact | None,
    confusion: ClassificationMetricsArtifact | None,
    page: Artifact | None,
) -> None:
    own = measured[0]
    random = next((m for m in measured if m.row["arm"] == "random"), None)
    values: dict[str, Any] = {"passed": verdict.passed, "n_unreadable": len(unreadable)}
    if own.evaluation:
        overall = own.evaluation.metrics()
        values |= {name: overall[name] for name in overall if name != "per_class"}
        for s in own.slices:
            name = f"accuracy {s['column']}={s['value']}"
            values |= {name: s["accuracy"], f"{name} low": s["low"], f"{name} high": s["high"]}
            values[f"{name} n"] = s["n"]
        log_confusion(confusion, own.evaluation.classes, own.evaluation.confusion)
    for name, other in (("in_service", before), ("random", random)):
        if other and other.evaluation:
            values[f"{name}_accuracy"] = other.evaluation.accuracy
            values[f"{name}_accuracy_low"] = other.evaluation.low
            values[f"{name}_accuracy_high"] = other.evaluation.high
    log_metrics(metrics, values)
    write_page(page, evaluation_page(measured, before, verdict, unreadable))
