"""What is known of the models of a loop, round by round, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from visionloop.monitoring.intervals import Rate

AHEAD, BEHIND, UNDECIDED = "ahead", "behind", "cannot tell"
# Of the 95% intervals.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Difference:
    """A difference of two rates with its 95% interval, in shares (0.02 is two points).

    Attributes:
        value: First less second.
        low: Lower end of the interval.
        high: Upper end.
        n: Samples behind it: pairs where it is paired, the smaller group where it is not.
        paired: Whether both were measured on the same samples, sample by sample.
        method: The interval's method in words.
        p: Two-sided p value; None where none was computed.
    """

    value: float
    low: float
    high: float
    n: int
    paired: bool = False
    method: str = ""
    p: float | None = None

    @property
    def says(self) -> str:
        """``ahead``, ``behind``, or ``cannot tell`` where the interval holds 0.

        An exact test that sees nothing has the last word: with few pictures that tell two models
        apart the score interval is a little too narrow.
        """
        if self.p is not None and self.p >= SIGNIFICANCE:
            return UNDECIDED
        if self.low > 0:
            return AHEAD
        return BEHIND if self.high < 0 else UNDECIDED


@dataclass(frozen=True)
class ArmPoint:
    """A model of an arm: accuracy on the holdout after so many labels."""

    round_id: str
    labels: int
    accuracy: Rate


@dataclass(frozen=True)
class Saved:
    """Labels that the loop saved, at the highest accuracy that both arms have reached.

    Attributes:
        level: That accuracy, [0, 1].
        random_labels: Labels after which the random arm reached it, interpolated between two
            rounds; None where that cannot be told.
        loop_labels: The same of the loop.
        least: The fewest that it may have saved, by the 95% interval; None where nothing bounds it.
        most: The most that it may have saved; None where nothing bounds it.
        reason: Why it cannot be told, or is bounded on one side only; "" otherwise.
    """

    level: float
    random_labels: float | None = None
    loop_labels: float | None = None
    least: int | None = None
    most: int | None = None
    reason: str = ""

    @property
    def saved(self) -> int | None:
        """Labels saved, negative where the loop needed more; None where it cannot be told."""
        if self.random_labels is None or self.loop_labels is None:
            return None
        return round(self.random_labels - self.loop_labels)


@dataclass(frozen=True)
class ShareComparison:
    """How often a model was wrong about what it chose, and about the random share of the batch.

    It needs no second model: labels of the random share are unbiased, whoever gave them. Where the
    chosen are wrong more often, choosing finds what the model has yet to learn.

    Attributes:
        round_id: The round that chose; "" for all rounds together.
        chosen: Share of the chosen that the model of that time had wrong.
        random: The same of the random share.
        difference: Chosen less random; None where one has too few.
    """

    round_id: str
    chosen: Rate
    random: Rate
    difference: Difference | None = None


@dataclass(frozen=True)
class Efficiency:
    """Label efficiency against random choice.

    Attributes:
        loop: Models of the loop, in ascending order of labels.
        random: Models of the random arm.
        differences: Loop less random of each round that has both, by round id.
        saved: Labels saved; None without a random arm.
        shares: The comparison by the random share of each batch; the last is over all rounds.
    """

    loop: tuple[ArmPoint, ...] = ()
    random: tuple[ArmPoint, ...] = ()
    differences: dict[str, Difference] = field(default_factory=dict)
    saved: Saved | None = None
    shares: tuple[ShareComparison, ...] = ()


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of one range of confidence: how sure, and how often right.

    Attributes:
        low: Lower end of the range, in [0, 1].
        high: Upper end.
        n: Answers in it.
        confidence: Their mean confidence; None where n is 0.
        right: Share that was right, with its interval; None where n is 0.
    """

    low: float
    high: float
    n: int
    confidence: float | None = None
    right: Rate | None = None


@dataclass(frozen=True)
class SliceRow:
    """Accuracy of one model where one metadata column has one value, or lies in one range.

    Attributes:
        column: The column.
        value: Its value or range.
        accuracy: With an interval corrected for the number of slices where ``corrected``.
        small: Whether there are too few samples to say anything.
        worse: Whether it is significantly below the rest, after correction.
        corrected: Whether the interval is.
    """

    column: str
    value: str
    accuracy: Rate
    small: bool = False
    worse: bool = False
    corrected: bool = False


@dataclass(frozen=True)
class ModelRow:
    """One model with all its numbers.

    Attributes:
        model_id: Its id.
        name: As it is called on the page: "model of round 3".
        round_id: The round that trained it.
        arm: ``loop`` or ``random``.
        state: ``trained``, ``passed``, ``rejected``, ``in_service``, ``retired``, ``rolled_back``.
        labels: Labels that it learned from.
        accuracy: On the frozen holdout; None where it was not evaluated.
        macro_f1: Mean of the classes' F1; None where it was not evaluated.
        ece: Expected calibration error with its interval; None where it is not known. Where an
            older evaluation gave no interval, low and high are the value.
        brier: Brier score, 0 to 2, with its interval; None where it is not known.
        bins: Reliability, () where it is not known.
        slices: Accuracy by metadata.
        gate: ``passed``, ``rejected`` or "".
        gate_reason: The gate's own words.
        gained: Against the loop's model before; None where there is none.
        trained_at: When.
    """

    model_id: str
    name: str
    round_id: str
    arm: str
    state: str = ""
    labels: int = 0
    accuracy: Rate | None = None
    macro_f1: float | None = None
    ece: Rate | None = None
    brier: Rate | None = None
    bins: tuple[ReliabilityBin, ...] = ()
    slices: tuple[SliceRow, ...] = ()
    gate: str = ""
    gate_reason: str = ""
    gained: Difference | None = None
    trained_at: datetime | None = None
