"""The compiled pipeline that is sent to a server, and what it is called there."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from visionloop import __version__
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.pipelines.placing import Placed


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        path: The file.
        pipeline: Name of the pipeline in this project.
        name: Name of the pipeline on the server: the loop's and its own.
        version: Name of the version: it follows the content.
        digest: SHA-256 of the file.
    """

    path: Path
    pipeline: str
    name: str
    version: str
    digest: str


def name_on_server(loop: str, pipeline: str) -> str:
    """Return what a loop's pipeline, or its schedule, is called on a server.

    Args:
        loop: Name of the loop.
        pipeline: Name of the pipeline.
    """
    return f"{loop}-{pipeline}".replace("_", "-").rstrip("-")


def package(
    pipeline: str,
    loop: str,
    folder: str | Path,
    *,
    defaults: Mapping[str, Any],
    placed: Placed | None = None,
) -> Package:
    """Compile a pipeline for a server.

    Args:
        pipeline: Its name.
        loop: Name of the loop.
        folder: Where to write it.
        defaults: The configuration's values: they become the defaults of the form, so that a run
            that a person starts there needs nothing else.
        placed: Where its tasks run: image, queue, volume, resources, the width of its fan-out.

    Returns:
        The package.
    """
    from visionloop.pipelines.compiling import compile_pipeline

    path = compile_pipeline(
        pipeline, Path(folder) / f"{pipeline}.yaml", placed=placed, arguments=defaults
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = name_on_server(loop, pipeline)
    return Package(path, pipeline, name, f"{name}-{__version__}-{digest[:12]}", digest)


def task_names(path: Path) -> dict[str, str]:
    """Return what the tasks of a package are called, by the key that a server shows them by.

    A server calls a condition or a loop ``condition-2``; the name that it was given stands in the
    package alone.

    Args:
        path: The package.

    Returns:
        Names by key, only of keys that mean one task.
    """
    import yaml

    # The parser in C takes a tenth of the second that the one in Python needs for a round.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    spec = next(yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader))
    names: dict[str, set[str]] = {}
    for component in [spec["root"], *spec.get("components", {}).values()]:
        for key, task in component.get("dag", {}).get("tasks", {}).items():
            names.setdefault(key, set()).add(str(task.get("taskInfo", {}).get("name", key)))
    return {key: found.pop() for key, found in names.items() if len(found) == 1}


def refuse_local_lake(lake: str, mount_path: str) -> None:
    """Refuse a lake on this machine's disk: pods would each see an empty folder.

    Args:
        lake: Root of the lake.
        mount_path: Folder at which every pod finds the same volume; empty where there is none.

    Raises:
        InputError: It is a path or a file:// URI that does not lie on that volume.
    """
    if "://" in lake and not lake.startswith("file://"):
        return
    path = posixpath.normpath(lake.removeprefix("file://"))
    if mount_path and PurePosixPath(path).is_relative_to(mount_path):
        return
    raise InputError(
        "the lake is a folder of this machine, which pods do not see",
        where=lake,
        remedy=f"Put it below {mount_path}, where every pod mounts the volume"
        if mount_path
        else "Set `lake:` to a gs:// URI with a PostgreSQL catalog, or name the claim that "
        "holds it in cluster.volume",
    )
