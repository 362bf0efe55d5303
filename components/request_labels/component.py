"""Ask the labelling provider for the labels of the selected samples."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def request_labels(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    metrics: dsl.Output[dsl.Metrics],
    run_id: str = "",
) -> NamedTuple("Outputs", [("lake_version", str), ("n_requested", int)]):
    """Ask people for the labels of what was selected, of relabels, and of the holdout.

    A request that was made before is not made again.

    Reads: selections, relabels, labels, label_requests, samples, predictions, experiments,
        metadata.
    Writes: label_requests; the request where the provider looks for it; flags of files that
        hold another picture now.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        metrics: Number of requests, by what for.
        run_id: The run, written on every row; empty outside a pipeline.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        n_requested: Requests open or answered for this round.
    """
    from visionloop.stages.request_labels import request_labels as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        run_id=run_id,
        metrics=metrics,
    )
