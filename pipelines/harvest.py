"""Bring back deployed confidences, flag what drifts, and show them."""

from kfp import dsl

from visionloop.components.harvest.component import harvest as harvest_component
from visionloop.components.monitor.component import monitor
from visionloop.components.report.component import report
from visionloop.pipelines.placement import never_cached


@dsl.pipeline(
    name="harvest",
    description="Bring back the confidences of the deployed model, flag drift, and report.",
)
def harvest(
    config: str,
    lake: str = "",
    events: str = "",
) -> None:
    """Bring back the confidences of the deployed model, flag drift; report however that ends.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        events: URI of the logged events; empty takes the configuration's, else the lake's.
    """
    reported = report(config=config, lake=lake, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    never_cached(reported)

    with dsl.ExitHandler(reported, name="part"):
        harvested = harvest_component(
            config=config, lake=lake, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, events=events
        )
        never_cached(harvested)

        monitored = monitor(
            config=config,
            lake=lake,
            lake_version=harvested.outputs["lake_version"],
            round_id="",
        )
        never_cached(monitored)  # what stands is so by the clock too
