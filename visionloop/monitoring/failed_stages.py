"""Stages that failed: a small file each beside the lake's tables, since nothing was committed.

Whoever fails can often not write tables: the catalog may be what is down, and a lock may be held.
So a failure is a file of its own, written without a lock, and counts until its stage succeeds.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.compute as pc

from visionloop.lake.manifest import files_under
from visionloop.lake.storage import StorageError, name_of
from visionloop.monitoring.findings import flag_row
from visionloop.monitoring.report_place import report_uri

if TYPE_CHECKING:
    from visionloop.lake import Lake

FOLDER = "failures"
STAYS = timedelta(days=90)
KIND = "failed_stage"
# Stages that leave no record of their success, and the one whose success shows theirs.
SHOWN_BY = {
    "list_files": "ingest",
    "ingest_shard": "ingest",
    "infer_shard": "infer",
    "plan_selection": "select",
    "select_shard": "select",
}
# Also done with once any model came into service: nobody asks for the same one again then.
ROLLBACK = "rollback"
# Succeeds by leaving its page.
REPORT = "report"
_TIME = "%Y%m%dT%H%M%S.%fZ"
# A record's file: when it failed, which stage, and what tells two of one time apart.
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-([a-z_]+)-[0-9a-f]{8}\.json")


@dataclass(frozen=True)
class Failure:
    """The last failure of a stage that has not succeeded since.

    Attributes:
        stage: Name of the stage.
        round_id: The round that it worked on, empty where that is not known.
        run_id: Its run, empty where that is not known.
        when: When it failed, in UTC.
        what: What was wrong, in a sentence.
        where: The file, field, table or task that it was met at.
        remedy: What to do.
        times: How often it failed since it last succeeded.
        since: When it failed first since it last succeeded.
    """

    stage: str
    round_id: str
    run_id: str
    when: datetime
    what: str
    where: str
    remedy: str
    times: int
    since: datetime


def record_failure(lake: Lake, failure: Mapping[str, Any], now: datetime) -> str:
    """Leave a record of a failure, and remove those that are older than 90 days.

    Args:
        lake: The lake.
        failure: ``stage``, ``round_id``, ``run_id``, ``what``, ``where`` and ``remedy``, fit to be
            told: see `visionloop.redaction`.
        now: When it failed.

    Returns:
        The URI of the record.
    """
    # Files of one time differ, and their names sort as they happened.
    name = f"{now.strftime(_TIME)}-{failure['stage']}-{uuid.uuid4().hex[:8]}.json"
    uri = lake.path(FOLDER, lake.loop, name)
    # A file's name may hold bytes that are no text, which no page and no table could show.
    shown = {
        key: str(told).encode(errors="backslashreplace").decode() for key, told in failure.items()
    }
    record = {**shown, "when": now.isoformat()}
    lake.storage.write(uri, json.dumps(record, ensure_ascii=False).encode())
    for old in _records(lake):
        if old.when < now - STAYS:
            lake.storage.delete(old.uri)
    return uri


def failures(lake: Lake, *, now: datetime | None = None) -> list[Failure]:
    """Return the stages whose last run failed, the newest failure first.

    A failure counts for 90 days, or until its stage succeeds; that of a rollback also until a model
    comes into service. It works on a lake without tables.

    Args:
        lake: The lake.
        now: What happened later is not known yet; null for all.
    """
    until = now or datetime.now(UTC)
    by_stage: dict[str, list[_Record]] = {}
    for one in _records(lake):
        if until - STAYS < one.when <= until:
            by_stage.setdefault(one.stage, []).append(one)
    if not by_stage:
        return []
    successes = _successes(lake, until)
    if ROLLBACK in by_stage and (came := _last_in_service(lake, until)):
        successes[ROLLBACK] = max(came, successes.get(ROLLBACK, came))
    found = []
    for name, held in by_stage.items():
        success = successes.get(SHOWN_BY.get(name, name))
        left = sorted(one for one in held if success is None or one.when > success)
        # A stage that fails every hour leaves thousands: of these only the last is read.
        while left and (record := _read(lake, left[-1])) is None:
            left.pop()
        if left and record is not None:
            found.append(Failure(**record, times=len(left), since=left[0].when))
    return sorted(found, key=lambda failure: (failure.when, failure.stage), reverse=True)


def failure_rows(found: list[Failure], now: datetime) -> list[dict[str, Any]]:
    """Return the rows of ``flags`` for stages that failed.

    Args:
        found: From `failures`.
        now: Written as ``flagged_at``.
    """
    return [
        flag_row(
            one.stage,
            "stage",
            KIND,
            float(one.times),
            0.0,
            {
                "reference": "its runs since it last succeeded",
                "unit": "failure" if one.times == 1 else "failures",
                "what": one.what,
                "where": one.where,
                "remedy": one.remedy,
                "last_failed_at": f"{one.when:%Y-%m-%d %H:%M} UTC",
                "first_failed_at": f"{one.since:%Y-%m-%d %H:%M} UTC",
                "round": one.round_id,
            },
            now,
        )
        for one in found
    ]


def _successes(lake: Lake, until: datetime) -> dict[str, datetime]:
    """Return when each stage last succeeded."""
    runs = lake.stage_runs()
    runs = runs.filter(pc.less_equal(runs["finished_at"], until))
    last = (
        runs.select(["stage", "finished_at"]).group_by("stage").aggregate([("finished_at", "max")])
    )
    found = dict(zip(last["stage"].to_pylist(), last["finished_at_max"].to_pylist(), strict=True))
    pages = [info for info in _listed(lake, report_uri(lake)) if info.updated <= until]
    if pages:
        found[REPORT] = pages[0].updated
    return found


def _last_in_service(lake: Lake, until: datetime) -> datetime | None:
    """Return when a model last came into service, None for never."""
    rows = lake.read(
        "decisions",
        columns=["decided_at"],
        where="decision in ('publish', 'rollback') and outcome == 'published'",
    )
    return max((at for at in rows["decided_at"].to_pylist() if at <= until), default=None)


def _listed(lake: Lake, uri: str) -> list[Any]:
    return list(lake.storage.list(uri)) if lake.storage.exists(uri) else []


class _Record(NamedTuple):
    when: datetime
    stage: str
    uri: str


def _records(lake: Lake) -> Iterator[_Record]:
    """Yield the records; what somebody else keeps beside them is none of them."""
    for uri in files_under(lake.storage, lake.path(FOLDER, lake.loop)):
        if found := _NAME.fullmatch(name_of(uri)):
            try:
                when = datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
            except ValueError:
                continue
            yield _Record(when, found[2], uri)


def _read(lake: Lake, one: _Record) -> dict[str, Any] | None:
    names = ("stage", "round_id", "run_id", "what", "where", "remedy")
    try:
        record = json.loads(lake.storage.read(one.uri))
        told = {name: str(record[name] or "") for name in names}
    except (StorageError, ValueError, KeyError, TypeError):
        return None  # removed meanwhile, or no record of ours
    return {**told, "when": one.when}
