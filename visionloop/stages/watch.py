"""Stage `watch`: decide by rule what the loop does next, do what is not a round, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_sentence,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from visionloop.monitoring.watching import Decision


class WatchOutputs(NamedTuple):
    """What `watch` returns.

    Attributes:
        lake_version: Lake version with the decision; the one read in a dry run.
        decision: ``start``, ``resume`` or ``wait``.
        action: The same; in a dry run always ``wait``, so that nothing follows.
        round_id: The round that it is about: the open one, or the one that comes next.
        reason: Why, in one sentence.
        acts: What was done besides, a sentence a line; in a dry run what would be done; empty where
            nothing is.
    """

    lake_version: str
    decision: str
    action: str
    round_id: str
    reason: str
    acts: str


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
    Besides starting rounds they raise the random share, block publication, or roll back: that is
    done here, and what was decided is written before a model moves. A watch that is killed and
    started again does each act once.

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
    from visionloop.monitoring.rule import WAIT
    from visionloop.monitoring.watching import decide
    from visionloop.progress import progress
    from visionloop.stages.watch_acts import finish_rollback, record
    from visionloop.stages.watch_sight import look

    loop, opened = open_stage(config, lake)
    with progress("watch", unit="rules") as bar:
        bar.note("looking at the sources")
        decision = decide(look(loop, opened, run_id=run_id, n_samples=n_samples), loop.watch)
        bar.note(decision.outcome)
    if dry_run:
        version, acts = opened.version(), would_do(decision)
    else:
        version = record(opened, decision, run_id)
        acts = [act.reason for act in decision.acts]
        held_by = decision.sight.held_by
        if done := finish_rollback(loop, opened, held_by=held_by, run_id=run_id):
            version, acts = opened.version(), [*acts, done]
    told = [rule for rule in decision.rules if rule.value is not None]
    log_metrics(metrics, {rule.name: rule.value for rule in told})
    log_metrics(metrics, {f"{rule.name}_n": rule.n for rule in told if rule.n is not None})
    write_page(page, _page(decision, acts, dry_run=dry_run))
    return WatchOutputs(
        version,
        decision.outcome,
        WAIT if dry_run else decision.outcome,
        decision.round_id,
        decision.reason,
        "\n".join(acts),
    )


def would_do(decision: Decision) -> list[str]:
    """Return what a watch would do besides, each as a sentence.

    Args:
        decision: Its decision; what one before has decided and left undone is done first.
    """
    left = decision.sight.service.acts.called_for
    undone = [f"Left undone by a watch before: {left.why}"] if left else []
    return [*undone, *(act.reason for act in decision.acts)]


_WILL = {
    "start": "A round starts now.",
    "resume": "The open round goes on now.",
    "wait": "Nothing is started.",
}


def _page(decision: Decision, acts: list[str], *, dry_run: bool) -> str:
    from visionloop.monitoring.rule import SAID, YES

    will = "A dry run: nothing is started or written." if dry_run else _WILL[decision.outcome]
    done = "\n".join(f"- {markdown_sentence(act)}" for act in acts)
    if acts:
        done = f"\n\n{'What would be done besides:' if dry_run else 'Besides:'}\n\n{done}"
    holds = "\n".join(f"- {markdown_sentence(told)}" for told in what_holds(decision))
    holds = f"\n\nIn force{' when it looked' if acts else ''}:\n\n{holds}" if holds else ""
    rows = [
        [
            rule.name.replace("_", " "),
            rule.effect,
            "" if rule.value is None else f"{rule.value:.6g}",
            "" if rule.threshold is None else f"{rule.threshold:.6g}",
            f"**{SAID[rule.verdict]}**" if rule.verdict == YES else SAID[rule.verdict],
            markdown_sentence(rule.told),
        ]
        for rule in decision.rules
    ]
    header = ["rule", "calls for", "value", "threshold", "verdict", "finding"]
    reason = markdown_sentence(decision.reason)
    return (
        f"# Watch: {decision.outcome}\n\n{reason}\n\n{will}{done}{holds}\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"Looked at {decision.sight.now:%Y-%m-%d %H:%M:%S} UTC. The thresholds are those of "
        "`watch` in `loop.yaml`. An open round comes first; else one rule that calls for a start "
        "is enough, and one that calls to wait holds it back. What cannot be told sets off "
        "nothing, and takes nothing back.\n"
    )


def what_holds(decision: Decision) -> list[str]:
    """Return the acts that stood when it was looked, each as a sentence."""
    acts = decision.sight.service.acts
    told = []
    if acts.share is not None:
        told.append(f"since {acts.share.since:%Y-%m-%d %H:%M} UTC: {acts.share.why}")
    if acts.block is not None:
        told.append(f"since {acts.block.since:%Y-%m-%d %H:%M} UTC: {acts.block.why}")
    return told
