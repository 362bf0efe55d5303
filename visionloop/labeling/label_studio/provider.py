"""The provider `label_studio`: people label the tasks of a project."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from visionloop.errors import VisionloopError
from visionloop.labeling.label_studio.collecting import collect_round
from visionloop.labeling.label_studio.deleting import delete_untouched
from visionloop.labeling.label_studio.project import (
    Project,
    open_project,
    prepare_project,
    show_suggestions,
)
from visionloop.labeling.label_studio.server import ONCE, Server
from visionloop.labeling.label_studio.tasks import (
    NO_WORDS,
    chunks,
    count_tasks,
    list_tasks,
    of_round,
    suggests,
    task_of,
)
from visionloop.labeling.provider import Ask, Collected, Progress

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


class LabelStudioProvider:
    """Asks people through Label Studio: one project a loop, one task a sample and round.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        server: Where the project is; by default the one that the configuration names.
    """

    def __init__(self, config: LoopConfig, lake: Lake, server: Server | None = None) -> None:
        self._config, self._lake = config, lake
        self._server = server or Server.of(config)

    def request(self, round_id: str, asks: Sequence[Ask]) -> dict[str, str]:
        """Make the tasks of a round that are not there yet, the project too.

        Tasks that are there get new links to their images where the old ones are about to become
        invalid or lead elsewhere, and the number of people that have to answer.
        Where that is more than one now, what the model says is taken out of them.
        """
        wanted = {ask.sample_id: ask for ask in sorted(asks, key=lambda ask: ask.rank)}
        if not wanted:
            return {}
        project = prepare_project(self._config, self._lake, self._server)
        held = self._held(project, round_id)
        missing = [ask for sample, ask in wanted.items() if sample not in held]
        links = self._links(missing)
        for part in chunks(
            [task_of(self._config, round_id, ask, links[ask.sample_id]) for ask in missing]
        ):
            self._import(project, round_id, part, held)
        new = {ask.sample_id for ask in missing}
        self._server.side_by_side(
            partial(self._blind, held[sample])
            for sample, ask in wanted.items()
            if ask.answers > 1 and sample not in new
        )
        models = [ask.model_id for ask in wanted.values() if suggests(self._config, ask)]
        if models:
            show_suggestions(self._server, project, max(sorted(set(models)), key=models.count))
        self._renew_links([(held[one], ask) for one, ask in wanted.items() if one not in new])
        self._server.side_by_side(
            partial(self._set_answers, held[sample], ask.answers) for sample, ask in wanted.items()
        )
        return {sample: str(held[sample]["id"]) for sample in wanted}

    def poll(self, round_id: str, requests: Mapping[str, str]) -> Progress:
        """Count the round's tasks that have all their answers: two short requests."""
        project = open_project(self._config, self._lake, self._server)
        mine = of_round(round_id)
        done = ("is_labeled", "equal", "Boolean", True)
        return Progress(
            answered=count_tasks(self._server, project.id, [mine, done]),
            requested=count_tasks(self._server, project.id, [mine]),
            where=project.url,
        )

    def collect(self, round_id: str, requests: Mapping[str, str], cursor: str) -> Collected:
        """Read what changed at the tasks since the cursor; see `LabelingProvider.collect`."""
        project = open_project(self._config, self._lake, self._server)
        return collect_round(
            self._config, self._lake, self._server, project, round_id, requests, cursor
        )

    def recall(self, round_id: str, requests: Mapping[str, str]) -> list[str]:
        """Delete the tasks that nobody has answered, skipped or begun a draft of."""
        if not requests:
            return []
        project = open_project(self._config, self._lake, self._server)
        return delete_untouched(self._server, project, round_id, requests)

    def _held(self, project: Project, round_id: str) -> dict[str, dict[str, Any]]:
        """Return the round's tasks by sample, the first one where a sample has two.

        The second of two, which a server leaves that took an import and could not say so, goes if
        nobody has answered it.
        """
        fields = ["id", "data", "overlap", "is_labeled"]
        held: dict[str, dict[str, Any]] = {}
        twice: dict[str, str] = {}
        for task in list_tasks(self._server, project.id, [of_round(round_id)], fields):
            sample = task.data.get("sample_id", "")
            if sample in held:
                twice[str(task.id)] = str(task.id)
            else:
                held[sample] = _task(task.id, task.data, task.overlap, task.is_labeled)
        if twice:
            delete_untouched(self._server, project, round_id, twice)
        return held

    def _links(self, asks: Sequence[Ask]) -> dict[str, str]:
        from visionloop.labeling.media.links import image_links

        media = {ask.sample_id: ask.uri for ask in asks}
        return image_links(self._config, self._lake, media) if media else {}

    def _import(
        self,
        project: Project,
        round_id: str,
        part: Sequence[dict[str, Any]],
        held: dict[str, dict[str, Any]],
    ) -> None:
        """Import tasks, each once, also where the server goes away and does not say how far it was.

        An import is one transaction of the server: all of its tasks are there, or none.
        """
        samples = [str(task["data"]["sample_id"]) for task in part]

        def send(client: Any) -> dict[str, Any]:
            made = client.projects.import_tasks(
                id=project.id, request=part, return_task_ids=True, request_options=ONCE
            )
            if made.task_ids is None:
                raise VisionloopError(
                    "Label Studio takes imports and does not say which tasks it makes of them: "
                    "only its open edition is supported",
                    where=self._server.url,
                )
            pairs = zip(made.task_ids, part, strict=True)
            return {
                task["data"]["sample_id"]: _task(number, task["data"]) for number, task in pairs
            }

        def sent() -> dict[str, Any] | None:
            there = self._held(project, round_id)
            found = {sample: there[sample] for sample in samples if sample in there}
            return found if len(found) == len(samples) else None

        held.update(self._server.call_once(send, sent))

    def _blind(self, task: dict[str, Any]) -> None:
        """Take away what the model says of a task that more people are asked about.

        Its suggestions go first: a task whose words are gone has none.
        """
        if task["data"]["model"] == NO_WORDS:
            return
        number = task["id"]
        for one in self._server.call(lambda client: client.predictions.list(task=number)):
            self._server.call(partial(_delete_prediction, one.id))
        task["data"] = {**task["data"], "model": NO_WORDS}
        self._server.call(partial(_update_data, str(number), task["data"]))

    def _set_answers(self, task: dict[str, Any], answers: int) -> None:
        """Have a task shown to so many people: an import cannot say it.

        The server does not see by itself that a task is open again.
        """
        number, overlap = str(task["id"]), task["overlap"]
        if overlap == answers:
            return
        changed: dict[str, Any] = {"overlap": answers}
        if task["is_labeled"] or answers < overlap:
            people = self._server.call(lambda client: client.tasks.get(id=number)).annotators
            changed["is_labeled"] = len(set(people or ())) >= answers
        self._server.call(lambda client: client.tasks.update(id=number, **changed))

    def _renew_links(self, tasks: Sequence[tuple[dict[str, Any], Ask]]) -> None:
        """Give open tasks new links where half of the time is over for which one is valid."""
        from visionloop.labeling.media.links import valid_until

        still_open = [(task, ask) for task, ask in tasks if not task["is_labeled"]]
        if not still_open:
            return
        first, sample = still_open[0][0]["data"]["image"], still_open[0][1]
        elsewhere = _place(first) != _place(self._links([sample])[sample.sample_id])
        soon = time.time() + self._config.labeling.label_studio.url_hours * 1800
        stale = [
            (task, ask)
            for task, ask in still_open
            if elsewhere or valid_until(task["data"]["image"]) < soon
        ]
        links = self._links([ask for _, ask in stale])
        self._server.side_by_side(
            partial(
                self._server.call,
                partial(
                    _update_data,
                    str(task["id"]),
                    {**task["data"], "image": links[ask.sample_id]},
                ),
            )
            for task, ask in stale
        )


def _update_data(number: str, data: dict[str, Any], client: Any) -> None:
    client.tasks.update(id=number, data=data)


def _delete_prediction(number: int, client: Any) -> None:
    client.predictions.delete(id=number)


def _task(
    number: int, data: dict[str, Any], overlap: int = 1, is_labeled: bool = False
) -> dict[str, Any]:
    return {"id": number, "data": data, "overlap": overlap, "is_labeled": is_labeled}


def _place(link: str) -> str:
    return link[:64] if link.startswith("data:") else link.partition("?")[0]
