"""Choose the samples that are worth a label."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def select(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    selected: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    n_samples: int = 0,
    strategy: str = "",
    plan: str = "",
) -> NamedTuple("Outputs", [("lake_version", str), ("n_selected", int)]):
    """Select samples under the budget by the configured objectives.

    A round that has selected already returns the same picks. Where shards have proposed candidates,
    it selects among these. Asking again about labelled samples may take a part of the budget.

    Reads: samples, embeddings, predictions, confidences, labels, label_requests, selections,
        flags, experiments, metadata, relabels, annotations, training_sets, decisions; the plan and
        the files of the shards.
    Writes: selections, relabels, rounds.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        selected: Parquet table of the picks: sample_id, rank, the objectives' values,
            propensity.
        metrics: Counts after each filter, and of picks.
        page: The picks and why each was chosen.
        n_samples: Budget in samples; 0 takes the configuration's.
        strategy: Name of the strategy; empty takes the configuration's.
        plan: Name of the plan by which shards have proposed; empty where it selects alone.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        n_selected: Samples selected in this round.
    """
    from visionloop.stages.select import select as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        n_samples=n_samples,
        strategy=strategy,
        plan=plan,
        selected=selected,
        metrics=metrics,
        page=page,
    )
