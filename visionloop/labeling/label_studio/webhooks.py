"""Has Label Studio tell a loop's collector of events when somebody has answered."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from visionloop.labeling.label_studio.project import open_project
from visionloop.labeling.label_studio.server import Server

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

EVENTS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
)


def ensure_webhook(
    config: LoopConfig, lake: Lake, url: str, secret: str, server: Server | None = None
) -> bool:
    """Have the project's webhook call an address; a second one of that address goes.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        url: Address of the collector's route, as the server reaches it.
        secret: Sent with each call, as ``Authorization: Bearer``.
        server: Where the project is; by default the one that the configuration names.

    Returns:
        Whether anything had to be changed.

    Raises:
        InputError: The token or the address is refused, or there is no project yet.
        VisionloopError: The server does not answer.
    """
    server = server or Server.of(config)
    project = open_project(config, lake, server)
    wanted: dict[str, Any] = {
        "url": url,
        "headers": {"Authorization": f"Bearer {secret}"},
        "actions": list(EVENTS),
        "send_for_all_actions": False,
        # That somebody answered is all that the collector takes from a call.
        "send_payload": False,
        "is_active": True,
    }
    hooks = server.call(lambda client: client.webhooks.list(project=str(project.id)))
    same = [hook for hook in hooks if hook.url == url]
    if not same:
        server.call(lambda client: client.webhooks.create(project=project.id, **wanted))
        return True
    first, *others = same
    for hook in others:
        server.call(partial(_delete, hook.id))
    if not others and all(_said(first, name) == _flat(value) for name, value in wanted.items()):
        return False
    server.call(lambda client: client.webhooks.update(id=first.id, **wanted))
    return True


def _delete(hook: int, client: Any) -> None:
    client.webhooks.delete(id=hook)


def _said(hook: Any, name: str) -> Any:
    return _flat(getattr(hook, name, None))


def _flat(value: Any) -> Any:
    return sorted(value) if isinstance(value, (list, tuple)) else value
