"""Bring the finished labels into the lake."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def collect_labels(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    run_id: str = "",
) -> NamedTuple(
    "Outputs",
    [
        ("lake_version", str),
        ("trainable_version", str),
        ("n_labels", int),
        ("n_missing", int),
        ("n_skipped", int),
    ],
):
    """Collect the labels that the provider has finished.

    When labels are missing the round waits: trainable_version is empty and nothing is trained.

    Reads: label_requests, labels, files, samples, experiments; what the provider has answered.
    Writes: labels, rounds.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        metrics: Counts of requests that are labelled, skipped and missing.
        page: The same by purpose, what was skipped, and rows that name no known sample.
        run_id: The run, written on every row; empty outside a pipeline.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        trainable_version: Version of the lake to train on; empty while the round waits for
            labels.
        n_labels: Labels of this round collected so far.
        n_missing: Requests of this round that nobody has answered.
        n_skipped: Requests of this round answered with `-` or `skip`: nobody can label them.
    """
    from visionloop.stages.collect_labels import collect_labels as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        run_id=run_id,
        metrics=metrics,
        page=page,
    )
