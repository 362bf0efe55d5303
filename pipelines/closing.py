"""The page at the end of a pipeline that is a part of a round, where it is run by itself."""

import inspect
from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from visionloop.components.report.component import report
from visionloop.pipelines.placement import never_cached


def by_itself(part: GraphComponent) -> GraphComponent:
    """Return the pipeline that runs a part of a round, and the report however the part ends.

    `round` takes the part as it is: it writes a report of its own, and kfp nests no exit handler in
    another. The run's id is not handed on: the round stays with whoever opened it.

    Args:
        part: The part; the pipeline has its name, its words and its parameters, and no outputs.
    """
    function, info = part.pipeline_func, part.pipeline_spec.pipeline_info
    signed = inspect.signature(function).replace(return_annotation=inspect.Signature.empty)

    def whole(*values: Any) -> None:
        arguments = dict(zip(signed.parameters, values, strict=True))
        reported = report(config=arguments["config"], lake=arguments["lake"])
        never_cached(reported)
        with dsl.ExitHandler(reported, name="part"):
            part(**arguments)

    # What kfp reads of a function.
    whole.__name__, whole.__doc__ = function.__name__, function.__doc__
    vars(whole)["__signature__"] = signed
    made: GraphComponent = dsl.pipeline(name=info.name, description=part.description)(whole)
    return made
