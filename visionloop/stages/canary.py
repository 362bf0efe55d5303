"""The time in which a new model is tried: metrics and confidences of both, read while it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from visionloop.cluster.pods import is_unschedulable, lasting_failure
from visionloop.progress import progress
from visionloop.serving.inference_service.endpoint import Mode
from visionloop.serving.inference_service.metrics import Tally
from visionloop.serving.inference_service.pods import is_ready, model_of, name_of, pods_of
from visionloop.serving.inference_service.record import PROMOTING, ROLLING_BACK, Rollout
from visionloop.serving.inference_service.verdict import latest_share
from visionloop.serving.inference_service.waiting import RolloutFailed, log_tail
from visionloop.stages.canary_judgement import errors_are_worse, judge_canary, not_split

# A pod that is asked for its metrics at the end may be busy, or its node's connection away.
_LAST_SECONDS = 15.0

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from visionloop.lake import Lake
    from visionloop.serving.inference_service.endpoint import Served
    from visionloop.serving.inference_service.rollout import Rollouts


def try_candidate(
    rollouts: Rollouts,
    lake: Lake,
    candidate: Served,
    current: Served,
    record: Rollout,
    *,
    save: Callable[[], None],
    harvest: Callable[[], None],
) -> None:
    """Try a candidate for as long as the configuration says, and note what was decided.

    The time counts from when it first got traffic, also in an earlier run that was killed. Nothing
    of the lake is locked meanwhile. Too many server errors end it early.

    Args:
        rollouts: Of the endpoint; the candidate runs beside the current model.
        lake: Where the harvest puts confidences.
        candidate: The model that is tried.
        current: The model in service.
        record: Gets the counts, and the decision.
        save: Keeps the record.
        harvest: Brings what both answered into the lake.

    Raises:
        RolloutFailed: A pod of the candidate fails, or nobody can read the metrics of one at the
            end.
        Overruled: The rollout was ended by somebody else.
    """
    endpoint, canary = rollouts.endpoint, rollouts.endpoint.settings.canary
    record.begin()
    began = record.began or datetime.now(UTC)
    until = began + timedelta(minutes=canary.minutes)
    tally = Tally.from_plain(record.tally)
    tally.read(rollouts.cluster, endpoint, _pods(rollouts, candidate), first=not tally.last)
    worse, blind = "", 0.0
    with progress("publish", total=round(60 * canary.minutes), unit="seconds of canary") as bar:
        while True:
            record.tally = tally.to_plain()
            save()
            new, old = tally.of(candidate.model_id), tally.of(current.model_id)
            worse = errors_are_worse(new, old, canary)
            bar.note(
                f"candidate {new.requests} requests, {new.errors} errors; current "
                f"{old.requests}, {old.errors}"
            )
            left = (until - datetime.now(UTC)).total_seconds()
            if worse or left <= 0:
                break
            pause = min(canary.sample_seconds, left)
            time.sleep(pause)
            bar.advance(round(pause))
            pods = _pods(rollouts, candidate)
            tally.read(rollouts.cluster, endpoint, pods)
            blind += 0.0 if _is_read(tally, pods, candidate) else pause
    if not worse:
        _read_last(rollouts, tally, candidate)
        record.tally = tally.to_plain()
        new, old = tally.of(candidate.model_id), tally.of(current.model_id)
    harvest()
    judged = judge_canary(
        new,
        old,
        confidences(lake, endpoint.name, candidate.model_id, began),
        confidences(lake, endpoint.name, current.model_id, began),
        canary,
        unsplit=not_split(new, old, canary) or _other_share(rollouts),
    )
    promote = judged.promote and not worse
    seconds = (datetime.now(UTC) - began).total_seconds()
    share = min(1.0, blind / seconds) if seconds else 0.0
    figures = judged.figures | {"seconds": round(seconds, 1), "percent": canary.percent}
    figures["unread_share"] = round(share, 3)
    unread = f"; its metrics could not be read for {share:.0%} of the time" if share else ""
    record.decide(PROMOTING if promote else ROLLING_BACK, judged.reason + unread, figures)
    save()


def confidences(lake: Lake, endpoint: str, model_id: str, since: datetime) -> NDArray[np.float64]:
    """Return how sure a model was of each answer at an endpoint since a time, float64 [n].

    Args:
        lake: The lake.
        endpoint: Name of the endpoint.
        model_id: The model.
        since: Answers before are left out.
    """
    import numpy as np

    rows = lake.read(
        "confidences",
        columns=["confidence", "occurred_at", "endpoint", "model_id"],
        where=f"model_id == '{model_id}'",
    ).to_pylist()
    return np.array(
        [
            row["confidence"]
            for row in rows
            if row["endpoint"] == endpoint
            and row["confidence"] is not None
            and row["occurred_at"] is not None
            and row["occurred_at"] >= since
        ],
        np.float64,
    )


def _pods(rollouts: Rollouts, candidate: Served) -> list[dict[str, object]]:
    """Pods of the endpoint, unless one of the candidate fails."""
    found = pods_of(rollouts.cluster, rollouts.endpoint)
    for pod in found:
        reason = lasting_failure(pod) if model_of(pod) == candidate.model_id else ""
        # One pod more than there is room for is no fault of the model.
        if reason and not is_unschedulable(pod):
            tail = log_tail(rollouts.cluster, rollouts.endpoint, pod)
            raise RolloutFailed(
                f"model {candidate.model_id} fails while it is tried: {reason}"
                + (f"; the end of its log:\n{tail}\n" if tail else ""),
                where=f"{rollouts.endpoint.where}, pod {name_of(pod)}",
                remedy="Correct that and run the round, or the rollback, again",
            )
    return found


def _is_read(tally: Tally, pods: list[dict[str, object]], candidate: Served) -> bool:
    """Whether the last reading had the metrics of a ready pod of the candidate."""
    return any(
        is_ready(pod) and model_of(pod) == candidate.model_id and name_of(pod) not in tally.unread
        for pod in pods
    )


def _read_last(rollouts: Rollouts, tally: Tally, candidate: Served) -> None:
    """Read the metrics once more, and for a while again: what was answered last counts too."""
    until = time.monotonic() + _LAST_SECONDS
    while True:
        pods = _pods(rollouts, candidate)
        tally.read(rollouts.cluster, rollouts.endpoint, pods)
        if _is_read(tally, pods, candidate):
            return
        if time.monotonic() >= until:
            break
        time.sleep(1.0)
    pod, why = next(iter(tally.unread.items()), ("", "it has no ready pod"))
    raise RolloutFailed(
        f"nobody can tell the errors of model {candidate.model_id}: the metrics of its pods "
        f"cannot be read: {why}",
        where=rollouts.endpoint.where + (f", pod {pod}" if pod else ""),
        remedy="Let the API server reach the pods' metrics (pods/proxy, NetworkPolicies, a "
        "service mesh), or set serving.kserve.canary.minutes to 0",
    )


def _other_share(rollouts: Rollouts) -> str:
    """Say which share Knative gives the candidate, where that is not what was asked for."""
    if rollouts.mode is not Mode.KNATIVE:
        return ""
    status = (rollouts.live() or {}).get("status") or {}
    share, asked = latest_share(status), rollouts.endpoint.settings.canary.percent
    return "" if share == asked else f"KServe gave it {share}% of the traffic, not {asked}%"
