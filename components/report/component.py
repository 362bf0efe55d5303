"""Write the page that shows the health of all stages."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(
    config: str,
    lake: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    round_id: str = "",
    run_id: str = "",
) -> NamedTuple("Outputs", [("n_rounds", int), ("verdict", str)]):
    """Write the report over all rounds, also when the run failed.

    Reads: files, samples, thumbnails, labels, annotations, label_requests, predictions, embeddings,
        selections, experiments, training_sets, confidences, harvest_events, checks, flags,
        estimates, decisions; some images, where the lake has no thumbnail of them.
    Writes: reports/LOOP.html, beside the tables.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        metrics: The report's numbers: accuracy in service with its interval, counts through the
            funnel, flags by kind, findings by severity, cost.
        page: The report, one self-contained page.
        round_id: The round that this belongs to; empty takes the current one.
        run_id: The run, written on every row; empty outside a pipeline.

    Returns:
        n_rounds: Rounds that the report covers.
        verdict: healthy, look, act, cannot tell or nothing yet.
    """
    from visionloop.stages.report import report as run_stage

    return run_stage(
        config=config,
        lake=lake,
        round_id=round_id,
        run_id=run_id,
        metrics=metrics,
        page=page,
    )
