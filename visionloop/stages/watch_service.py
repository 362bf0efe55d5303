"""What the acts of `watch` are decided by: labels, flags, answers, and the model in service."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from visionloop.errors import VisionloopError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.monitoring.acting_seen import (
        Pairs,
        Requests,
        Service,
        StandingFlags,
        Suspects,
    )
    from visionloop.monitoring.acting_state import StandingActs
    from visionloop.serving.pointer import Pointer

_SECONDS = 5.0


def look_at_service(loop: LoopConfig, lake: Lake, version: str, *, n_comparisons: int) -> Service:
    """Look at what the rules of `visionloop.monitoring.acting_rules` ask about.

    Counters of requests are read only where a rule asks for them.

    Args:
        loop: The loop's configuration.
        lake: Its lake.
        version: The version to read at.
        n_comparisons: Comparisons of deployed answers since the last round that could be judged.
    """
    from visionloop.monitoring.acting_seen import Service
    from visionloop.serving.pointer import pointer_uri, read_pointer

    pointer = read_pointer(pointer_uri(lake, loop.endpoint))
    in_service = pointer.model_id if pointer else ""
    before = pointer.previous if pointer else ""
    counts = loop.watch.block_publication.max_error_rate or (
        loop.watch.roll_back.enabled and loop.watch.roll_back.max_error_rate
    )
    pairs = loop.watch.roll_back.enabled and loop.watch.roll_back.min_accuracy_drop
    monitored = _newest_monitor(lake)
    return Service(
        endpoint=loop.endpoint,
        in_service=in_service,
        before=before,
        before_uri=pointer.previous_uri if pointer else "",
        random_share=loop.selection.random_share,
        n_comparisons=n_comparisons,
        n_judged=_n_judged(monitored),
        flags=_flags(loop, lake, version, in_service),
        suspects=_suspects(lake),
        requests=_requests(loop, lake, pointer, version) if counts and pointer else None,
        pairs=_pairs(loop, lake, pointer, version) if pairs and pointer and before else None,
        acts=acts_with_excuses(lake, version),
    )


def look_at_labels(loop: LoopConfig, lake: Lake, version: str) -> Service:
    """Look at what blocks a publication and stands in the lake: doubted labels, and flags.

    Args:
        loop: The loop's configuration.
        lake: Its lake.
        version: The version to read at.
    """
    from visionloop.monitoring.acting_seen import Service
    from visionloop.serving.pointer import pointer_uri, read_pointer

    pointer = read_pointer(pointer_uri(lake, loop.endpoint))
    in_service = pointer.model_id if pointer else ""
    return Service(
        endpoint=loop.endpoint,
        in_service=in_service,
        flags=_flags(loop, lake, version, in_service),
        suspects=_suspects(lake),
        acts=acts_with_excuses(lake, version),
    )


def acts_that_stand(lake: Lake, version: str | None = None) -> StandingActs:
    """Return what the watch has done and not taken back.

    Args:
        lake: The lake.
        version: The version to read at; None for the newest.
    """
    from visionloop.monitoring.acting_state import standing_acts

    return standing_acts(_acts(lake, version))


def acts_with_excuses(lake: Lake, version: str) -> StandingActs:
    """Return the same, with what sets off no act because it was excused."""
    from visionloop.monitoring.acting_state import BY_HAND, RESTORED, standing_acts

    rows = _acts(lake, version)
    # Of each act the last that was taken back tells what is excused.
    last: dict[str, datetime] = {}
    for row in rows:
        if row["outcome"] in (BY_HAND, RESTORED):
            last[row["decision"]] = max(
                last.get(row["decision"], row["decided_at"]), row["decided_at"]
            )
    if last:
        later = f"decision == 'watch' and decided_at >= '{min(last.values()).isoformat()}'"
        rows += lake.read("decisions", where=later, version=version).to_pylist()
    return standing_acts(rows)


def _acts(lake: Lake, version: str | None) -> list[dict[str, Any]]:
    from pyiceberg.expressions import In

    from visionloop.monitoring.acting_state import ACTS

    where = In(term="decision", literals=list(ACTS))
    rows: list[dict[str, Any]] = lake.read("decisions", where=where, version=version).to_pylist()
    return rows


def _flags(
    loop: LoopConfig, lake: Lake, version: str, in_service: str
) -> tuple[StandingFlags, ...]:
    from pyiceberg.expressions import In

    from visionloop.monitoring.acting_rules import DRIFT
    from visionloop.monitoring.acting_seen import StandingFlags
    from visionloop.monitoring.telling import evidence_of

    wanted = DRIFT.union(loop.watch.raise_random_share.flags, loop.watch.block_publication.flags)
    where = In(term="kind", literals=sorted(wanted))
    found: Counter[tuple[str, str, str]] = Counter()
    for row in lake.read("flags", where=where, version=version).to_pylist():
        evidence = evidence_of(row)
        if row["kind"] in DRIFT and "comparisons" not in evidence:
            continue  # of a program that never withdrew drift: it says how things were once
        models = {one.get("model_id") for one in evidence.get("comparisons") or [evidence]}
        if in_service and not models & {in_service, "", None}:
            continue  # of a model that is in service no more
        model = in_service if in_service in models else ""
        many = row["subject_type"] in ("sample", "file", "label")
        found[row["kind"], "" if many else row["subject"] or "", model] += 1
    return tuple(StandingFlags(*key, n) for key, n in sorted(found.items()))


def _newest_monitor(lake: Lake) -> dict[str, Any]:
    """Return what the newest monitor told, so that the same numbers are told everywhere."""
    runs = lake.stage_runs(where="stage == 'monitor'").sort_by([("sequence", "descending")])
    told = runs["outputs"][0].as_py() if runs.num_rows else None
    outputs: dict[str, Any] = json.loads(told or "{}")
    return outputs


def _n_judged(monitored: dict[str, Any]) -> int:
    from visionloop.monitoring.drift import DRIFT, STABLE

    return sum(one["state"] in (DRIFT, STABLE) for one in monitored.get("comparisons", ()))


def _suspects(lake: Lake) -> Suspects | None:
    from visionloop.labeling.trust.labelled import AUTOMATIC, OBJECTS
    from visionloop.monitoring.acting_seen import Suspects
    from visionloop.stages.monitor_labels import labels_told

    told = labels_told(lake)
    if not told:
        return None
    n_checked = int(told["ok"]) + int(told["flagged"])
    # Automatic labels and objects are never judged here, however many there are.
    why = told.get("why_unchecked") or {}
    never = sum(int(why.get(reason, 0)) for reason in (AUTOMATIC, OBJECTS))
    n_unchecked = int(told["unchecked"]) - never
    return Suspects(n_checked, int(told["flagged"]), int(told["look"]), n_unchecked)


def _requests(loop: LoopConfig, lake: Lake, pointer: Pointer, version: str) -> Requests:
    from visionloop.monitoring.acting_seen import Requests, read_again

    held = _counted_before(lake, version, pointer.published_at)
    try:
        now = _pods(loop, lake, pointer.model_id) if loop.serving.kserve else _server(loop)
    # What answers with something else than HTTP, or breaks off, is no server that counts.
    except (VisionloopError, OSError, HTTPException, ValueError) as error:
        told = getattr(error, "what", None) or str(getattr(error, "reason", error))
        problem = told or type(error).__name__
        return replace(held or Requests(), problem=problem)
    least, since = loop.watch.act_min_requests, pointer.published_at
    return read_again(held, pointer.model_id, now, least, since=since)


def _seen_before(lake: Lake, version: str, what: str, since: str) -> dict[str, Any]:
    """Return what the newest watch that looked at something of the service saw of it.

    A watch does not look at what no rule asks for. What was looked at before is not forgotten by
    that: it would be tested at the first look's level once more.

    Args:
        lake: The lake.
        version: The version to read at.
        what: ``pairs`` or ``requests``.
        since: Where the newest watch did not look: how far back others are read, ISO 8601; empty
            for that one alone.
    """
    mine = "decision == 'watch'"
    times = lake.read("decisions", columns=["decided_at"], where=mine, version=version)
    if not times.num_rows:
        return {}
    newest, *others = sorted(set(times["decided_at"].to_pylist()), reverse=True)
    earliest = datetime.fromisoformat(since) if since else newest
    left = [newest, *(at for at in others if at >= earliest)]
    n = 1
    while left:
        # A few rows first: each holds all that a watch saw, and mostly the newest one will do.
        part, left, n = left[:n], left[n:], n * 8
        where = f"decided_at >= '{part[-1].isoformat()}' and decided_at <= '{part[0].isoformat()}'"
        rows = lake.read("decisions", where=f"{mine} and {where}", version=version).to_pylist()
        for row in sorted(rows, key=lambda row: row["decided_at"], reverse=True):
            service: dict[str, Any] = json.loads(row["inputs"])["seen"].get("service") or {}
            found: dict[str, Any] = service.get(what) or {}
            if found:
                return found
    return {}


def _compared_before(lake: Lake, version: str, since: str) -> Pairs | None:
    """Return the two models' answers as a watch before saw them."""
    from visionloop.monitoring.acting_seen import Pairs

    held = _seen_before(lake, version, "pairs", since)
    return Pairs(**{**held, "of": tuple(held.get("of", ()))}) if held else None


def _counted_before(lake: Lake, version: str, since: str) -> Requests | None:
    """Return what a watch before had counted."""
    from visionloop.monitoring.acting_seen import Requests

    held = _seen_before(lake, version, "requests", since)
    if not held:
        return None
    pairs = {name: tuple(held[name]) for name in ("total", "before")}
    last = {server: tuple(counts) for server, counts in held["last"].items()}
    return Requests(**{**held, **pairs, "last": last, "problem": ""})


def _server(loop: LoopConfig) -> Mapping[str, tuple[int, int]]:
    import urllib.request

    from visionloop.serving.inference_service.metrics import count_of

    url = loop.serving.url.rstrip("/")
    if not url:
        raise VisionloopError("neither `serving.url` nor `serving.kserve` is set")
    with urllib.request.urlopen(f"{url}/metrics", timeout=_SECONDS) as reply:
        count = count_of(reply.read().decode(errors="replace"), loop.endpoint)
    return {url: (count.requests, count.errors)}


def _pods(loop: LoopConfig, lake: Lake, in_service: str) -> Mapping[str, tuple[int, int]]:
    """Read the counters of the pods of the model in service; each serves one model."""
    from visionloop.serving.inference_service.metrics import read_pod
    from visionloop.serving.inference_service.pods import is_ready, model_of, name_of, pods_of
    from visionloop.stages.kserve_publish import open_rollouts

    rollouts = open_rollouts(loop, lake)
    found = {}
    for pod in pods_of(rollouts.cluster, rollouts.endpoint):
        if is_ready(pod) and model_of(pod) == in_service:
            count = read_pod(rollouts.cluster, rollouts.endpoint, pod)
            found[name_of(pod)] = (count.requests, count.errors)
    if not found:
        raise VisionloopError(f"no pod of model {in_service} is ready")
    return found


def _pairs(loop: LoopConfig, lake: Lake, pointer: Pointer, version: str) -> Pairs:
    """Compare two models on random picks whose first labels came after both were trained.

    Nobody chose these images for what a model says of them, and neither has learned from them.
    """
    from pyiceberg.expressions import In

    from visionloop.labeling.answers import MODEL, latest_answers
    from visionloop.lake.parts import rows_of
    from visionloop.monitoring.acting_seen import Pairs, pairs_again

    in_service, before = pointer.model_id, pointer.previous

    def read(table: str, columns: list[str], where: Any) -> list[dict[str, Any]]:
        rows = lake.read(table, columns=columns, where=where, version=version).to_pylist()
        return list(rows)

    models = In(term="model_id", literals=[in_service, before])
    trained = [row["round_id"] or "" for row in read("experiments", ["round_id"], models)]
    if not trained:
        return Pairs(0, 0, 0, 0)
    picks = read("selections", ["sample_id"], "arm == 'random'")
    drawn = {row["sample_id"] for row in picks}
    rows = lake.read("labels", version=version).to_pylist()
    # A label that is given again is of a sample that models learned from, and may be doubted by.
    known = {row["sample_id"] for row in rows if (row["round_id"] or "") <= max(trained)}
    people = latest_answers((row for row in rows if row["origin"] != MODEL), loop.task)
    labels = {
        sample: row
        for sample, row in people.items()
        if sample in drawn and sample not in known and row["label"] is not None
    }
    said: dict[str, dict[str, str]] = {in_service: {}, before: {}}
    columns = ["sample_id", "model_id", "label"]
    found = rows_of(lake, "predictions", labels, columns=columns, where=models, version=version)
    for row in found.to_pylist():
        if row["label"] is not None:
            said[row["model_id"]][row["sample_id"]] = row["label"]
    both = sorted(said[in_service].keys() & said[before].keys())
    right = {
        model: [answers[sample] == labels[sample]["label"] for sample in both]
        for model, answers in said.items()
    }
    paired = list(zip(right[in_service], right[before], strict=True))
    now = Pairs(
        len(both),
        sum(new and not old for new, old in paired),
        sum(old and not new for new, old in paired),
        len({labels[sample]["round_id"] for sample in both}),
        (in_service, before),
    )
    least = loop.watch.roll_back.min_labels
    return pairs_again(_compared_before(lake, version, pointer.published_at), now, least)
