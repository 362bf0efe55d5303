"""Reads what people answered: whole for the tasks that changed, and nothing of the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from visionloop.labeling.label_studio.deleting import delete
from visionloop.labeling.label_studio.interface import asks_for_boxes, asks_for_classes
from visionloop.labeling.label_studio.project import Project
from visionloop.labeling.label_studio.results import Unusable, Wanted, answer_of, label_of
from visionloop.labeling.label_studio.server import Server
from visionloop.labeling.label_studio.tasks import Filter, list_tasks, of_round, some
from visionloop.labeling.provider import DONE, DRAFT, SKIPPED, Annotation, Collected, Rejected

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.erasing.tombstones import Tombstones

# A change is stamped before it can be read: what is younger than this is read once more.
_OVERLAP = timedelta(minutes=2)
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
# The server picks the fields of annotations and predictions from the same list as those of tasks.
_OF_TASKS = ("id", "data", "updated_at", "draft_exists", "annotations", "predictions")
_OF_ANSWERS = ("result", "completed_by", "was_cancelled", "lead_time", "created_at")
_FIELDS = (*_OF_TASKS, *_OF_ANSWERS)


@dataclass
class _Cursor:
    """How far a collection read.

    Attributes:
        project: The project that was read.
        since: Newest change that was seen.
        drafts: Tasks that had drafts: one that is thrown away changes nothing else.
    """

    project: int
    since: datetime | None = None
    drafts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, text: str, project: int) -> _Cursor:
        """Read a cursor; that of another project, which was deleted since, says nothing."""
        told = json.loads(text) if text else {}
        if told.get("project") != project:
            return cls(project)
        since = datetime.strptime(told["since"], _TIME).replace(tzinfo=UTC)
        return cls(project, since, list(told["drafts"]))

    def text(self) -> str:
        since = self.since or datetime.fromtimestamp(0, UTC)
        told = {"project": self.project, "since": _told(since), "drafts": self.drafts}
        return json.dumps(told)


@dataclass
class _Found:
    annotations: list[Annotation] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def collect_round(
    config: LoopConfig,
    lake: Lake,
    server: Server,
    project: Project,
    round_id: str,
    requests: Mapping[str, str],
    cursor: str,
) -> Collected:
    """Return what changed at a round's tasks.

    Of two answers of one person to one task the newer counts. Tasks of samples that were erased
    are deleted with their answers, also where nobody has touched them since.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        server: The server.
        project: The project.
        round_id: The round.
        requests: Task by sample.
        cursor: As in `visionloop.labeling.provider.LabelingProvider.collect`.
    """
    from visionloop.lake.erasing.tombstones import Tombstones

    last, mine = _Cursor.of(cursor, project.id), of_round(round_id)
    stones = Tombstones.of(lake)
    gone, second, erased = _compared(server, project.id, mine, requests, stones)
    with_drafts = [
        task.id
        for task in list_tasks(
            server, project.id, [mine, ("draft_exists", "equal", "Boolean", True)], ["id"]
        )
    ]
    changed: dict[int, Any] = {}
    for filters in _changed(last, with_drafts):
        for task in list_tasks(server, project.id, [mine, *filters], _FIELDS):
            changed[task.id] = task
    erased |= {task.id for task in changed.values() if task.data.get("sample_id") in stones}
    names = _Names(server)
    found, samples = _Found(), set()
    begun = [task.id for task in changed.values() if task.draft_exists]
    drafts = dict(
        zip(begun, server.side_by_side(partial(server.drafts, one) for one in begun), strict=True)
    )
    for task in changed.values():
        sample = task.data.get("sample_id", "")
        if task.id in erased:
            # Nothing of it is stored, not even who gave it.
            found.rejected += [
                Rejected(str(one["id"]), stones.name_of(sample), "erased", "the sample was erased")
                for one in task.annotations or ()
            ]
        elif sample not in requests or task.id in second:
            detail = f"task {task.id} was not asked for"
            found.rejected += [
                _rejected(one, sample, names.of(one.get("completed_by")), "unknown_sample", detail)
                for one in task.annotations or ()
            ]
        else:
            samples.add(sample)
            _read(config, names, task, drafts.get(task.id, ()), found)
    delete(server, project.id, erased)
    newest = max((task.updated_at for task in changed.values()), default=last.since)
    since = max((one for one in (newest, last.since) if one), default=None)
    return Collected(
        samples=frozenset(samples),
        annotations=found.annotations,
        rejected=found.rejected,
        gone=gone - samples,
        cursor=_Cursor(project.id, since, with_drafts).text(),
        where=project.url,
    )


def _changed(last: _Cursor, with_drafts: Sequence[int]) -> Iterable[list[Filter]]:
    """Yield filters for the tasks that may have changed."""
    if last.since is None:
        yield []
        return
    since = _told(last.since - _OVERLAP)
    yield [("updated_at", "greater_or_equal", "Datetime", since)]
    for part in some(sorted({*with_drafts, *last.drafts})):
        yield [("id", "in_list", "List", part)]


def _compared(
    server: Server,
    project: int,
    mine: Filter,
    requests: Mapping[str, str],
    stones: Tombstones,
) -> tuple[frozenset[str], set[int], set[int]]:
    """Compare a round's tasks with its requests.

    Returns:
        The samples whose tasks are gone, tasks that are the second of a sample, and tasks of
        samples that were erased.
    """
    present = {str(task.id) for task in list_tasks(server, project, [mine], ["id"])}
    if present == set(requests.values()):
        return frozenset(), set(), set()
    first: dict[str, int] = {}
    second: set[int] = set()
    erased: set[int] = set()
    for task in list_tasks(server, project, [mine], ["id", "data"]):
        sample = task.data.get("sample_id", "")
        if sample in stones:
            erased.add(task.id)
        elif first.setdefault(sample, task.id) != task.id:
            second.add(task.id)
    return frozenset(sample for sample in requests if sample not in first), second, erased


class _Names:
    """Who the annotators are: e-mail by the server's id, read when it is first needed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._known: dict[int, str] | None = None

    def of(self, user: Any) -> str:
        """Return the e-mail of a user, or ``user-<id>`` where the server tells none."""
        if self._known is None:
            people = self._server.call(lambda client: client.users.list())
            self._known = {one.id: one.email or "" for one in people}
        return (self._known.get(user) if user else "") or f"user-{user}"


def _read(
    config: LoopConfig,
    names: _Names,
    task: Any,
    drafts: Iterable[Mapping[str, Any]],
    found: _Found,
) -> None:
    """Read the answers and drafts of one task."""
    wanted = Wanted(frozenset(config.classes), asks_for_classes(config), asks_for_boxes(config))
    sample = str(task.data["sample_id"])
    prelabel = next((label_of(_field(one, "result")) for one in task.predictions or ()), None)
    newest: dict[str, Mapping[str, Any]] = {}
    for one in sorted(task.annotations or (), key=lambda one: (one["updated_at"], one["id"])):
        newest[names.of(one.get("completed_by"))] = one
    for annotator, one in newest.items():
        number, skipped = str(one["id"]), bool(one.get("was_cancelled"))
        try:
            size = int(task.data["width"]), int(task.data["height"])
            label, boxes = (
                (None, None) if skipped else answer_of(one.get("result") or (), wanted, *size)
            )
        except Unusable as why:
            found.rejected.append(_rejected(one, sample, annotator, why.reason, why.detail))
            continue
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            detail = f"not as Label Studio writes it: {type(error).__name__}: {error}"
            found.rejected.append(_rejected(one, sample, annotator, "malformed", detail))
            continue
        state = SKIPPED if skipped else DONE
        found.annotations.append(
            _annotation(number, sample, annotator, state, one, label, boxes, prelabel)
        )
    for one in drafts:
        annotator = str(one.get("user") or "")
        found.annotations.append(
            _annotation(f"draft-{one['id']}", sample, annotator, DRAFT, one, None, None, prelabel)
        )


def _annotation(
    number: str,
    sample: str,
    annotator: str,
    state: str,
    one: Mapping[str, Any],
    label: str | None,
    boxes: Any,
    prelabel: str | None,
) -> Annotation:
    return Annotation(
        external_id=number,
        sample_id=sample,
        annotator=annotator,
        state=state,
        label=label,
        boxes=boxes,
        seconds=_seconds(one),
        prelabel=prelabel,
        created_at=_time(one["created_at"]),
        updated_at=_time(one["updated_at"]),
    )


def _rejected(
    one: Mapping[str, Any], sample: str, annotator: str, reason: str, detail: str
) -> Rejected:
    return Rejected(
        external_id=str(one["id"]),
        sample_id=sample,
        reason=reason,
        detail=detail,
        annotator=annotator,
        seconds=_seconds(one),
        created_at=_time(one["created_at"]),
        updated_at=_time(one["updated_at"]),
    )


def _seconds(one: Mapping[str, Any]) -> float | None:
    seconds = one.get("lead_time")
    return None if seconds is None else float(seconds)


def _told(at: datetime) -> str:
    return at.astimezone(UTC).strftime(_TIME)


def _time(value: Any) -> datetime:
    told = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return told.astimezone(UTC)


def _field(one: Any, name: str) -> Any:
    return one.get(name) if isinstance(one, Mapping) else getattr(one, name, None)
