"""Looks whether a round that waits for people has enough answers; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.labeling.answers import MODEL, latest_answers
from visionloop.labeling.collecting import settle
from visionloop.labeling.opening import answers_alone, open_provider
from visionloop.labeling.ready import Standing, readiness
from visionloop.labeling.requests import HOLDOUT, RELABEL

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


@dataclass(frozen=True)
class Answers:
    """How far people are with a round's requests.

    Attributes:
        requested: Requests that were not taken back.
        missing: Those of them that are open.
        where: Where the answers are.
        enough: Why the round goes on without those that are missing; empty where it does not.
        read: Whether the answers were read; else the tool has counted them, and with them those
            that cannot be used.
    """

    requested: int = 0
    missing: int = 0
    where: str = ""
    enough: str = ""
    read: bool = True


def look_at_answers(
    loop: LoopConfig, lake: Lake, round_id: str, now: datetime, version: str = ""
) -> Answers:
    """Look how far a round is.

    The tool is asked for counts alone, and for the answers themselves only where the counts would
    be enough: an answer that cannot be used counts there as one.

    Args:
        loop: The loop's configuration.
        lake: Its lake.
        round_id: The round.
        now: UTC.
        version: Lake version to read at; empty for the newest.

    Raises:
        InputError: The provider refuses, or a list of answers cannot be understood.
        VisionloopError: The provider does not answer.
    """
    mine = f"round_id == '{round_id}'"
    rows = lake.read("label_requests", where=mine, version=version or None).to_pylist()
    rows = [row for row in rows if not row["recalled"]]
    labels = lake.read("labels", version=version or None).to_pylist()
    known = latest_answers((row for row in labels if row["origin"] != MODEL), loop.task)
    left = [row for row in rows if _is_open(row, known.get(row["sample_id"]))]
    provider = open_provider(loop, lake)
    progress = provider.poll(round_id, {r["sample_id"]: r["external_id"] or "" for r in left})
    # A tool may count all requests of the round: also those that it was not asked about here.
    at_tool = max(progress.requested - progress.answered, 0)
    missing = min(len(left), at_tool)
    annotations = lake.read(
        "annotations", columns=["sample_id"], where=mine, version=version or None
    )
    heard = set(annotations["sample_id"].to_pylist())
    elsewhere = {row["sample_id"] for row in rows} - heard - {row["sample_id"] for row in left}
    least = max(at_tool - len(elsewhere), 0) if progress.requested > len(left) else missing
    holdout = sum(row["purpose"] == HOLDOUT for row in rows)
    training = len(rows) - holdout
    # At best nothing of the holdout is missing.
    best = Standing(
        training=training,
        training_answered=max(training - least, 0),
        holdout=holdout,
        holdout_answered=holdout - max(least - training, 0),
        asked_at=min((r["requested_at"] for r in rows if r["requested_at"]), default=None),
    )
    ready = readiness(loop.labeling.ready, best, now)
    if not ready.ready or (not missing and answers_alone(loop)):
        return Answers(len(rows), missing, progress.where, read=answers_alone(loop))
    settled = settle(loop, lake, provider, round_id, now, version=version)
    # As the rule counts: what only becomes a label because the round goes on is missing until then.
    still = len(settled.requests) - settled.ready.answered
    enough = settled.ready.why if settled.ready.ready and still else ""
    return Answers(len(settled.requests), still, settled.where or progress.where, enough)


def _is_open(request: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    # Of a sample that is asked about again an older answer is the one in doubt.
    doubted = request["purpose"] == RELABEL
    return known is None or (doubted and known["created_at"] <= request["requested_at"])
