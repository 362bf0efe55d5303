"""What a pipeline is started with: a configuration, and what a person sets instead of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


def start_arguments(
    pipeline: str, config: str | Path, settings: Iterable[str] = ()
) -> tuple[str, LoopConfig, dict[str, Any]]:
    """Return what a pipeline is started with.

    Args:
        pipeline: Name of the pipeline; dashes and underscores are the same.
        config: Path, URI or text of a ``loop.yaml``.
        settings: ``KEY=VALUE`` each: a parameter of the pipeline (``n_samples=50``) or a field of
            the configuration (``training.batch_size=16``).

    Returns:
        The pipeline's name, the configuration with its fields overridden, and the arguments.

    Raises:
        InputError: A name is unknown (the nearest known one is named) or a value is wrong.
    """
    from visionloop.config import LoopConfig, load_config
    from visionloop.pipelines.arguments import (
        convert,
        did_you_mean,
        find_pipeline,
        parameters,
        pipeline_arguments,
    )

    pipeline = find_pipeline(pipeline)
    known = parameters(pipeline)
    fields: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InputError(f"expected KEY=VALUE, not {setting!r}", where="--set")
        if key in known:
            chosen[key] = convert(pipeline, key, text)
        elif key.split(".")[0] in LoopConfig.model_fields:
            fields[key] = _scalar(text)
        else:
            every = [*known, *LoopConfig.model_fields]
            raise InputError(
                f"unknown key `{key}`{did_you_mean(key, every)}",
                where=f"--set {setting}",
                remedy=f"The parameters of {pipeline} are {', '.join(known)}; fields of the "
                "configuration are written with a dot, as in training.epochs",
            )
    for key in ("n_samples", "epochs"):
        if key in chosen and chosen[key] < 1:
            raise InputError(f"{key} is {chosen[key]}", where="--set", remedy="Give 1 or more")
    _check_placement(chosen)
    if "lake" in chosen:
        fields["lake"] = chosen["lake"] = absolute(chosen["lake"])
    loaded = load_config(config, overrides=fields)
    return pipeline, loaded, {**pipeline_arguments(loaded, pipeline), **chosen}


def fill_from_lake(pipeline: str, config: LoopConfig, arguments: dict[str, Any]) -> None:
    """Fill in the lake version and the round that half a round goes on from.

    Args:
        pipeline: Name of the pipeline.
        config: The configuration.
        arguments: The arguments so far; changed in place.

    Raises:
        InputError: A parameter is still missing, or there is no open round to go on with.
    """
    from visionloop.pipelines.arguments import missing

    wanted = missing(pipeline, arguments)
    if {"lake_version", "round_id"} & set(wanted):
        from visionloop.lake import Lake

        lake = Lake.open(arguments["lake"], catalog=config.catalog, loop=config.name)
        held = lake.rounds.current()
        if held is None and "round_id" in wanted:
            raise InputError(
                f"{pipeline} goes on with an open round, and there is none",
                where=lake.place,
                remedy="Open one with: visionloop run intake --set open_round=true",
            )
        found = {"lake_version": lake.version(), "round_id": held.round_id if held else ""}
        arguments.update({name: value for name, value in found.items() if name in wanted})
    still = missing(pipeline, arguments)
    if still:
        raise InputError(
            f"{pipeline} needs {', '.join(still)}", remedy=f"Give --set {still[0]}=VALUE"
        )


def _check_placement(chosen: dict[str, Any]) -> None:
    """Refuse what no configuration could say either: these are fields of `cluster` too."""
    from visionloop.cluster_config import ClusterConfig
    from visionloop.validation import validate

    fields = {name: chosen[name] for name in ClusterConfig.model_fields if name in chosen}
    validate(ClusterConfig, fields, where="--set")


def absolute(uri: str) -> str:
    """Return a plain path as an absolute one; a URI stays as it is."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def _scalar(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
