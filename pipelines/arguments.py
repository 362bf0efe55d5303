"""What a pipeline is started with: the configuration's values, and what a person sets instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.pipelines import registry

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


def pipeline_arguments(config: LoopConfig, pipeline: str = "") -> dict[str, Any]:
    """Map a configuration to the arguments of the pipelines.

    Args:
        config: The loop's configuration.
        pipeline: Name of a pipeline, to get only the arguments that it has; empty gets all.

    Returns:
        Values by parameter name. Parameters that no configuration knows, such as ``take_over``, are
        left out and keep their defaults.
    """
    selection = config.selection
    as_a_job = config.training.runner == "trainjob"
    values: dict[str, Any] = {
        "config": config.text(),
        "lake": config.lake,
        # A share of the pool is counted by the stage: 0 leaves it to the configuration.
        "n_samples": 0 if selection.proportion_samples is not None else selection.n_samples,
        "strategy": selection.strategy,
        "architecture": config.training.architecture,
        "epochs": config.training.epochs,
        "runner": config.training.runner,
        "events": config.serving.events,
        "shard_size": config.cluster.shard_size,
        "accelerator_type": config.cluster.accelerator_type,
        # A task that waits for its TrainJob holds neither a GPU nor a place beside one.
        "accelerator_count": 0 if as_a_job else config.cluster.accelerator_count,
        "node_selector": dict(config.cluster.node_selector),
        "train_node_selector": {} if as_a_job else dict(config.cluster.node_selector),
        "tolerations": list(config.cluster.tolerations),
        "accelerator_cpu": config.cluster.accelerator_cpu,
        "accelerator_memory": config.cluster.accelerator_memory,
    }
    if not pipeline:
        return values
    known = parameters(pipeline)
    return {name: value for name, value in values.items() if name in known}


def parameters(pipeline: str) -> dict[str, str]:
    """Return the parameters of a pipeline.

    Args:
        pipeline: Its name.

    Returns:
        KFP's word for the type (``STRING``, ``NUMBER_INTEGER``, ``BOOLEAN``, ``STRUCT``, ``LIST``)
        by parameter name.
    """
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    inputs = registry.load(pipeline).pipeline_spec.root.input_definitions.parameters
    return {
        name: ParameterType.ParameterTypeEnum.Name(spec.parameter_type)
        for name, spec in sorted(inputs.items())
    }


def missing(pipeline: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the parameters without a default that have no value yet.

    Args:
        pipeline: Its name.
        arguments: The values so far.

    Returns:
        Their names, sorted.
    """
    inputs = registry.load(pipeline).pipeline_spec.root.input_definitions.parameters
    return sorted(
        name for name, spec in inputs.items() if not spec.is_optional and name not in arguments
    )


def find_pipeline(name: str) -> str:
    """Return the registered name that a person means.

    Args:
        name: What was typed; dashes and underscores are the same.

    Returns:
        The registered name.

    Raises:
        InputError: There is no such pipeline; the nearest one is named.
    """
    wanted = name.replace("-", "_")
    if wanted in registry.NAMES:
        return wanted
    raise InputError(
        f"unknown pipeline `{name}`{did_you_mean(wanted, registry.NAMES)}",
        remedy=f"Use one of {', '.join(registry.NAMES)}",
    )


def convert(pipeline: str, name: str, text: str) -> Any:
    """Read the value of a parameter from the command line.

    Args:
        pipeline: Name of the pipeline.
        name: Name of one of its parameters.
        text: What was typed.

    Returns:
        A value of the parameter's type.

    Raises:
        InputError: The text is not of that type.
    """
    kind = parameters(pipeline)[name]
    try:
        match kind:
            case "STRING":
                return text
            case "NUMBER_INTEGER":
                return int(text)
            case "NUMBER_DOUBLE":
                return float(text)
            case "BOOLEAN":
                return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
            case _:
                value = json.loads(text)
                if not isinstance(value, dict if kind == "STRUCT" else list):
                    raise ValueError(text)
                return value
    except (ValueError, KeyError):
        raise InputError(
            f"`{name}` takes {_SPOKEN.get(kind, kind)}, not {text!r}",
            where=f"--set {name}={text}",
            remedy=f"Give {_SPOKEN.get(kind, kind)}",
        ) from None


_SPOKEN = {
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "STRUCT": "a JSON object",
    "LIST": "a JSON list",
}


def did_you_mean(word: str, known: tuple[str, ...] | list[str]) -> str:
    """Return `` (did you mean `x`?)`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean `{near[0]}`?)" if near else ""
