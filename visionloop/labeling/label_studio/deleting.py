"""Takes tasks away: those that nobody has begun, and those of samples that were erased."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from visionloop.labeling.label_studio.project import Project, all_projects
from visionloop.labeling.label_studio.server import Server
from visionloop.labeling.label_studio.tasks import Filter, list_tasks, of_round, some

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

_UNTOUCHED: tuple[Filter, ...] = (
    ("total_annotations", "equal", "Number", 0),
    ("cancelled_annotations", "equal", "Number", 0),
    ("draft_exists", "equal", "Boolean", False),
)


def delete_untouched(
    server: Server, project: Project, round_id: str, requests: Mapping[str, str]
) -> list[str]:
    """Delete tasks of a round that nobody has answered, skipped or begun a draft of.

    The server looks at the answers when it deletes: only one that comes within that very request
    goes with its task.

    Args:
        server: The server.
        project: The project.
        round_id: The round.
        requests: Task by sample.

    Returns:
        The samples whose tasks are gone.
    """
    ids = {int(task) for task in requests.values() if task.isdigit()}
    present = _present(server, project, round_id)
    delete(server, project.id, ids & present, _UNTOUCHED)
    left = ids & _present(server, project, round_id)
    return [
        sample for sample, task in requests.items() if not task.isdigit() or int(task) not in left
    ]


def delete_tasks(
    config: LoopConfig, lake: Lake, sample_ids: Collection[str], server: Server | None = None
) -> set[int]:
    """Delete every task of some samples, of all rounds and loops of the lake, with its answers.

    Projects are known by the mark in their description: the configuration may name another title
    by now than when it asked.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        sample_ids: The samples.
        server: Where the projects are; by default the one that the configuration names.

    Returns:
        The ids of the tasks that were there and are gone.

    Raises:
        InputError: The token is refused.
        VisionloopError: The server does not answer.
    """
    server = server or Server.of(config)
    gone: set[int] = set()
    for project in all_projects(lake, server):
        found = _tasks_of(server, project, sample_ids)
        delete(server, project, found)
        gone |= found - _tasks_of(server, project, sample_ids) if found else set()
    return gone


def _tasks_of(server: Server, project: int, sample_ids: Collection[str]) -> set[int]:
    found: set[int] = set()
    for part in some(sample_ids):
        mine: Filter = ("data.sample_id", "in_list", "List", part)
        found.update(task.id for task in list_tasks(server, project, [mine], ["id"]))
    return found


def delete(
    server: Server, project: int, tasks: Iterable[int], filters: Iterable[Filter] = ()
) -> None:
    """Delete tasks by their ids.

    Args:
        server: The server.
        project: The project's id.
        tasks: Ids of the tasks.
        filters: What must be true of each of them besides.
    """
    chosen = sorted(tasks)
    if not chosen:
        return
    items = [
        {"filter": f"filter:tasks:{name}", "operator": operator, "type": kind, "value": value}
        for name, operator, kind, value in filters
    ]
    body: dict[str, Any] = {"selected_items": {"all": False, "included": chosen}}
    if items:
        body["filters"] = {"conjunction": "and", "items": items}
    server.call(lambda client: client.actions.create(id="delete_tasks", project=project, **body))


def _present(server: Server, project: Project, round_id: str) -> set[int]:
    return {task.id for task in list_tasks(server, project.id, [of_round(round_id)], ["id"])}
