"""Decide by rule whether a round starts, goes on, or waits, and act by rule besides."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def watch(
    config: str,
    lake: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    run_id: str = "",
    n_samples: int = 0,
    dry_run: bool = False,
) -> NamedTuple(
    "Outputs",
    [
        ("lake_version", str),
        ("decision", str),
        ("action", str),
        ("round_id", str),
        ("reason", str),
        ("acts", str),
    ],
):
    """Decide whether a round starts, goes on, or waits, act otherwise by rule, and write down why.

    New images at the sources, drift or falling confidence of the model in service, and time start a
    round; finished labels, or the death of the run that held it, let an open one go on. Besides,
    the random share is raised while the model's scores cannot be trusted, publication is blocked
    while labels or service are doubted, and, where that is enabled, a model that is worse than the
    one before it is rolled back. The thresholds are those of the section `watch` of the
    configuration.

    Reads: rounds, files, samples, labels, label_requests, selections, experiments, predictions,
        confidences, flags, decisions, erased; the listing of the sources, the answers to label
        requests, the pointer of the endpoint, and, where a rule asks for it, its metrics.
    Writes: decisions, experiments; the pointer of the endpoint. A dry run writes nothing.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        metrics: What each rule measured.
        page: The decision, what was done besides, and what each rule said.
        run_id: The run, written on every row; empty outside a pipeline.
        n_samples: Budget of the next round in samples; 0 takes the configuration's.
        dry_run: Decide and explain, write nothing.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        decision: start, resume or wait.
        action: The same; in a dry run always wait, so that nothing follows.
        round_id: The round that it is about: the open one, or the one that comes next.
        reason: Why, in one sentence.
        acts: What was done besides, a sentence a line; in a dry run what would be done.
    """
    from visionloop.stages.watch import watch as run_stage

    return run_stage(
        config=config,
        lake=lake,
        run_id=run_id,
        n_samples=n_samples,
        dry_run=dry_run,
        metrics=metrics,
        page=page,
    )
