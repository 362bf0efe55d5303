"""Check every new sample: quality, duplicates, outliers and drift."""

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
) -> NamedTuple("Outputs", [("lake_version", str), ("n_checked", int), ("n_flagged", int)]):
    """Flag what is wrong with the samples that are not checked yet.

    Each sample ends as ok, flagged, unreadable or unchecked, and the four add up to the input.
    Labels that models which did not train on them take for something else are flagged as suspect.

    Also compares what the deployed model said with its holdout and with the harvest before, and
    estimates its accuracy, or says why it cannot be told.

    Reads: files, samples, metadata, checks, flags, labels, annotations, predictions, embeddings,
    selections, experiments, training_sets, confidences, estimates, thumbnails; the images.
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
        n_checked: Samples newly checked.
        n_flagged: Samples newly flagged.
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
