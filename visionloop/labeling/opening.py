"""Opens the provider that `labeling.provider` names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.validation import nearest

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.labeling.provider import LabelingProvider
    from visionloop.lake import Lake

PROVIDERS = {
    "oracle": "visionloop.labeling.oracle:OracleProvider",
    "csv": "visionloop.labeling.csv_file:CsvProvider",
    "label_studio": "visionloop.labeling.label_studio:LabelStudioProvider",
}
METHODS = ("request", "poll", "collect", "recall")


def open_provider(config: LoopConfig, lake: Lake) -> LabelingProvider:
    """Return the provider of a loop.

    Args:
        config: The loop's configuration.
        lake: Its lake.

    Raises:
        InputError: There is no such class, or it is no provider.
        ModuleNotFoundError: A package is missing that it needs; `visionloop.failures.explain` names
            the extra that brings it.
    """
    named = config.labeling.provider
    factory = provider_class(named)
    provider: LabelingProvider = factory(config, lake)
    missing = [name for name in METHODS if not callable(getattr(provider, name, None))]
    if missing:
        raise InputError(
            f"the class has no method {', '.join(f'`{name}`' for name in missing)}",
            where=f"labeling.provider {named}",
            remedy="Give it the four methods of visionloop.labeling.provider.LabelingProvider",
        )
    return provider


def provider_name(config: LoopConfig) -> str:
    """Return what rows of the lake call the provider: its name, or the name of its class."""
    return config.labeling.provider.rpartition(":")[2]


def answers_alone(config: LoopConfig) -> bool:
    """Return whether the provider is a list of known answers, one a sample, and no people."""
    return config.labeling.provider in ("oracle", "csv")


def provider_class(named: str) -> Callable[..., Any]:
    """Return the class of a provider.

    Args:
        named: As `labeling.provider` names it.

    Raises:
        InputError: There is no such class.
        ModuleNotFoundError: A package is missing that its module needs.
    """
    path = PROVIDERS.get(named, named)
    module, _, name = path.partition(":")
    where = f"labeling.provider {path}"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What the module itself imports and is missing is another error, with another remedy.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"there is no module `{error.name}`",
            where=where,
            remedy="Install the package into the environment or image that runs the stages, or "
            "put its folder on PYTHONPATH",
        ) from None
    factory: Any = getattr(found, name, None)
    if not callable(factory):
        near = nearest(name, [one for one in vars(found) if not one.startswith("_")])
        raise InputError(
            f"the module `{module}` has no class `{name}`{near}",
            where=where,
            remedy="Name it as package.module:Class",
        )
    made: Callable[..., Any] = factory
    return made
