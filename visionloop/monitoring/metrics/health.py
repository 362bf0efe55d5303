"""What is told to Prometheus: the report's numbers, and what stands beside the lake's versions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake.rounds import DONE, WAITING, Round
from visionloop.monitoring.acting_state import StandingActs, standing_acts
from visionloop.monitoring.failed_stages import failures
from visionloop.monitoring.notifying import outbox

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.monitoring.config import MonitoringConfig
    from visionloop.monitoring.report.data import ReportData

# Of a lake that nobody writes to labels fall due and flags grow older all the same.
TOLD_ANEW_SECONDS = 5 * 60.0


@dataclass(frozen=True)
class StageTimes:
    """When a stage last succeeded, and how long it worked.

    Attributes:
        succeeded: Of its newest run that committed.
        seconds: Of that run.
    """

    succeeded: datetime
    seconds: float


@dataclass(frozen=True)
class Health:
    """A loop's health at one time.

    Attributes:
        data: What the report shows.
        told: When that was read, on the clock `time.monotonic`: nobody sets it back.
        stages: By stage.
        ended: When the newest round that is done ended; None where none is.
        waiting: When the round that waits began to; None where none does.
        acts: What the loop decided that holds now.
        decided: When each decision was last taken, by decision and outcome.
        outbox: Notifications that wait.
        outbox_since: Since when the oldest does, seconds since 1970.
        failures: Stages that failed and have not succeeded since, with the time.
    """

    data: ReportData
    told: float
    stages: dict[str, StageTimes]
    ended: datetime | None
    waiting: datetime | None
    acts: StandingActs
    decided: dict[tuple[str, str], datetime]
    outbox: int
    outbox_since: float | None
    failures: tuple[tuple[str, datetime], ...] = ()


def read_health(
    lake: Lake,
    thresholds: MonitoringConfig,
    before: Health | None = None,
    now: datetime | None = None,
) -> Health:
    """Read a loop's health.

    Args:
        lake: The lake.
        thresholds: The section ``monitoring`` of the configuration.
        before: What was read last: the report's data are taken from it where they are the same and
            were read less than `TOLD_ANEW_SECONDS` ago.
        now: When it is read; None for the clock's time.

    Raises:
        VisionloopError: The lake cannot be read.
    """
    from visionloop.monitoring.report.load import load_report

    began = time.monotonic()
    failed = tuple((one.stage, one.when) for one in failures(lake))
    same = before and (before.data.version, before.failures) == (lake.version(), failed)
    if before and same and began - before.told < TOLD_ANEW_SECONDS:
        data, told = before.data, before.told
    else:
        now, told = now or datetime.now(UTC), began
        data = load_report(lake, thresholds=thresholds, pictures=False, now=now)
    rounds, runs = lake.rounds.all(), lake.stage_runs()
    done = [one.updated_at for one in rounds if one.state == DONE]
    waiting = [_asked_at(runs, one) for one in rounds if one.state == WAITING]
    decisions = lake.read("decisions").to_pylist()
    decided: dict[tuple[str, str], datetime] = {}
    for row in sorted(decisions, key=lambda row: row["decided_at"]):
        decided[row["decision"], row["outcome"] or ""] = row["decided_at"]
    held = list(outbox.waiting(lake))
    return Health(
        data=data,
        told=told,
        stages=_stages(runs.select(["stage", "started_at", "finished_at"])),
        ended=max(done, default=None),
        waiting=min(waiting, default=None),
        acts=standing_acts(decisions),
        decided=decided,
        outbox=len(held),
        outbox_since=held[0].since if held else None,
        failures=failed,
    )


def _asked_at(runs: pa.Table, held: Round) -> datetime:
    """Return when a round first asked for labels; each look for answers updates the round."""
    asked = pc.and_(
        pc.equal(runs["stage"], "request_labels"), pc.equal(runs["round_id"], held.round_id)
    )
    first: datetime | None = pc.min(runs["finished_at"].filter(asked)).as_py()
    return first or held.updated_at


def _stages(runs: Any) -> dict[str, StageTimes]:
    found: dict[str, StageTimes] = {}
    for row in sorted(runs.to_pylist(), key=lambda row: row["finished_at"]):
        seconds = (row["finished_at"] - row["started_at"]).total_seconds()
        found[row["stage"]] = StageTimes(row["finished_at"], seconds)
    return found
