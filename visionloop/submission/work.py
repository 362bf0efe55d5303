"""What is started: a pipeline, compiled with everything that it is started with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.submission.packages import Package, package, refuse_local_lake
from visionloop.submission.starting import start_arguments

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


@dataclass(frozen=True)
class Work:
    """A pipeline with everything that it is started with, compiled.

    Attributes:
        package: The compiled pipeline.
        config: The loop's configuration.
        arguments: Values of the pipeline's parameters.
    """

    package: Package
    config: LoopConfig
    arguments: dict[str, Any]


def prepare(
    pipeline: str,
    config: str | Path,
    folder: str | Path,
    *,
    settings: Iterable[str] = (),
    image: str = "",
) -> Work:
    """Compile a pipeline with the values of a configuration; needs no server.

    Args:
        pipeline: Name of the pipeline.
        config: Path, URI or text of a ``loop.yaml``.
        folder: Gets the compiled pipeline.
        settings: ``KEY=VALUE`` each: parameters of the pipeline or fields of the configuration.
        image: Image of every task; empty takes the configuration's, else the release's.

    Raises:
        InputError: The configuration or a name is wrong, or pods would not see the lake.
    """
    from visionloop.pipelines.placing import Placed

    name, loaded, arguments = start_arguments(pipeline, config, settings)
    refuse_local_lake(arguments["lake"], loaded.cluster.mount_path)
    placed = Placed.of(loaded.cluster, image=image)
    compiled = package(name, loaded.name, folder, defaults=arguments, placed=placed)
    return Work(compiled, loaded, arguments)
