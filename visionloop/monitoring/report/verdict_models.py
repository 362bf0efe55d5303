"""What the verdict finds in the models of a loop: accuracy, gate and slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.charts.reading import told
from visionloop.monitoring.report.data import ReportData
from visionloop.monitoring.report.data_health import ERROR, INFO, WARNING, Finding
from visionloop.monitoring.report.data_models import BEHIND, Difference, ModelRow
from visionloop.words import counted

# Labelled holdout samples below which an accuracy says little.
FEW = 50
# Slices that are named.
_SLICES = 3
# Key of the finding that no gate has said how accurate a model has to be.
NO_GATE = "no_gate"


@dataclass(frozen=True)
class Limits:
    """What the verdict holds the loop against, beside what the report shows.

    Attributes:
        min_accuracy: The gate's least accuracy when it last judged: 0 where none was set, None
            where it never judged.
        best: The most accurate model of the loop that was ever in service.
        behind_best: Accuracy of the model in service less that of the best.
        deadline: When the labels of the waiting round are due; None without a deadline.
        rolled_back: Sentences about rollbacks that were not done, or that brought the model in
            service back.
        now: When the verdict is given: what waits is overdue or not at that time.
    """

    min_accuracy: float | None = None
    best: ModelRow | None = None
    behind_best: Difference | None = None
    deadline: datetime | None = None
    rolled_back: tuple[tuple[str, str], ...] = ()
    now: datetime | None = None


def of_models(data: ReportData, limits: Limits) -> Iterator[Finding]:
    """Yield what is odd or cannot be told of the models.

    Args:
        data: What the report shows.
        limits: What it is held against.
    """
    yield from _accuracy(data, limits)
    yield from _gate(data)
    yield from _slices(data)


def told_accuracy(rate: Rate) -> str:
    """Return an accuracy in words, with its interval and how many pictures are behind it."""
    return (
        f"{rate.value:.1%} accurate ({100 * rate.low:.1f} to {100 * rate.high:.1f} on "
        f"{counted(rate.n, 'holdout picture')})"
    )


def _accuracy(data: ReportData, limits: Limits) -> Iterator[Finding]:
    for severity, text in limits.rolled_back:
        yield Finding(severity, text, "lineage", key="rolled_back")
    if not data.in_service:
        if any(one.model_id for one in data.rounds):
            text = "A model was trained, and none is in service."
            yield Finding(INFO, text, "models", key="no_model_in_service", unknown=True)
        return
    rate = data.in_service_accuracy
    if rate is None:
        yield Finding(
            WARNING,
            "How accurate the model in service is cannot be told: it was never measured on "
            "labelled pictures of the holdout here.",
            "models",
            "Label the holdout; `evaluate` measures the next model.",
            "accuracy_unknown",
            unknown=True,
        )
        return
    if limits.min_accuracy is not None and rate.value < limits.min_accuracy:
        sure = rate.high < limits.min_accuracy
        yield Finding(
            ERROR if sure else WARNING,
            f"The model in service is {told_accuracy(rate)}, below its gate of "
            f"{limits.min_accuracy:.1%}{'' if sure else '; that may be chance'}.",
            "models",
            "Roll back with `visionloop rollback`, or label more pictures and train.",
            "accuracy_below_gate",
        )
    if not limits.min_accuracy:
        never = "No gate has judged a model by a least accuracy"
        any_passed = "The last gate had no least accuracy: a model of any accuracy passed it"
        yield Finding(
            INFO,
            f"{never if limits.min_accuracy is None else any_passed}. Whether one that is "
            f"{told_accuracy(rate)} will do cannot be told.",
            "models",
            "Set the least accuracy that will do, `gates.min_accuracy`: the next `evaluate` judges "
            "by it.",
            NO_GATE,
            unknown=True,
        )
    if limits.best is not None and limits.behind_best is not None:
        apart = limits.behind_best
        if apart.says == BEHIND:
            yield Finding(
                WARNING,
                f"The model in service is {-100 * apart.value:.1f} points less accurate than the "
                f"{limits.best.name}, which was in service before "
                f"({-100 * apart.high:.1f} to {-100 * apart.low:.1f} points).",
                "models",
                "Roll back with `visionloop rollback`, or find out what the newer labels taught.",
                "accuracy_below_best",
            )
    if rate.n < FEW:
        yield Finding(
            INFO,
            f"The holdout has {counted(rate.n, 'labelled picture')}: an accuracy measured on so "
            "few says little.",
            "models",
            "Let the holdout grow: `holdout.min_samples`.",
            "small_holdout",
            unknown=True,
        )


def _gate(data: ReportData) -> Iterator[Finding]:
    newest = next((one for one in reversed(data.rounds) if one.model_id), None)
    if newest is None or newest.gate != "rejected":
        return
    model = next((one.name for one in data.models if one.model_id == newest.model_id), "model")
    why = next((one.gate_reason for one in data.models if one.model_id == newest.model_id), "")
    yield Finding(
        WARNING,
        f"The {model} did not pass its gate: {why or newest.gate_reason}",
        "rounds",
        "The model before stays in service; see which classes and slices got worse.",
        "gate_failed",
    )


def _slices(data: ReportData) -> Iterator[Finding]:
    served = next((row for row in data.models if row.model_id == data.in_service), None)
    worse = [row for row in served.slices if row.worse] if served is not None else []
    if not worse:
        return
    worse.sort(key=lambda row: (row.accuracy.value, row.column, row.value))
    named = [f"{row.column} {row.value}: {told(row.accuracy)}" for row in worse[:_SLICES]]
    more = f"; and {len(worse) - _SLICES:,} more" if len(worse) > _SLICES else ""
    yield Finding(
        INFO,
        f"The model in service is worse on some slices than elsewhere, beyond chance. "
        f"{'; '.join(named)}{more}.",
        "slices",
        "Label more pictures of these.",
        "worse_slices",
    )
