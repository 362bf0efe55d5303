"""The sentences of the report: what its figures say, and no more than they can."""

from __future__ import annotations

from dataclasses import dataclass

from visionloop.monitoring.report.data import ReportData, Round, Window
from visionloop.words import counted

# An en dash, where a figure does not exist.
NONE = "\u2013"


@dataclass(frozen=True)
class Figure:
    """A figure at the head of the page."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Words:
    """The sentences of one report, one attribute a place on the page."""

    headline: str
    lede: str
    notices: tuple[str, ...]
    figures: tuple[Figure, ...]
    efficiency: str
    funnel: str
    selection: str
    flags: str
    confusion: str
    production: str
    harvest: str


def words(data: ReportData) -> Words:
    """Return the sentences for a report's data."""
    return Words(
        headline=_headline(data),
        lede=_lede(data),
        notices=_notices(data),
        figures=_figures(data),
        efficiency=_efficiency(data),
        funnel=_funnel(data),
        selection=(
            "The newest pictures that were chosen for labelling, with what spoke for each: its "
            "place in the order and the value of each objective at the step that chose it."
        ),
        flags=_flags(data),
        confusion=_confusion(data),
        production=_production(data),
        harvest=_harvest(data),
    )


def evaluated_rounds(data: ReportData) -> list[Round]:
    """Return the rounds whose model has an accuracy, oldest first."""
    return [r for r in data.rounds if r.accuracy is not None and r.labels is not None]


def _headline(data: ReportData) -> str:
    rate = data.in_service_accuracy
    if data.in_service and rate is not None:
        labels = next((r.labels for r in data.rounds if r.model_id == data.in_service), None)
        said = f"{rate.value:.1%} accurate"
        return f"{said} after {counted(labels, 'label')}." if labels else f"{said}."
    if data.in_service:
        return "A model is in service."
    if data.rounds and data.rounds[-1].missing_labels:
        return f"Waiting for {counted(data.rounds[-1].missing_labels, 'label')}."
    if data.n_samples:
        return "No model in service yet."
    return "An empty lake."


def _lede(data: ReportData) -> str:
    what = (
        "A closed loop: pictures come in, the few that teach most are chosen and labelled, a model "
        "learns from them and goes into service, and what it was unsure of in production comes "
        "back to the next choice."
    )
    if not data.rounds:
        return what
    covered = f" This page covers {counted(len(data.rounds), 'round')}"
    return f"{what}{covered} and {counted(data.n_samples, 'picture')}."


def _notices(data: ReportData) -> tuple[str, ...]:
    notices = []
    for held in data.rounds:
        if held.missing_labels:
            notices.append(
                f"Round {held.round_id} waits for {counted(held.missing_labels, 'label')}. "
                "Once they are there, run the round again: it goes on where it stopped."
            )
        elif held.state == "running":
            reached = next(reversed(held.seconds), "")
            after = (
                f"; the last stage that ended was {reached.replace('_', ' ')}" if reached else ""
            )
            notices.append(f"Round {held.round_id} is not finished{after}.")
        if not held.funnel.adds_up:
            f = held.funnel
            notices.append(
                f"Round {held.round_id}: the states of its files add up to "
                f"{f.ok + f.flagged + f.unreadable + f.unchecked:,}, not to the {f.found:,} found."
            )
    return tuple(notices)


def _figures(data: ReportData) -> tuple[Figure, ...]:
    rate = data.in_service_accuracy
    accuracy = Figure("Accuracy", NONE, "no model in service")
    if rate is not None:
        accuracy = Figure(
            "Accuracy",
            f"{rate.value:.1%}",
            f"{100 * rate.low:.1f} to {100 * rate.high:.1f} on {rate.n:,} holdout pictures",
        )
    elif data.in_service:
        accuracy = Figure("Accuracy", NONE, "the model in service was never evaluated here")
    holdout = f"; {data.n_holdout:,} more pictures are the holdout" if data.n_holdout else ""
    share = f"{data.n_labels / data.n_samples:.1%} of all pictures" if data.n_samples else ""
    flagged = sum(r.funnel.flagged + r.funnel.unreadable for r in data.rounds)
    found = sum(r.funnel.found for r in data.rounds)
    inferences = sum(w.n for w in data.windows)
    newest = data.windows[-1] if data.windows else None
    return (
        accuracy,
        Figure("Labels used", f"{data.n_labels:,}", (share + holdout) if data.n_labels else ""),
        Figure("Files with a finding", f"{flagged:,}", f"of {found:,} found" if found else ""),
        Figure(
            "Inferences in production",
            f"{inferences:,}",
            _promised(newest) if newest else "",
        ),
    )


def _promised(window: Window) -> str:
    if window.expected is not None:
        return f"the newest promise {window.expected.value:.1%} accuracy"
    return "no accuracy can be promised of the newest" if window.refused else ""


def _efficiency(data: ReportData) -> str:
    both = [r for r in evaluated_rounds(data) if r.random_accuracy is not None]
    if not both:
        return "There is no random arm to compare with in this lake."
    last = both[-1]
    assert last.accuracy is not None and last.random_accuracy is not None
    ahead = 100 * (last.accuracy.value - last.random_accuracy.value)
    said = (
        f"At {counted(last.labels or 0, 'label')} the loop stands at {last.accuracy.value:.1%}, "
        f"random choice at {last.random_accuracy.value:.1%}"
    )
    won = sum(
        r.accuracy is not None
        and r.random_accuracy is not None
        and r.accuracy.value > r.random_accuracy.value
        for r in both
    )
    told = f" It was ahead in {won} of {counted(len(both), 'round')}."
    if last.accuracy.low > last.random_accuracy.high:
        return f"{said}: {ahead:.1f} points ahead, and the intervals do not overlap.{told}"
    if last.accuracy.high < last.random_accuracy.low:
        return f"{said}: {-ahead:.1f} points behind, and the intervals do not overlap.{told}"
    return f"{said}: {ahead:+.1f} points. The intervals overlap: this may be chance.{told}"


def _funnel(data: ReportData) -> str:
    if all(r.funnel.adds_up for r in data.rounds):
        return (
            "In every round ok, flagged, unreadable and unchecked add up to the files found. A "
            "second copy of the same bytes is a flagged file, not a second sample."
        )
    return "The states do not add up in every round; see the notice at the head of the page."


def _flags(data: ReportData) -> str:
    said = (
        "A flag names the measure, the threshold and its evidence; the picture stays in the lake."
    )
    if any(f.planted is not None for f in data.flags):
        said += (
            " In this lake defects were put in on purpose: beside each count stands how many. Some "
            "pictures look alike or dim by nature, so a count may be higher than what was put in."
        )
    return said


def _confusion(data: ReportData) -> str:
    if data.confusion is None:
        return ""
    worst = max(
        (
            (cell, i, j)
            for i, row in enumerate(data.confusion.counts)
            for j, cell in enumerate(row)
            if i != j
        ),
        default=(0, 0, 0),
    )
    if not worst[0]:
        return "It made no mistake there."
    true, said = data.confusion.classes[worst[1]], data.confusion.classes[worst[2]]
    return f"Its most frequent mistake: {true} taken for {said}, {counted(worst[0], 'time')}."


def _production(data: ReportData) -> str:
    if not data.windows:
        return "What the deployed model answered, and how sure it was."
    drifted = [w for w in data.windows if w.flags]
    said = (
        "How sure the deployed model was, by round of harvest; the outline is the same model on "
        "its own holdout. The accuracy that calibrated confidences promise needs no label; it is "
        "told with a 95% interval, and refused where traffic lies elsewhere than the holdout. "
        "Labels of random picks tell it whatever the confidences say."
    )
    return said + ("" if drifted else " No drift was found.")


def _harvest(data: ReportData) -> str:
    total = sum(row.count for row in data.harvest)
    events = counted(total, "event")
    return f"Every event that the logger delivered ends in one state: {events} in all."
