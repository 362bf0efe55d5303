"""Bring back deployed confidences, and show them."""

from kfp import dsl

from visionloop.components.harvest.component import harvest as harvest_component
from visionloop.components.report.component import report
from visionloop.pipelines.placement import never_cached


@dsl.pipeline(
    name="harvest", description="Bring back the confidences of the deployed model, and report."
)
def harvest(
    config: str,
    lake: str = "",
    events: str = "",
) -> None:
    """Bring back the confidences of the deployed model, and write the report.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        events: URI of the logged events; empty takes the configuration's, else the lake's.
    """
    harvested = harvest_component(
        config=config, lake=lake, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, events=events
    )
    never_cached(harvested)

    reported = report(config=config, lake=lake, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    reported.after(harvested)
    never_cached(reported)
