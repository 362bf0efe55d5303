"""Stage `watch`: decide by rule whether a round starts, goes on, or waits, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.monitoring.watching import Decision


class WatchOutputs(NamedTuple):
    """What `watch` returns.

    Attributes:
        lake_version: Lake version with the decision; the one read in a dry run.
        decision: ``start``, ``resume`` or ``wait``.
        action: The same; in a dry run always ``wait``, so that nothing follows.
        round_id: The round that it is about: the open one, or the one that comes next.
        reason: Why, in one sentence.
    """

    lake_version: str
    decision: str
    action: str
    round_id: str
    reason: str


@stage
def watch(
    *,
    config: str,
    lake: str = "",
    run_id: str = "",
    n_samples: int = 0,
    dry_run: bool = False,
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> WatchOutputs:
    """Look at the sources, the answers and the lake, and decide what the loop does next.

    The decision is written with everything that was seen, whatever it is. The rules are those of
    `visionloop.monitoring.watching`, their thresholds the section ``watch`` of the configuration.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        run_id: The run that watches; run again, it replaces its own decision.
        n_samples: Budget of the next round in samples; 0 takes the configuration's.
        dry_run: Decide and explain, write nothing.
        metrics: Receives what each rule measured.
        page: Receives a Markdown page that explains the decision.

    Raises:
        InputError: A source does not exist, or the answers cannot be understood.
        StorageError: A source or the answers cannot be read.
    """
    from visionloop.monitoring.watching import WAIT, decide
    from visionloop.progress import progress
    from visionloop.stages.watch_sight import look

    loop, opened = open_stage(config, lake)
    with progress("watch", unit="rules") as bar:
        bar.note("looking at the sources")
        decision = decide(look(loop, opened, run_id=run_id, n_samples=n_samples), loop.watch)
        bar.note(decision.outcome)
    version = opened.version() if dry_run else _record(opened, decision, run_id)
    log_metrics(metrics, {r.name: r.value for r in decision.rules if r.value is not None})
    write_page(page, _page(decision, dry_run=dry_run))
    action = WAIT if dry_run else decision.outcome
    return WatchOutputs(version, decision.outcome, action, decision.round_id, decision.reason)


def _record(lake: Lake, decision: Decision, run_id: str) -> str:
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    # By its own name also when it was started by hand: the round's holder is another run, and this
    # is no sign that it is alive.
    signed = run_id or "watch"
    row = {
        "decision": "watch",
        "subject": decision.round_id,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "inputs": decision.inputs(),
        "decided_at": decision.sight.now,
        "run_id": signed,
        "round_id": decision.round_id,
    }
    rows = pa.Table.from_pylist([row], schema=arrow_schema("decisions"))
    with lake.run(stage="watch", round_id=decision.round_id, run_id=signed) as run:
        if run_id:
            run.replace("decisions", rows, f"decision == 'watch' and run_id == '{run_id}'")
        else:
            run.append("decisions", rows)
        return run.commit(outputs={"decision": decision.outcome, "reason": decision.reason})


_WILL = {
    "start": "A round starts now.",
    "resume": "The open round goes on now.",
    "wait": "Nothing is started.",
}
_SAID = {"yes": "**met**", "no": "not met", "off": "off", "unknown": "cannot be told"}


def _page(decision: Decision, *, dry_run: bool) -> str:
    will = "A dry run: nothing is started or written." if dry_run else _WILL[decision.outcome]
    rows = [
        [
            rule.name.replace("_", " "),
            rule.effect,
            "" if rule.value is None else f"{rule.value:.6g}",
            "" if rule.threshold is None else f"{rule.threshold:.6g}",
            _SAID[rule.verdict],
            rule.told,
        ]
        for rule in decision.rules
    ]
    header = ["rule", "calls for", "value", "threshold", "verdict", "finding"]
    return (
        f"# Watch: {decision.outcome}\n\n{decision.reason}\n\n{will}\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"Looked at {decision.sight.now:%Y-%m-%d %H:%M:%S} UTC. The thresholds are those of "
        "`watch` in `loop.yaml`. An open round comes first; else one rule that calls for a start "
        "is enough, and one that calls to wait holds it back.\n"
    )
