"""Check what came in, what the deployed model says, the labels and the loop itself."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def monitor(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    flags: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> NamedTuple(
    "Outputs",
    [("lake_version", str), ("n_checked", int), ("n_flagged", int), ("n_new_flags", int)],
):
    """Flag what is wrong with the samples that are not checked yet.

    Each file ends as ok, flagged, unreadable, no picture or unchecked; these add up to the input.
    Labels that models which did not train on them take for something else are doubted, where these
    models know enough; so are labels that the model in service contradicts surely, or that time
    has overtaken.

    Also compares what the deployed model said with its holdout and with the harvest before, and
    estimates its accuracy, or says why it cannot be told. And tells which stages failed or are
    slow, and for how many rounds the pool lasts.

    Reads: files, samples, metadata, checks, flags, labels, annotations, predictions, embeddings,
    selections, experiments, training_sets, confidences, estimates, thumbnails, label_requests,
    stage_runs; the images.
    Writes: checks, flags, estimates.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        flags: Parquet table of the new flags: subject, kind, score, threshold.
        metrics: Counts of flags by kind.
        page: Flags by kind, with examples.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        n_checked: Files newly checked.
        n_flagged: Files newly flagged, those that cannot be read not counted.
        n_new_flags: New flags of all kinds: of files, labels, drift and the loop.
    """
    from visionloop.stages.monitor import monitor as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        flags=flags,
        metrics=metrics,
        page=page,
    )
