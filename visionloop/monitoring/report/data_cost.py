"""What a loop cost and who labelled, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.data_models import Difference


@dataclass(frozen=True)
class RoundCost:
    """What one round cost.

    Attributes:
        round_id: The round.
        seconds: Seconds of work of each stage, in the order of their first run.
        gpu_seconds: Seconds of stages that are on record with a GPU; None where no stage says on
            what it ran.
        images: Pictures that came in.
        labels: Labels bought for training: answers of people, tools or an oracle; no imports, none
            of a model.
        holdout_labels: Labels bought for the holdout.
        label_seconds: Seconds that people took, where the tool says; None where it never does.
        gained: Accuracy against the loop's model before; None where there is nothing to compare.
        labels_per_point: Labels for each point (0.01) of accuracy; None where the gain is not
            significant.
        seconds_per_point: Stage seconds for each point of accuracy; None likewise.
    """

    round_id: str
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_seconds: float | None = None
    images: int = 0
    labels: int = 0
    holdout_labels: int = 0
    label_seconds: float | None = None
    gained: Difference | None = None
    labels_per_point: float | None = None
    seconds_per_point: float | None = None

    @property
    def total_seconds(self) -> float:
        """Seconds of all its stages."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Cost:
    """What the loop cost.

    Attributes:
        rounds: By round, oldest first.
        seconds: Stage seconds in all, work outside of rounds too.
        gpu_hours: GPU-hours on record; None where no stage says on what it ran.
        gpu_note: In words: what is known of GPUs.
        images: Pictures in the lake.
        labels: Labels bought for training.
        holdout_labels: Labels bought for the holdout.
        imported_labels: Labels that came with the pictures: not bought.
        model_labels: Labels that a model gave: not bought.
        gained: Newest evaluated model against the first; None where there are not two.
        labels_per_point: Labels for each point of that; None where it is not significant.
        note: Why a price for each point cannot be told, "" otherwise.
    """

    rounds: tuple[RoundCost, ...] = ()
    seconds: float = 0.0
    gpu_hours: float | None = None
    gpu_note: str = ""
    images: int = 0
    labels: int = 0
    holdout_labels: int = 0
    imported_labels: int = 0
    model_labels: int = 0
    gained: Difference | None = None
    labels_per_point: float | None = None
    note: str = ""


@dataclass(frozen=True)
class AnnotatorLine:
    """An annotator, by number: the page names nobody.

    Attributes:
        name: "annotator 1"; they are numbered by answers, most first.
        answers: Samples that they answered.
        skipped: Samples that they skipped.
        rejected: Answers that could not be used.
        agreement: Share of their answers that are those of whoever else was asked at first; None
            where there are too few to say.
        compared: Answers that it is a share of.
        with_gold: Share that is the known label of holdout samples; None where too few.
        seconds: Median that an answer took; None where the tool does not say.
    """

    name: str
    answers: int
    skipped: int
    rejected: int
    agreement: Rate | None = None
    compared: int = 0
    with_gold: Rate | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Annotators:
    """Who labelled, and how well.

    Attributes:
        rows: One each, most answers first.
        note: Why there is nothing to tell, "" otherwise.
    """

    rows: tuple[AnnotatorLine, ...] = ()
    note: str = ""
