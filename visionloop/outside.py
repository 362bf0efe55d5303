"""What a stage tells the world outside at its end: a trace, and notifications.

Neither can fail the stage: what cannot be told is a line of its log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from visionloop import environment, telemetry
from visionloop.failures import explain
from visionloop.progress import log, log_about
from visionloop.redaction import redacted
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

# Run beside each other in pods of their own, and commit nothing that could be told.
_SHARDS = ("ingest_shard", "infer_shard", "select_shard")
# Comes last: with no round of its own it is about the newest, not the next.
_LAST = "report"


def begin(stage: str, arguments: Mapping[str, Any]) -> None:
    """Let the log lines of this process say what they are about, where they are JSON.

    Args:
        stage: Name of the stage.
        arguments: What it is called with.
    """
    log_about(
        stage=stage,
        round_id=str(arguments.get("round_id") or ""),
        run_id=str(arguments.get("run_id") or ""),
    )


def tell_end(
    stage: str,
    arguments: Mapping[str, Any],
    *,
    started: float,
    outputs: Mapping[str, Any],
    error: BaseException | None = None,
) -> None:
    """Tell that a stage ended: a span to OpenTelemetry, what is new to `notify.to`.

    Args:
        stage: Name of the stage.
        arguments: What it was called with.
        started: When, in seconds since 1970.
        outputs: Its plain outputs.
        error: Why it failed; None where it did not.
    """
    try:
        # A person who stopped it knows.
        stopped = error is not None and not isinstance(error, Exception)
        if isinstance(arguments.get("config"), str) and not stopped:
            _tell(stage, arguments, started, outputs, error)
    except Exception as problem:
        # A configuration that cannot be read is what failed the stage, and is told as that.
        why = str(explain(problem))
        if error is None or why != str(explain(error)):
            log(f"{stage}: nobody outside was told: {why}", level="warning")
    finally:
        log_about(stage="", round_id="", run_id="")


def _tell(
    stage: str,
    arguments: Mapping[str, Any],
    started: float,
    outputs: Mapping[str, Any],
    error: BaseException | None,
) -> None:
    from visionloop.config import load_config
    from visionloop.lake import Lake

    traced, config = environment.sends_traces(), load_config(arguments["config"])
    notified = bool(config.notify.to) and (error is not None or stage not in _SHARDS)
    if not traced and not notified:
        return
    ended = time.time()
    root = str(arguments.get("lake") or config.lake)
    lake = Lake.open(root, catalog=config.catalog, loop=config.name)
    round_id = str(outputs.get("round_id") or arguments.get("round_id") or "")
    run_id, upcoming = str(arguments.get("run_id") or ""), ""
    try:
        round_id, run_id, upcoming = _round(lake, stage, round_id, run_id)
    except Exception as problem:
        # The lake may be what failed the stage.
        log(f"{stage}: the round cannot be told: {explain(problem)}", level="warning")
    log_about(round_id=round_id, run_id=run_id)
    if traced:
        _trace(lake, stage, round_id, run_id, started, ended, outputs, error)
    if notified:
        _notify(lake, config, stage, round_id, run_id, upcoming, error)


def _round(lake: Lake, stage: str, round_id: str, run_id: str) -> tuple[str, str, str]:
    """Return a stage's round and run, and the round that was not opened yet."""
    rounds = lake.rounds.all() if lake.exists() else []
    if not round_id:
        newest = rounds[-1].round_id if rounds else ""
        round_id = newest if stage == _LAST and newest else lake.rounds.current_or_next()
    held = next((one for one in rounds if one.round_id == round_id), None)
    upcoming = "" if held else lake.rounds.upcoming()
    return round_id, run_id or (held.run_id if held else ""), upcoming


def _trace(
    lake: Lake,
    stage: str,
    round_id: str,
    run_id: str,
    started: float,
    ended: float,
    outputs: Mapping[str, Any],
    error: BaseException | None,
) -> None:
    known = explain(error) if error is not None else None
    attributes = {
        name: redacted(value) if isinstance(value, str) else value
        for name, value in outputs.items()
        if name != "round_id"
    }
    place = redacted(lake.uri)
    span = telemetry.StageSpan(
        name=stage,
        place=place,
        loop=lake.loop,
        round_id=round_id,
        run_id=run_id,
        started=started,
        ended=ended,
        attributes=attributes,
        error=str(known) if known else "",
        error_type=type(error).__name__ if error is not None else "",
    )
    if not telemetry.send(span) or stage != _LAST or not lake.exists():
        return
    held = lake.rounds.get(round_id)
    # A harvest writes a report too, long after the round: that one is no end of it.
    if held is not None and held.state == "done" and _is_newest(lake, round_id):
        whole = telemetry.StageSpan(
            name=round_name(round_id),
            place=place,
            loop=lake.loop,
            round_id=round_id,
            run_id=run_id,
            started=held.opened_at.timestamp(),
            # Not now: who tells it again, such as a part that failed weeks later, tells the same.
            ended=held.updated_at.timestamp(),
            attributes={"outcome": held.outcome, "counts": json.dumps(held.counts)},
            whole=True,
        )
        telemetry.send(whole)


def _is_newest(lake: Lake, round_id: str) -> bool:
    """Return whether nothing was committed since but for a round."""
    runs = lake.history()["round_id"]
    return bool(runs.length()) and runs[-1].as_py() == round_id


def _notify(
    lake: Lake,
    config: LoopConfig,
    stage: str,
    round_id: str,
    run_id: str,
    upcoming: str,
    error: BaseException | None,
) -> None:
    from visionloop.monitoring.notifying.noticing import tell_failure, tell_new

    if error is None:
        sent = tell_new(lake, config.notify)
    else:
        known = explain(error, during=f"stage {stage}")
        told = {"what": known.what, "where": known.where, "remedy": known.remedy}
        sent = tell_failure(
            lake, config.notify, stage, told, round_id=round_id, run_id=run_id, upcoming=upcoming
        )
    if sent.taken or sent.left or sent.refused or sent.expired:
        said = f"{sent.taken} taken, {sent.left} waiting, {sent.refused} refused"
        log(
            f"{stage}: notifications: {said}",
            taken=sent.taken,
            waiting=sent.left,
            refused=sent.refused,
            expired=sent.expired,
        )
