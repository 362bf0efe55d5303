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
    """Collect what people have answered, and decide whether the round goes on.

    As long as too many labels are missing the round waits: trainable_version is empty and nothing
    is trained. A round that goes on takes back what is still open.

    Reads: label_requests, annotations, labels, files, samples, selections, predictions,
        experiments, metadata, flags, erased; what the provider has answered.
    Writes: annotations, labels, label_requests, flags, rounds.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        metrics: Counts of requests by what became of them, and of answers by state.
        page: The same by purpose and annotator, with conflicts and what was rejected.
        run_id: The run, written on every row; empty outside a pipeline.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        trainable_version: Version of the lake to train on; empty while the round waits for
            labels.
        n_labels: Labels of this round collected so far.
        n_missing: Requests of this round that are open.
        n_skipped: Requests of this round that nobody can label.
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
