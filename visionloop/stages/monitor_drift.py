"""The monitor's look at drift, of what sources bring and of what the deployed model says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table, markdown_text
from visionloop.stages.monitor_inputs import compare_inputs
from visionloop.stages.monitor_part import Look, Part

if TYPE_CHECKING:
    from visionloop.monitoring.deployed import Comparison
    from visionloop.monitoring.estimating import Estimated
    from visionloop.monitoring.judged import Judged


def check_drift(look: Look) -> Part:
    """Compare what sources and endpoints brought last with their references.

    A flag of drift states how things are: it stands, also in a round where nothing new came, until
    the model learned from what drifted, another model serves, or a later window is back.

    Args:
        look: What the monitor looks at.
    """
    from visionloop.monitoring.drift_kinds import DRIFT_KINDS
    from visionloop.monitoring.estimating import estimate_rows, same_estimates
    from visionloop.monitoring.judged import drift_rows, judged_endpoint
    from visionloop.monitoring.standing import write_standing

    run = look.run
    comparisons, estimated = _deployed(look)
    judged = [*compare_inputs(look), *map(judged_endpoint, comparisons)]
    retired = _retired(look)
    rows = drift_rows([one for one in judged if one.model_id not in retired], look.now)
    new = write_standing(run, [kind.name for kind in DRIFT_KINDS], rows)
    estimates = estimate_rows(estimated, look.now)
    mine = f"round_id == '{run.round_id}'"
    if not same_estimates(run.read("estimates", where=mine), estimates):
        run.replace("estimates", estimates, mine)
    return Part(
        new,
        {"flag_drift": float(len(rows)), **_drift_metrics(judged), **_estimate_metrics(estimated)},
        _drift_page(judged) + _estimates_page(estimated),
        {"drift": len(rows), "comparisons": [one.plain() for one in judged]},
    )


def _retired(look: Look) -> set[str]:
    """Return the models that serve no more: what they said drifts away with them."""
    rows = look.run.read("experiments", columns=["model_id", "state"]).to_pylist()
    return {row["model_id"] for row in rows if row["state"] in ("retired", "rolled_back")}


def _deployed(look: Look) -> tuple[list[Comparison], list[Estimated]]:
    from pyiceberg.expressions import In

    from visionloop.monitoring.deployed import (
        WINDOW_COLUMNS,
        compare_window,
        deployed_windows,
        holdout_references,
        judged_windows,
        newest_windows,
    )
    from visionloop.monitoring.estimating import Evidence

    run, loop = look.run, look.loop
    windows = deployed_windows(run.read("confidences", columns=[*WINDOW_COLUMNS]))
    if not windows:
        return [], []
    judged = judged_windows(windows, loop.monitoring)
    samples = run.read("samples", columns=["sample_id"], where="split == 'holdout'")
    # Every model has predicted the whole pool: what those said that are not compared stays unread.
    models = In(term="model_id", literals=sorted({window.model_id for window in judged}))
    columns = ["sample_id", "model_id", "label", "confidence"]
    references = holdout_references(
        run.read("predictions", columns=columns, where=models),
        set(samples["sample_id"].to_pylist()),
    )
    evidence = Evidence(look.lake, run, loop.task, loop.monitoring)
    comparisons: list[Comparison] = []
    estimated: list[Estimated] = []
    for window in judged:
        comparisons += compare_window(window, windows, references, loop.monitoring)
        comparisons += evidence.embedding_comparisons(window, windows)
    for window in newest_windows(windows):
        estimated += [*evidence.from_confidences(window), evidence.from_random_picks(window)]
    return comparisons, estimated


def _drift_metrics(judged: Sequence[Judged]) -> dict[str, float]:
    """Return how many comparisons ended in each state, and each score that was judged."""
    from visionloop.monitoring.drift import DRIFT, NOTHING_TO_COMPARE, STABLE, TOO_FEW

    states = Counter(one.drift.state for one in judged)
    values = {
        f"n_comparisons_{state.replace(' ', '_')}": float(states[state])
        for state in (DRIFT, STABLE, TOO_FEW, NOTHING_TO_COMPARE)
    }
    for one in judged:
        if one.drift.state in (DRIFT, STABLE):
            values[f"{one.drift.kind} {one.subject} {one.against}"] = one.drift.score
    return values


def _estimate_metrics(estimated: list[Estimated]) -> dict[str, float]:
    """Return what KFP keeps as numbers: each estimate over all, unless it is refused."""
    values: dict[str, float] = {"n_estimates_refused": 0.0}
    for one in estimated:
        if one.label:
            continue
        if one.estimate.state == "refused":
            values["n_estimates_refused"] += 1
            continue
        name = f"accuracy_by_{one.method} {one.endpoint} {one.model_id}"
        values |= {
            name: one.estimate.value,
            f"{name} low": one.estimate.low,
            f"{name} high": one.estimate.high,
        }
    return values


def _drift_page(judged: Sequence[Judged]) -> str:
    from visionloop.monitoring.drift import DRIFT

    if not judged:
        return "## Drift\n\nNothing has come that could be compared.\n"
    header = ["of", "what", "compared with", "score", "threshold", "moved", "images", "result"]
    rows = [_drift_row(one) for one in sorted(judged, key=lambda one: one.drift.state != DRIFT)]
    return f"## Drift\n\n{markdown_table(header, rows)}\n"


def _drift_row(one: Judged) -> tuple[str, ...]:
    from visionloop.monitoring.drift import DRIFT, NOTHING_TO_COMPARE, STABLE
    from visionloop.monitoring.kinds import kind_of

    d = one.drift
    what = kind_of(d.kind).name.replace("_", " ")
    if d.state == NOTHING_TO_COMPARE:
        return (markdown_text(one.subject), what, "", "", "", "", "", f"{d.state}: {d.reason}")
    moved = d.measure
    if d.before is not None and d.after is not None:
        moved += f" from {d.before:.3g} to {d.after:.3g}"
    result = d.state
    if d.state in (DRIFT, STABLE):
        result += f" (p {d.p_value:.2g}, level {d.level:.2g} of look {d.look})"
    elif d.reason:
        result += f": {d.reason}"
    return (
        markdown_text(one.subject),
        what,
        markdown_text(one.reference),
        f"{d.score:.3f} ({d.unit})",
        f"{d.threshold:.3f}",
        markdown_text(moved),
        f"{d.n_reference:,} before, {d.n_current:,} now",
        result,
    )


def _estimates_page(estimated: list[Estimated]) -> str:
    if not estimated:
        return ""
    header = ["endpoint", "model", "by", "answers", "right", "95% interval", "n", "note"]
    table = markdown_table(header, [_estimate_row(one) for one in estimated])
    return f"\n## Accuracy in production\n\n{table}\n"


def _estimate_row(one: Estimated) -> tuple[Any, ...]:
    of, e = one.label or "all", one.estimate
    method = one.method.replace("_", " ")
    named = (markdown_text(one.endpoint), markdown_text(one.model_id), method, markdown_text(of))
    if e.state == "refused":
        return (*named, "refused", "", e.n, e.reason)
    covered = e.evidence.get("covered")
    note = "" if covered is None else f"of {covered:.0%} of {e.evidence['n_inferences']} inferences"
    return (*named, f"{e.value:.1%}", f"{e.low:.1%} to {e.high:.1%}", e.n, note)
