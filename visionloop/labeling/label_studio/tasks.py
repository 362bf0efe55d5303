"""Tasks of a project: what is put into one, and how they are found again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionloop.labeling.label_studio.interface import asks_for_boxes, asks_for_classes
from visionloop.labeling.label_studio.results import box_result, choice_result
from visionloop.labeling.label_studio.server import Server
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.labeling.provider import Ask

PAGE = 500
# An import of so many tasks or characters is answered in a few seconds.
_CHUNK, _CHUNK_SIZE = 250, 16_000_000
# Ids in one query, which travels in an address: proxies take 8 kB of one.
SOME = 40
# Of a task in which people do not see what the model says.
NO_WORDS = " "
_NEUTRAL = "One of the images that this round needs a label for."
_LONGEST = 500

Filter = tuple[str, str, str, Any]


def task_of(config: LoopConfig, round_id: str, ask: Ask, link: str) -> dict[str, Any]:
    """Return a task as it is imported.

    What it is for does not stand in it. Only requests for training that one person answers carry a
    suggestion: what judges labels, people or the model must not be biased.

    Args:
        config: The loop's configuration.
        round_id: The round that asks.
        ask: What is asked.
        link: What a browser loads the image from.
    """
    suggested = _is_shown(ask)
    data = {
        "image": link,
        "reason": ask.reason or _NEUTRAL,
        "model": _words(config, ask) if suggested else NO_WORDS,
        "details": _details(ask.metadata),
        "sample_id": ask.sample_id,
        "round": round_id,
        "rank": ask.rank,
        "width": ask.width,
        "height": ask.height,
    }
    result = _suggestion(config, ask) if suggested else []
    if not result:
        return {"data": data}
    prediction: dict[str, Any] = {"model_version": ask.model_id, "result": result}
    if ask.confidence is not None:
        prediction["score"] = ask.confidence
    return {"data": data, "predictions": [prediction]}


def suggests(config: LoopConfig, ask: Ask) -> bool:
    """Return whether a task begins with a model's suggestion.

    Args:
        config: The loop's configuration.
        ask: What is asked.
    """
    return _is_shown(ask) and bool(_suggestion(config, ask))


def _is_shown(ask: Ask) -> bool:
    return ask.purpose == "training" and ask.answers == 1


def chunks(tasks: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield tasks in parts that are imported at once; images may stand in the tasks themselves.

    Args:
        tasks: All of them, in order.
    """
    part: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        weight = len(task["data"]["image"])
        if part and (len(part) == _CHUNK or size + weight > _CHUNK_SIZE):
            yield part
            part, size = [], 0
        part.append(task)
        size += weight
    if part:
        yield part


def of_round(round_id: str) -> Filter:
    """Return the filter for the tasks of a round."""
    return ("data.round", "equal", "String", round_id)


def list_tasks(
    server: Server, project: int, filters: Sequence[Filter], fields: Sequence[str]
) -> Iterator[Any]:
    """Yield a project's tasks, in the order in which they were made.

    A page begins behind the last task of the one before, so that nothing is missed where tasks come
    and go meanwhile.

    Args:
        server: The server.
        project: The project's id.
        filters: What must be true of each task.
        fields: What is wanted of each; annotations and predictions only where they are named, with
            the names of what is wanted of those.
    """
    last = 0
    while True:
        behind: Filter = ("id", "greater", "Number", last)
        page = _page(server, project, [*filters, behind], fields, PAGE)
        yield from page.items or ()
        if not page.items or len(page.items) >= (page.response.total or 0):
            return
        last = max(task.id for task in page.items)


def count_tasks(server: Server, project: int, filters: Sequence[Filter]) -> int:
    """Return how many of a project's tasks there are.

    Args:
        server: The server.
        project: The project's id.
        filters: As in `list_tasks`.
    """
    return int(_page(server, project, filters, ["id"], 1).response.total or 0)


def some(ids: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield ids in parts that fit into one query."""
    all_of_them = list(ids)
    for start in range(0, len(all_of_them), SOME):
        yield all_of_them[start : start + SOME]


def _page(
    server: Server, project: int, filters: Sequence[Filter], fields: Sequence[str], size: int
) -> Any:
    names = ("filter", "operator", "type", "value")
    items = [dict(zip(names, (f"filter:tasks:{one[0]}", *one[1:]), strict=True)) for one in filters]
    query = json.dumps({"filters": {"conjunction": "and", "items": items}})
    whole = "all" if {"annotations", "draft_exists"} & set(fields) else "task_only"
    return server.call(
        lambda client: client.tasks.list(
            project=project,
            query=query,
            page=1,
            page_size=size,
            fields=whole,
            include=",".join(fields),
            resolve_uri=False,
        )
    )


def _words(config: LoopConfig, ask: Ask) -> str:
    """Return what the model takes the image for, in words."""
    told = []
    if asks_for_classes(config) and ask.label:
        sure = "" if ask.confidence is None else f" ({ask.confidence:.0%} sure)"
        told.append(f"{ask.label}{sure}")
    if asks_for_boxes(config) and ask.boxes is not None:
        told.append(counted(len(ask.boxes), "object"))
    return f"The model sees: {', '.join(told)}" if told else NO_WORDS


def _suggestion(config: LoopConfig, ask: Ask) -> list[dict[str, Any]]:
    """Return what the annotation begins with; the server refuses classes that it does not know."""
    result = []
    if asks_for_classes(config) and ask.label in config.classes:
        result.append(choice_result(str(ask.label)))
    if asks_for_boxes(config):
        for box in ask.boxes or ():
            shown = box_result(box, ask.width, ask.height) if box.label in config.classes else None
            if shown:
                result.append(shown)
    return result


def _details(metadata: Mapping[str, Any]) -> str:
    text = " · ".join(f"{name}: {value}" for name, value in metadata.items() if value is not None)
    return (text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…") or " "
