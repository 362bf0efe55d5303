"""The page at the end of a pipeline that is a part of a round."""

from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask

from visionloop.components.report.component import report
from visionloop.pipelines.placement import never_cached


def report_after(last: PipelineTask, *, config: Any, lake: Any, reports: Any) -> None:
    """Write the report after a pipeline's last task, unless the round that it is part of does.

    The run's id is not handed on: the round stays with whoever opened it.

    Args:
        last: The task.
        config: Pipeline parameter: text of loop.yaml, or the URI of one.
        lake: Pipeline parameter: URI of the lake.
        reports: Pipeline parameter: whether to write it.
    """
    with dsl.If(reports == True, name="reports"):  # noqa: E712 - kfp overloads the operator
        reported = report(config=config, lake=lake)
        reported.after(last)
        never_cached(reported)
