"""Stage `train`: train a model on everything labelled so far."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from visionloop.errors import InputError
from visionloop.inference.model import CARD_FILE
from visionloop.stages.artifacts import Artifact, MetricsArtifact, log_metrics
from visionloop.stages.opening import open_stage
from visionloop.task import stage
from visionloop.training.control_arm import control_parameters, random_picks
from visionloop.training.experiments import LOOP, RANDOM, trained_uri, version_with
from visionloop.training.parameters import RUNNERS
from visionloop.training.plan import Plan, Result, discard, folder_of
from visionloop.training.training_set import TrainingSet, class_names, model_id_for, trainable
from visionloop.validation import nearest

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.run import Run
    from visionloop.training.parameters import TrainingConfig


class TrainOutputs(NamedTuple):
    """What `train` returns.

    Attributes:
        lake_version: Lake version with the experiment.
        model_id: The trained model.
        n_labels: People's labels that it was trained on.
    """

    lake_version: str
    model_id: str
    n_labels: int


@stage
def train(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    architecture: str = "",
    epochs: int = 0,
    runner: str = "",
    model: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
) -> TrainOutputs:
    """Train a model, and the control arm's where the configuration asks for one.

    The training set is every labelled sample of the pool, under its latest label, less the copies
    of holdout samples. Of automatic labels (``labeling.auto_labels``) there are at most as many as
    the configuration allows; they are nobody's work, also not for the control arm. The same set
    with the same parameters in the same round returns the recorded model without training again.

    A training that was interrupted goes on from its checkpoint, to the same weights. What it is
    told and what it leaves lies under ``training/`` in the lake until it is recorded.

    The control arm trains on as many random picks from what selection may choose from (no copies,
    no excluded flags), each round's containing those of the round before; their labels come from
    the oracle and are written to no table but `training_sets`.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        architecture: Overrides ``training.architecture``.
        epochs: Overrides ``training.epochs``; 0 does not.
        runner: Overrides ``training.runner``: ``pod`` or ``trainjob``.
        model: Receives the bundle's folder.
        metrics: Receives labels, loss, accuracy and seconds.

    Raises:
        InputError: There are fewer than two labels, or a label of an unknown class; a runner is
            named that there is not.
        VisionloopError: The loss is not finite, no image can be read, the training was interrupted,
            or the TrainJob failed.
    """
    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    overrides: dict[str, Any] = {"architecture": architecture} if architecture else {}
    if epochs:
        overrides["epochs"] = epochs
    if runner:
        overrides["runner"] = _known(runner)
    parameters = loop.training.model_copy(update=overrides)
    with opened.run(
        stage="train",
        round_id=round_id,
        base_version=lake_version,
        inputs={"architecture": parameters.architecture, "epochs": parameters.epochs},
    ) as run:
        plans = _plans(loop, opened, run, parameters)
        wanted = {plan.model_id for plan in plans}
        done = {
            row["model_id"]: row
            for row in opened.read("experiments").to_pylist()
            if row["model_id"] in wanted
            and opened.storage.exists(f"{trained_uri(opened, row['model_id'])}/{CARD_FILE}")
        }
        # Trained first and written afterwards: writing takes the writers' lock.
        fresh = [(plan, _train(plan, loop)) for plan in plans if plan.model_id not in done]
        rows = [_row(plan, result) for plan, result in fresh]
        for (plan, result), row in zip(fresh, rows, strict=True):
            _write(plan, result, row, run, opened)
        version = run.commit(
            outputs={"model_id": plans[0].model_id},
            counts={"in": len(plans), "ok": len(rows), "skipped": len(plans) - len(rows)},
        )
    discard(opened, sorted(wanted))
    version = version if rows else version_with(opened, plans[0].model_id, version)
    row = next(row for row in [*rows, *done.values()] if row["model_id"] == plans[0].model_id)
    summary = json.loads(row["metrics"])["training"]
    device = summary.pop("device")
    log_metrics(metrics, {"n_labels": row["n_labels"], "trained": bool(rows)} | summary)
    if model is not None:
        _leave_bundle(opened, row, model)
        model.metadata["device"] = device
    return TrainOutputs(version, row["model_id"], int(row["n_labels"]))


def _plans(loop: LoopConfig, lake: Lake, run: Run, parameters: TrainingConfig) -> list[Plan]:
    from visionloop.labeling.answers import MODEL, latest_answers
    from visionloop.labeling.auto.share import within_share

    answers = latest_answers(run.read("labels").to_pylist(), loop.task)
    labels = {sample: row["label"] for sample, row in answers.items() if row["label"] is not None}
    # At the newest version: what an intake beside this round has put into the holdout stays there.
    samples = lake.read("samples", columns=["sample_id", "split", "fingerprint"]).to_pylist()
    allowed = trainable(samples, loop.selection.copy_distance)
    experiments = run.read("experiments").to_pylist()
    own = sorted(
        (row for row in experiments if row["arm"] == LOOP),
        key=lambda row: (row["round_id"], row["trained_at"]),
    )
    frozen = list(own[-1]["classes"] or []) if own else []
    classes = class_names(loop.classes, frozen, labels.values())
    # In the order of the ids: the set, and so the model, does not depend on who labelled first.
    automatic = {s for s in labels.keys() & allowed if answers[s]["origin"] == MODEL}
    n_people = len(labels.keys() & allowed) - len(automatic)
    kept = within_share(automatic, n_people, loop.labeling.auto_labels.max_share)
    rows = sorted((s, labels[s]) for s in labels.keys() & allowed if s not in automatic - kept)
    chosen = TrainingSet(LOOP, tuple(rows), frozenset(kept))
    if len(chosen.rows) < 2:
        raise InputError(
            f"{len(chosen.rows)} labelled samples are too few to train on; "
            f"{len(labels)} samples have a label, {len(allowed)} may be trained on",
            where=f"table labels of {lake.place}",
            remedy="Label at least two samples of the pool: run select and collect_labels first",
        )
    sets = [(chosen, parameters)]
    if parameters.control_arm:
        known = _oracle_labels(loop, lake, run.base, allowed)
        class_names(loop.classes, frozen, [*labels.values(), *known.values()])
        previous = _previous_random(run, experiments)
        picks = random_picks(
            set(known) - _excluded(loop, run),
            chosen.n_people,
            previous=previous,
            seed=parameters.seed,
            fingerprints={row["sample_id"]: row["fingerprint"] for row in samples},
            copy_distance=loop.selection.copy_distance,
        )
        random = TrainingSet(RANDOM, tuple(sorted((s, known[s]) for s in picks)))
        sets.append((random, control_parameters(parameters, len(random.rows))))
    media = lake.media(
        sorted({sample_id for one, _ in sets for sample_id in one.sample_ids}),
        version=run.base or None,
    )
    return [_plan(one, media, classes, settings, run, lake) for one, settings in sets]


def _plan(
    chosen: TrainingSet,
    media: dict[str, str],
    classes: list[str],
    parameters: TrainingConfig,
    run: Run,
    lake: Lake,
) -> Plan:
    model_id = model_id_for(run.round_id, chosen, classes, parameters)
    return Plan(
        model_id=model_id,
        training_set=chosen,
        media={name: media[name] for name in chosen.sample_ids if name in media},
        classes=classes,
        parameters=parameters,
        round_id=run.round_id,
        lake_version=run.base,
        bundle=trained_uri(lake, model_id),
        folder=folder_of(lake, model_id),
    )


def _known(runner: str) -> str:
    if runner not in RUNNERS:
        raise InputError(
            f"no runner is called {runner!r}{nearest(runner, list(RUNNERS))}",
            where="runner",
            remedy=f"Use one of: {', '.join(RUNNERS)}",
        )
    return runner


def _excluded(loop: LoopConfig, run: Run) -> set[str]:
    """Return the samples that selection leaves out for their flags."""
    flags = run.read("flags", columns=["subject", "kind"], where="subject_type == 'sample'")
    kinds = set(loop.selection.flags_left_out)
    return {row["subject"] for row in flags.to_pylist() if row["kind"] in kinds}


def _oracle_labels(loop: LoopConfig, lake: Lake, version: str, allowed: set[str]) -> dict[str, str]:
    from visionloop.labeling.oracle import open_oracle

    return open_oracle(loop, lake, version=version or None).labels(sorted(allowed))


def _previous_random(run: Run, experiments: list[dict[str, Any]]) -> list[str]:
    rows = [r for r in experiments if r["arm"] == RANDOM and r["round_id"] < run.round_id]
    if not rows:
        return []
    digest = max(rows, key=lambda row: (row["round_id"], row["trained_at"]))["training_set"]
    held = run.read("training_sets", where=f"training_set == '{digest}'")
    return sorted(held["sample_id"].to_pylist())


def _train(plan: Plan, loop: LoopConfig) -> Result:
    """Train one model where the configuration says, or take what a try before this one left."""
    plan.save()
    if plan.parameters.runner == "trainjob":
        from visionloop.training.trainjob import train_as_job

        return train_as_job(plan, loop)
    if result := Result.load(plan):
        return result
    from visionloop.training.processes import processes_here, train_in_processes
    from visionloop.training.work import do

    processes = processes_here(plan.parameters)
    return do(plan) if processes == 1 else train_in_processes(plan, processes)


def _row(plan: Plan, result: Result) -> dict[str, Any]:
    """Return the experiment's row."""
    used = plan.training_set.without(one.sample_id for one in result.unread)
    return {
        "model_id": plan.model_id,
        "arm": plan.training_set.arm,
        "architecture": plan.parameters.architecture,
        "classes": plan.classes,
        "parameters": json.dumps(plan.parameters.identity(), sort_keys=True),
        "training_set": result.training_set,
        "n_labels": used.n_people,
        "uri": plan.bundle,
        "state": "trained",
        "metrics": json.dumps({"training": {**result.summary, "n_automatic": len(used.automatic)}}),
        "slices": "",
        "confusion": "",
        "trained_at": datetime.fromisoformat(result.trained_at),
    }


def _write(plan: Plan, result: Result, row: dict[str, Any], run: Run, lake: Lake) -> None:
    """Write the experiment, its training set, and what could not be read."""
    from visionloop.inference.images import Loaded, flag_unreadable
    from visionloop.lake.schemas import arrow_schema

    used = plan.training_set.without(one.sample_id for one in result.unread)
    if not lake.read("training_sets", where=f"training_set == '{used.digest}'").num_rows:
        run.append("training_sets", used.table())
    rows = pa.Table.from_pylist([row], schema=arrow_schema("experiments"))
    run.replace("experiments", rows, f"model_id == '{plan.model_id}'")
    unread: list[Loaded[Any]] = [
        Loaded(one.sample_id, one.uri, None, one.reason, one.detail) for one in result.unread
    ]
    flag_unreadable(lake, run, unread, set(plan.training_set.sample_ids), stage="train")


def _leave_bundle(lake: Lake, row: dict[str, Any], model: Artifact) -> None:
    if Path(model.path).is_dir():
        shutil.rmtree(model.path)
    lake.storage.download(trained_uri(lake, row["model_id"]), model.path)
    model.metadata.update(
        model_id=row["model_id"],
        architecture=row["architecture"],
        classes=", ".join(row["classes"]),
        training_set=row["training_set"],
        n_labels=int(row["n_labels"]),
        lake_uri=row["uri"],
    )
