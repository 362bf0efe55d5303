"""Bring back the confidences of the deployed model."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def harvest(
    config: str,
    lake: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    round_id: str = "",
    run_id: str = "",
    events: str = "",
) -> NamedTuple(
    "Outputs",
    [
        ("lake_version", str),
        ("n_events", int),
        ("n_confidences", int),
        ("n_rejected", int),
        ("n_orphans", int),
        ("n_pending", int),
    ],
):
    """Read the events that the endpoint logged and record each inference once.

    Every event that was read is harvested, pending, an orphan, rejected, ignored or a duplicate;
    these six counts add up to n_events, and the page lists them.

    Reads: harvest_ledger, harvest_events, experiments, erased, embeddings; the events that were
        logged.
    Writes: harvest_ledger, harvest_events, confidences.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        metrics: Counts of events by outcome.
        page: Events by outcome, and the distribution of confidences.
        round_id: The round that this belongs to; empty takes the current one.
        run_id: The run, written on every row; empty outside a pipeline.
        events: URI of the logged events; empty takes the configuration's, else the lake's.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        n_events: Events read that were not read before.
        n_confidences: Inferences recorded.
        n_rejected: Events rejected, each with a reason.
        n_orphans: Requests without a response, or the reverse, past the waiting time.
        n_pending: Events that still wait for their other half.
    """
    from visionloop.stages.harvest import harvest as run_stage

    return run_stage(
        config=config,
        lake=lake,
        round_id=round_id,
        run_id=run_id,
        events=events,
        metrics=metrics,
        page=page,
    )
