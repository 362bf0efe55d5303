"""What `watch` looks at: the sources, the answers, and the lake; it changes none of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from visionloop.stages.sources import check_sources, label_files

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.config import LoopConfig
    from visionloop.labeling.looking import Answers
    from visionloop.lake import Lake
    from visionloop.lake.rounds import Round
    from visionloop.monitoring.deployed import Deployed
    from visionloop.monitoring.falling import Fall
    from visionloop.monitoring.watching import Drifted, Sight


def look(loop: LoopConfig, lake: Lake, *, run_id: str = "", n_samples: int = 0) -> Sight:
    """Look at everything that the rules of `visionloop.monitoring.watching` ask about.

    Args:
        loop: The loop's configuration.
        lake: Its lake, read at its newest version.
        run_id: The run that watches: a round that it holds itself is held by nobody else.
        n_samples: Budget of the next round in samples; 0 takes the configuration's.

    Raises:
        InputError: A source does not exist, or the answers cannot be understood.
        StorageError: A source or the answers cannot be read.
    """
    from visionloop.monitoring.watching import Sight
    from visionloop.stages.watch_service import look_at_service

    check_sources(loop)
    now = datetime.now(UTC)
    version = lake.version()
    every = lake.rounds.all()
    held = next((one for one in every if one.state != "done"), None)
    ended = [one for one in every if one.state == "done"]
    round_id = lake.rounds.current_or_next()
    pool = lake.read(
        "samples",
        columns=["sample_id", "ingested_at"],
        where="split == 'pool'",
        version=version,
    ).to_pylist()
    selectable = {row["sample_id"] for row in pool} - _spoken_for(lake, version)
    n_new_files = _unknown_files(loop, lake, version)
    drifted, falls, n_comparisons = _deployed(loop, lake, round_id, version)
    chosen_at = _last_chosen(lake, ended)
    came = [row["ingested_at"] for row in pool]
    answers = _answers(loop, lake, held, now, version)
    since = now - timedelta(days=loop.watch.max_labels_days)
    asked = lake.read("label_requests", columns=["requested_at"], version=version)["requested_at"]
    return Sight(
        now=now,
        round_id=round_id,
        state=held.state if held else "",
        held_by=lake.rounds.live_holder(held, run_id, lease_minutes=loop.rounds.lease_minutes)
        if held
        else "",
        chosen=held is not None and bool(_chosen_at(lake, held.round_id)),
        n_requested=answers.requested,
        n_missing=answers.missing,
        answers_read=answers.read,
        answers_at=answers.where,
        enough=answers.enough,
        n_new_files=n_new_files,
        n_new_samples=sum(chosen_at is None or (at is not None and at > chosen_at) for at in came),
        n_selectable=len(selectable),
        drifted=drifted,
        falls=falls,
        last_ended=ended[-1].updated_at if ended else None,
        n_asked=sum(time is not None and time >= since for time in asked.to_pylist()),
        n_samples=_budget(loop, n_samples, n_new_files + len(selectable)),
        version=version,
        service=look_at_service(loop, lake, version, n_comparisons=n_comparisons),
    )


def _unknown_files(loop: LoopConfig, lake: Lake, version: str) -> int:
    """Count the files that the lake has no row of, whatever became of those that it has."""
    from visionloop.lake.erasing.tombstones import Tombstones
    from visionloop.media.intake import count_new
    from visionloop.media.known import COLUMNS, Known

    batches = lake.batches("files", columns=COLUMNS, version=version)
    # What could not be read before is tried again by the next round, and starts none by itself.
    erased = Tombstones.of(lake, version=version)
    known = Known.read(batches, skipped_too=True, erased=erased)
    return count_new(loop.sources, known, label_files(loop), lake.uri)


def _spoken_for(lake: Lake, version: str) -> set[str]:
    from visionloop.labeling.answers import latest_answers
    from visionloop.labeling.asked import asked_or_selected

    def read(table: str, *columns: str) -> pa.Table:
        return lake.read(table, columns=list(columns), version=version)

    labels = lake.read("labels", version=version).to_pylist()
    return asked_or_selected(read) | latest_answers(labels).keys()


def _last_chosen(lake: Lake, ended: list[Round]) -> datetime | None:
    """Return when the last round chose: what came in later was in nobody's choice yet.

    A round that waits takes in new samples when it is resumed, after it has chosen.
    """
    if not ended:
        return None
    last = ended[-1]
    return max(_chosen_at(lake, last.round_id), default=last.opened_at)


def _chosen_at(lake: Lake, round_id: str) -> list[datetime]:
    """Return when a round chose; a selection that was there already is none."""
    rows = lake.stage_runs(where=f"stage == 'select' and round_id == '{round_id}'").to_pylist()
    return [
        row["started_at"] for row in rows if not json.loads(row["outputs"] or "{}").get("resumed")
    ]


def _answers(
    loop: LoopConfig, lake: Lake, held: Round | None, now: datetime, version: str
) -> Answers:
    """Return how far a waiting round's labels are, as cheaply as the tool can tell."""
    from visionloop.labeling.looking import Answers, look_at_answers

    if held is None or held.state != "waiting":
        return Answers()
    return look_at_answers(loop, lake, held.round_id, now, version)


def _deployed(
    loop: LoopConfig, lake: Lake, round_id: str, version: str
) -> tuple[tuple[Drifted, ...], tuple[Fall, ...], int]:
    """Return the drift and the falls of what came since the last round.

    Drift is what a monitor flagged, also of what sources brought, and what it would flag now of
    what was harvested: both are the same comparison.

    Returns:
        The drift, the falls, and how many comparisons could be judged.
    """
    from visionloop.monitoring.deployed import WINDOW_COLUMNS, compare_window, deployed_windows
    from visionloop.monitoring.falling import confidence_falls
    from visionloop.monitoring.judged import UNNAMED_ENDPOINT
    from visionloop.monitoring.watching import Drifted

    experiments = lake.read("experiments", columns=["model_id", "state"], version=version)
    states = {row["model_id"]: row["state"] for row in experiments.to_pylist()}
    windows = deployed_windows(lake.read("confidences", columns=[*WINDOW_COLUMNS], version=version))
    recent = [w for w in windows if w.round_id == round_id and _serves(w.model_id, states)]
    found = {
        (d.endpoint, d.model_id, d.kind, d.reference): d
        for d in _flagged(lake, round_id, version)
        if _serves(d.model_id, states)
    }
    falls: list[Fall] = []
    n_judged = 0
    if recent:
        references = _holdout(lake, recent, version)
        for window in recent:
            falls += confidence_falls(window, windows, references, loop.monitoring)
            for one in compare_window(window, windows, references, loop.monitoring):
                n_judged += one.drift.state in ("drift", "stable")
                of = window.endpoint or UNNAMED_ENDPOINT
                key = (of, window.model_id, one.drift.kind, one.reference)
                if one.drift.state == "drift":
                    found[key] = Drifted(*key, one.drift.score, one.drift.threshold)
    return tuple(found[key] for key in sorted(found)), tuple(falls), n_judged


def _serves(model_id: str, states: Mapping[str, str]) -> bool:
    """Return whether a model may be in service: late answers of a retired one tell nothing."""
    return states.get(model_id, "in_service") == "in_service"


def _holdout(lake: Lake, recent: list[Deployed], version: str) -> Any:
    from pyiceberg.expressions import In

    from visionloop.monitoring.deployed import holdout_references

    samples = lake.read(
        "samples", columns=["sample_id"], where="split == 'holdout'", version=version
    )
    models = In(term="model_id", literals=sorted({window.model_id for window in recent}))
    columns = ["sample_id", "model_id", "label", "confidence"]
    predictions = lake.read("predictions", columns=columns, where=models, version=version)
    return holdout_references(predictions, set(samples["sample_id"].to_pylist()))


def _flagged(lake: Lake, round_id: str, version: str) -> list[Drifted]:
    """Return the drift that stands, of what was harvested or came in since the last round."""
    from pyiceberg.expressions import In

    from visionloop.monitoring.drift_kinds import DRIFT_KINDS
    from visionloop.monitoring.telling import evidence_of
    from visionloop.monitoring.watching import Drifted

    kinds = In(term="kind", literals=[kind.name for kind in DRIFT_KINDS])
    rows = lake.read("flags", columns=["evidence"], where=kinds, version=version).to_pylist()
    evidence = [evidence_of(row) for row in rows]
    found = [one for held in evidence for one in held.get("comparisons", ())]
    # Drift stands while nothing newer came; what an earlier round brought was heard by it.
    return [
        Drifted(
            one["subject"],
            one["model_id"],
            one["kind"],
            one["against"],
            one["score"],
            one["threshold"],
        )
        for one in found
        if one["round_id"] == round_id
    ]


def _budget(loop: LoopConfig, n_samples: int, n_available: int) -> int:
    """Return how many labels the next round would ask for, holdout labels aside."""
    share = loop.selection.proportion_samples
    if n_samples or share is None:
        return min(n_samples or loop.selection.n_samples, n_available)
    return math.ceil(share * n_available)
