"""Decide by rule whether a round starts, goes on, or waits."""

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
    ],
):
    """Decide whether a round starts, goes on, or waits, and write down why.

    New images at the sources, drift or falling confidence of the model in service, and time start a
    round; finished labels, or the death of the run that held it, let an open one go on. The
    thresholds are those of the section `watch` of the configuration.

    Reads: rounds, files, samples, labels, label_requests, selections, experiments, predictions,
        confidences, flags, erased; the listing of the sources and the answers to label requests.
    Writes: decisions; nothing in a dry run.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        metrics: What each rule measured.
        page: The decision, and what each rule said.
        run_id: The run, written on every row; empty outside a pipeline.
        n_samples: Budget of the next round in samples; 0 takes the configuration's.
        dry_run: Decide and explain, write nothing.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        decision: start, resume or wait.
        action: The same; in a dry run always wait, so that nothing follows.
        round_id: The round that it is about: the open one, or the one that comes next.
        reason: Why, in one sentence.
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
