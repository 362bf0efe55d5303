"""The project of a loop at Label Studio: found again by its title and a mark in its description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.labeling.label_studio.interface import (
    asks_for_classes,
    instructions,
    labelling_config,
)
from visionloop.labeling.label_studio.server import ONCE, Server

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

# What Label Studio takes for a title.
_SHORTEST, _LONGEST = 3, 50
_FIELD = "labeling.label_studio.project"
# What Label Studio says of a model that none of a project's suggestions is of.
_NO_SUGGESTION = "Model version doesn't exist"
_MARK = "[visionloop: "


@dataclass(frozen=True)
class Project:
    """A project.

    Attributes:
        id: What the server calls it.
        url: What a person opens to label its tasks.
    """

    id: int
    url: str


def title_of(config: LoopConfig) -> str:
    """Return the title of a loop's project.

    Args:
        config: The loop's configuration.

    Raises:
        InputError: Label Studio takes no such title.
    """
    named = config.labeling.label_studio.project
    if named and not _SHORTEST <= len(named) <= _LONGEST:
        raise InputError(
            f"Label Studio takes titles of {_SHORTEST} to {_LONGEST} characters, and {named!r} "
            f"has {len(named)}",
            where=_FIELD,
        )
    default = config.name if len(config.name) >= _SHORTEST else f"loop {config.name}"
    return named or default[:_LONGEST]


def find_project(config: LoopConfig, lake: Lake, server: Server) -> Project | None:
    """Return the project of a loop, null where there is none.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        server: The server.

    Raises:
        InputError: A project of that title is not the loop's.
    """
    title, mark = title_of(config), _mark(config, lake)

    def listed(client: Any) -> list[Any]:
        # The server's own filter takes every title that contains this one.
        return list(client.projects.list(title=title, include="id,title,description"))

    same = [one for one in server.call(listed) if one.title == title]
    ours = sorted(one.id for one in same if mark in (one.description or ""))
    if ours:
        return Project(ours[0], f"{server.url}/projects/{ours[0]}")
    if same:
        raise InputError(
            f"the project {same[0].id}, {title!r}, is not this loop's: its description does not "
            f"say `{mark}`",
            where=server.url,
            remedy=f"Set {_FIELD} to another title; or, if the lake was moved or it is to become "
            "the loop's, write that into its description",
        )
    return None


def all_projects(lake: Lake, server: Server) -> list[int]:
    """Return the ids of all projects that ever were of a loop of the lake, whatever their titles.

    Args:
        lake: The lake.
        server: The server.
    """
    begin, end = _MARK, f" of {lake.place}]"

    def listed(client: Any) -> list[Any]:
        return list(client.projects.list(include="id,description"))

    return sorted(
        one.id
        for one in server.call(listed)
        if begin in (one.description or "") and end in (one.description or "")
    )


def open_project(config: LoopConfig, lake: Lake, server: Server) -> Project:
    """Return the project of a loop, which must be there.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        server: The server.

    Raises:
        InputError: It is not there, or not the loop's.
    """
    found = find_project(config, lake, server)
    if found is None:
        raise InputError(
            f"the project {title_of(config)!r} is not there: it was deleted or renamed, or the "
            "token's user may not see it",
            where=server.url,
            remedy="Give it its title again, or run `visionloop labels request`, which makes it "
            "and its tasks anew; answers that were collected stay",
        )
    return found


def prepare_project(config: LoopConfig, lake: Lake, server: Server) -> Project:
    """Return the project of a loop with the interface that `loop.yaml` asks for; made if need be.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        server: The server.

    Raises:
        InputError: It is not the loop's, or its answers do not fit a new interface.
    """
    wanted = _settings(config)
    server.version()
    found = find_project(config, lake, server)
    if found is None:
        description = (
            f"Images that the loop {config.name} wants labels for, the most useful first. "
            f"Leave this as it is: {_mark(config, lake)}"
        )
        options = {**ONCE, "additional_body_parameters": wanted}

        def create(client: Any) -> Project:
            made = client.projects.create(
                title=title_of(config), description=description, request_options=options
            )
            return Project(made.id, f"{server.url}/projects/{made.id}")

        return server.call_once(create, lambda: find_project(config, lake, server))
    held = server.call(lambda client: client.projects.get(id=found.id))
    changed = {name: value for name, value in wanted.items() if getattr(held, name, "") != value}
    if not changed:
        return found
    try:
        server.call(
            lambda client: client.projects.update(
                id=found.id, request_options={"additional_body_parameters": changed}
            )
        )
    except InputError as error:
        if "label_config" not in changed:
            raise
        raise InputError(
            f"the project's answers do not fit what `labeling.ask` and `classes` ask for now: "
            f"{error.what}",
            where=found.url,
            remedy=f"Put them back as they were, or set {_FIELD} to another title, for a new "
            "project",
        ) from None
    return found


def show_suggestions(server: Server, project: Project, model: str) -> None:
    """Have annotations begin with what a model suggests: Label Studio shows one model's.

    To be called when its suggestions are there: before, Label Studio refuses it.

    Args:
        server: The server.
        project: The project.
        model: The model.
    """
    held = server.call(lambda client: client.projects.get(id=project.id))
    if held.model_version == model:
        return
    try:
        server.call(lambda client: client.projects.update(id=project.id, model_version=model))
    except InputError as error:
        # The tasks are from before this model: they show what the one before it suggested.
        if _NO_SUGGESTION not in error.what:
            raise


def _settings(config: LoopConfig) -> dict[str, Any]:
    """Return what of a project is ours to say; the rest is the team's."""
    return {
        "label_config": labelling_config(config),
        "expert_instruction": instructions(config),
        "show_instruction": False,
        # Tasks in the order in which they were made, which is that of their rank.
        "sampling": "Sequential sampling",
        # More answers are asked for task by task: with this above 1, tasks that somebody has
        # answered would come before all others.
        "maximum_annotations": 1,
        "show_skip_button": True,
        # A skip is an answer: who comes next is not asked about the same picture.
        "skip_queue": "IGNORE_SKIPPED",
        "enable_empty_annotation": not asks_for_classes(config),
        "show_collab_predictions": True,
    }


def _mark(config: LoopConfig, lake: Lake) -> str:
    return f"{_MARK}{config.name} of {lake.place}]"
