"""What `collect_labels` tells: counts that add up, and a page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.labeling.collecting import Settled
from visionloop.labeling.deciding import CONFLICT, LABELLED, OPEN, PASSED
from visionloop.labeling.provider import DONE, DRAFT, SKIPPED
from visionloop.labeling.requests import AUDIT, HOLDOUT, RELABEL, TRAINING, named
from visionloop.labeling.unusable import SHOWN, more_than_shown, unusable_answers
from visionloop.stages.artifacts import markdown_table
from visionloop.words import counted, round_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from visionloop.config import LoopConfig


def counts_of(settled: Settled) -> dict[str, int]:
    """Return what became of a round's requests, and of the answers to them.

    ``in`` is the sum of ``ok``, ``skipped``, ``missing``, ``conflicts`` and ``recalled``;
    ``annotations`` that of ``used``, ``passed`` (people skipped), ``drafts`` and ``rejected``.

    Args:
        settled: How the round stands.
    """
    states, rejected = settled.states, settled.rejected
    used, passed, drafts = states[DONE], states[SKIPPED], states[DRAFT]
    counts = {
        "in": len(settled.requests) + len(settled.recalled),
        "ok": len(settled.samples(LABELLED)),
        "skipped": len(settled.samples(PASSED)),
        "missing": len(settled.samples(OPEN)),
        "conflicts": len(settled.samples(CONFLICT)),
        "recalled": len(settled.recalled),
        "gone": len(settled.gone),
        "asked_again": len(settled.ask_again),
        "unknown_rows": len(settled.unknown),
        "annotations": used + passed + drafts + rejected.total(),
        "used": used,
        "passed": passed,
        "drafts": drafts,
        "rejected": rejected.total(),
    }
    return counts | {f"rejected_{reason}": n for reason, n in sorted(rejected.items())}


def labels_page(settled: Settled, late: Sequence[Settled], loop: LoopConfig, *, ended: bool) -> str:
    """Return the page of a collection, as Markdown.

    Args:
        settled: How the round stands.
        late: How earlier rounds stand that had open requests.
        loop: The loop's configuration.
        ended: Whether the round ends here, for nothing can be trained on.
    """
    parts = ["# Labels", _state(settled, loop), f"Provider: {loop.labeling.provider}."]
    parts += [_requests(settled), _answers(settled), _unusable(settled)]
    if ended:
        parts.append(
            "Too few labels are left to train on: **the round ends here**, and the next one "
            "selects other samples."
        )
    if skipped := settled.samples(PASSED):
        oracle = loop.labeling.provider == "oracle"
        why = "the oracle does not know them" if oracle else "nobody can label them"
        parts.append(
            f"**{len(skipped)} skipped**, since {why}: {_some(skipped)}. They are not trained on, "
            "not evaluated and not asked about again."
        )
    parts += _conflicts(settled)
    if settled.recalled:
        recalled = {row["sample_id"] for row in settled.recalled}
        parts.append(
            f"**{len(recalled)} taken back** without an answer: {_some(recalled)}. They can be "
            "selected again."
        )
    if settled.unknown:
        shown = named([f"`{name}`" for name in settled.unknown])
        parts.append(
            f"Rows of `{settled.where}` that name no sample of the lake, and were not used: "
            f"**{len(settled.unknown)}** ({shown})."
        )
    parts += [
        f"{round_name(one.round_id).capitalize()}, which went on without all answers: "
        f"{len(one.samples(LABELLED))} of {len(one.requests)} requests are labelled now."
        for one in late
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _state(settled: Settled, loop: LoopConfig) -> str:
    n_open = len(settled.samples(OPEN))
    if settled.ready.ready:
        if not n_open and not settled.recalled:
            return "Every request is answered."
        return f"The round goes on: {settled.ready.why}."
    how = ""
    if loop.labeling.provider == "csv":
        how = "; a sample that nobody can label is answered with `-` or `skip`"
    return (
        f"**Waiting** for {counted(n_open, 'label')} in `{settled.where}`: {settled.ready.why}. "
        f"Start the round again when they are there{how}."
    )


def _requests(settled: Settled) -> str:
    header = ["purpose", "requested", "labelled", "skipped", "missing", "conflicts", "recalled"]
    rows = []
    for purpose in (TRAINING, RELABEL, AUDIT, HOLDOUT):
        back = sum(row["purpose"] == purpose for row in settled.recalled)
        asked = sum(row["purpose"] == purpose for row in settled.requests) + back
        numbers = [len(settled.samples(o, purpose)) for o in (LABELLED, PASSED, OPEN, CONFLICT)]
        if asked or purpose in (TRAINING, HOLDOUT):
            rows.append([purpose, asked, *numbers, back])
    return markdown_table(header, rows)


def _answers(settled: Settled) -> str:
    """Return the table of who answered, where the tool tells people apart."""
    people = sorted({row["annotator"] or "" for row in settled.annotations})
    if len(people) < 2 and not settled.states[DRAFT] and not settled.rejected:
        return ""
    rows = []
    for who in people:
        states = [row["state"] for row in settled.annotations if (row["annotator"] or "") == who]
        rows.append(
            [who or "not told", *(states.count(s) for s in (DONE, SKIPPED, DRAFT, "rejected"))]
        )
    table = markdown_table(["annotator", "done", "skipped", "drafts", "rejected"], rows)
    reasons = ", ".join(
        f"{reason.replace('_', ' ')} {n}" for reason, n in sorted(settled.rejected.items())
    )
    return table + (f"\n\nNot used, by reason: {reasons}." if reasons else "")


def _unusable(settled: Settled) -> str:
    """Return the answers that cannot be used, the first ones, as a table."""
    asked = [*settled.requests, *settled.recalled]
    found = unusable_answers(settled.annotations, asked, settled.samples(OPEN))
    if not found:
        return ""
    rows = [
        [one.task, one.external_id, one.sample_id[:12], one.annotator or "not told", one.why]
        for one in found[:SHOWN]
    ]
    table = markdown_table(["task", "answer", "sample", "annotator", "why it cannot be used"], rows)
    parts = [table]
    if more := more_than_shown(found):
        parts.append(f"{more}: `visionloop labels status --json` names all.")
    if n_held := len({one.sample_id for one in found if one.holds}):
        parts.append(
            f"{counted(n_held, 'request stays', 'requests stay')} open until these answers are "
            "corrected or deleted at the tool."
        )
    return "\n\n".join(parts)


def _conflicts(settled: Settled) -> list[str]:
    parts = []
    if settled.disputed:
        parts.append(
            f"**{len(settled.disputed)} that people disagree about**, counted as missing: flagged, "
            f"and one more person is asked: {_some(settled.disputed)}."
        )
    if conflicts := settled.samples(CONFLICT):
        parts.append(
            f"**{len(conflicts)} in conflict**: people disagree, and nobody is asked any more: "
            f"{_some(conflicts)}. They are flagged, and not trained on."
        )
    return parts


def _some(samples: Iterable[str]) -> str:
    return named([f"`{sample[:12]}`" for sample in sorted(samples)])
