"""Says whether a loop's Label Studio is ready, for `visionloop doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.labeling.label_studio.interface import labelling_config
from visionloop.labeling.label_studio.project import find_project, title_of
from visionloop.labeling.label_studio.server import Server
from visionloop.labeling.label_studio.tasks import count_tasks

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


def check(config: LoopConfig, lake: Lake, patience: float = 5.0) -> str:
    """Return what was found, in a line: the server's version, whose token it is, the project.

    Nothing is made or changed.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        patience: Seconds for which a server that does not answer is asked again.

    Raises:
        InputError: The configuration, the token or the project is wrong.
        VisionloopError: The server does not answer.
    """
    labelling_config(config)
    server = Server.of(config, patience)
    release = server.version()
    who = server.call(lambda client: client.users.whoami())
    project = find_project(config, lake, server)
    there = (
        f"project {project.id} with {count_tasks(server, project.id, [])} tasks"
        if project
        else f"the project {title_of(config)!r} is made with the first request"
    )
    return f"Label Studio {release} at {server.url} as {who.email}; {there}"
