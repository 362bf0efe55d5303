"""The sentences of the report: what its figures say, and no more than they can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from visionloop.monitoring.report.charts.reading import (
    NONE,
    chance,
    difference,
    duration,
    figure,
    interval,
    percent,
)
from visionloop.monitoring.report.data import ReportData, new_since
from visionloop.monitoring.report.data_drift import DRIFT, STABLE
from visionloop.monitoring.report.data_models import AHEAD, UNDECIDED, ModelRow, Saved
from visionloop.words import counted


@dataclass(frozen=True)
class Figure:
    """A figure at the head of the page."""

    name: str
    value: str
    note: str


def figures(data: ReportData) -> tuple[Figure, ...]:
    """Return the figures that a person looks for first."""
    makers: tuple[Callable[[ReportData], Figure], ...] = (
        _accuracy, _labels, _saved, _flagged, _drifted, _cost,
    )  # fmt: skip
    return tuple(make(data) for make in makers)


def _accuracy(data: ReportData) -> Figure:
    rate, name = data.in_service_accuracy, "Accuracy in service"
    if rate is not None:
        return Figure(
            name, percent(rate.value), f"{interval(rate)} on {rate.n:,} pictures of the holdout"
        )
    if data.in_service:
        return Figure(name, NONE, "the model in service was not evaluated here")
    return Figure(name, NONE, "no model is in service")


def _labels(data: ReportData) -> Figure:
    notes = []
    if data.n_samples:
        notes.append(f"for {counted(data.n_samples, 'picture')}")
    if data.cost.holdout_labels:
        notes.append(f"{data.cost.holdout_labels:,} more for the holdout")
    if data.cost.imported_labels:
        notes.append(f"{data.cost.imported_labels:,} came with the pictures")
    return Figure("Labels bought", f"{data.cost.labels:,}", "; ".join(notes))


def _saved(data: ReportData) -> Figure:
    found = data.efficiency.saved
    name = "Labels saved"
    if found is None:
        return Figure(name, NONE, "no random arm to compare with")
    if found.saved is None:
        return Figure(name, "cannot tell", found.reason)
    return Figure(
        name,
        f"{found.saved:,}",
        f"{_span(found)}, to be {percent(found.level)} accurate; random choice took "
        f"{found.random_labels:,.0f}, the loop {found.loop_labels:,.0f}",
    )


def _span(found: Saved) -> str:
    """Return the interval of labels saved, and whether it says anything."""
    if found.least is None and found.most is None:
        return "with no bound on either side"
    if found.least is None:
        said = f"at most {found.most:,}"
    elif found.most is None:
        said = f"at least {found.least:,}"
    else:
        said = f"{found.least:,} to {found.most:,}"
    may_be_none = (found.least is None or found.least <= 0) and (
        found.most is None or found.most >= 0
    )
    return f"{said}; may be chance" if may_be_none else said


def _flagged(data: ReportData) -> Figure:
    standing = sum(data.flag_counts.values())
    new = sum(data.new_flags.values())
    note = "nothing was checked yet"
    if data.rounds:
        note = f"{new:,} new {new_since(data)}"
    return Figure("Flags", f"{standing:,}", note)


def _drifted(data: ReportData) -> Figure:
    """Return how many measures a flag of drift stands for, as the findings and KFP count them."""
    standing = sum(series.standing for series in data.drift)
    states = [series.state for series in data.drift if not series.standing]
    stable, past = states.count(STABLE), states.count(DRIFT)
    rest = len(states) - stable - past
    said = [f"of {counted(len(data.drift), 'comparison')} drifted" if standing else ""]
    said.append(f"{counted(stable, 'comparison')} stable" if stable and not standing else "")
    said.append(f"{past:,} drifted and {'was' if past == 1 else 'were'} withdrawn" if past else "")
    said.append(f"{rest:,} cannot be told" if rest else "")
    note = "; ".join(filter(None, said))
    if standing:
        return Figure("Drift", f"{standing:,}", note)
    if stable or past:
        return Figure("Drift", "none stands" if past else "none seen", note)
    return Figure("Drift", "cannot tell", "nothing could be compared yet")


def _cost(data: ReportData) -> Figure:
    cost = data.cost
    if not cost.seconds:
        return Figure("Work", NONE, "no stage has run")
    gpu = (
        f"{figure(cost.gpu_hours)} GPU-hours on record"
        if cost.gpu_hours
        else cost.gpu_note.split(". ")[0]
    )
    return Figure("Work", duration(cost.seconds), gpu)


def efficiency(data: ReportData) -> str:
    """Return what the comparison with random choice says."""
    found = data.efficiency
    if not found.random:
        return "No model was trained on labels drawn at random: there is nothing to compare with."
    both = [point for point in found.loop if point.round_id in found.differences]
    if not both:
        return "No round has both a model of the loop and one of the random arm."
    last = both[-1]
    newest = found.differences[last.round_id]
    pairs = "on the same pictures, pair by pair" if newest.paired else "on unpaired groups"
    said = (
        f"After {counted(last.labels, 'label')} the loop's model stands at "
        f"{difference(newest)} against random choice, measured {pairs}."
    )
    if newest.says == UNDECIDED:
        said += f" This {chance(newest)}."
    ahead = sum(one.says == AHEAD for one in found.differences.values())
    said += f" It was significantly ahead in {ahead} of {counted(len(both), 'round')}."
    saved = found.saved
    if saved is not None and saved.saved is not None:
        said += (
            f" To be {percent(saved.level)} accurate, which both arms reached, random choice took "
            f"about {saved.random_labels:,.0f} labels and the loop about {saved.loop_labels:,.0f}: "
            f"{saved.saved:,} saved ({_span(saved)})."
        )
        said += f" {saved.reason[:1].upper()}{saved.reason[1:]}." if saved.reason else ""
    elif saved is not None and saved.reason:
        said += f" Labels saved cannot be told: {saved.reason.rstrip('.')}."
    return said


def calibration(model: ModelRow) -> str:
    """Return what is known of a model's calibration."""
    if model.ece is None:
        return f"The calibration of the {model.name} is not known."
    span = f"{interval(model.ece)}, " if model.ece.low < model.ece.high else ""
    return (
        f"The {model.name} is off by {percent(model.ece.value)} ({span}n = {model.ece.n:,}) on "
        "average: how sure it is, against how often it is right (expected calibration error)."
    )


def confusion(data: ReportData) -> str:
    """Return the most frequent mistake in words."""
    found = mistakes(data, 1)
    if data.confusion is None:
        return ""
    if not found:
        return "It made no mistake there."
    true, said, n = found[0]
    return f"Its most frequent mistake: {true} taken for {said}, {counted(n, 'time')}."


def mistakes(data: ReportData, most: int) -> list[tuple[str, str, int]]:
    """Return the most frequent mistakes: true class, what was said, how often."""
    if data.confusion is None:
        return []
    names = data.confusion.classes
    wrong = [
        (n, i, j)
        for i, row in enumerate(data.confusion.counts)
        for j, n in enumerate(row)
        if i != j and n
    ]
    wrong.sort(key=lambda one: (-one[0], one[1], one[2]))
    return [(names[i], names[j], n) for n, i, j in wrong[:most]]


def shown(some: int, total: int, what: str) -> str:
    """Return how many of how many are shown, "" where it is all.

    Args:
        some: How many are shown.
        total: How many there are.
        what: What is counted, in the plural.
    """
    return "" if some >= total else f"The newest {some:,} of {total:,} {what} are shown."
