"""What the report shows, as plain values: the loader fills them, the page draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.data_cost import Annotators, Cost
from visionloop.monitoring.report.data_drift import DriftSeries
from visionloop.monitoring.report.data_funnel import Account
from visionloop.monitoring.report.data_health import (
    FailedStage,
    StandingAct,
    StandingFlag,
    Verdict,
)
from visionloop.monitoring.report.data_lineage import DecisionLine, Lineage
from visionloop.monitoring.report.data_map import EmbeddingMap
from visionloop.monitoring.report.data_models import Efficiency, ModelRow
from visionloop.monitoring.unjudged import Unjudged
from visionloop.words import round_name


@dataclass(frozen=True)
class Funnel:
    """What became of the files of one round; the five states add up to ``found``.

    Attributes:
        found: Files that the round's intake found for the first time.
        ok: Files whose sample passed every check.
        flagged: Files with at least one flag, further copies of a sample among them.
        unreadable: Files that could not be decoded.
        no_picture: Files that are no pictures by their names either: notes, sidecars left behind.
        unchecked: Files without a check so far.
        skipped: Files that earlier rounds had taken in; not part of ``found``.
        pool: Samples to choose from after this intake, less holdout and labelled; None if unknown.
        selected: Samples chosen.
        labelled: Chosen samples that have a label.
        trained: Samples in the round's training set; None where nothing was trained.
    """

    found: int = 0
    ok: int = 0
    flagged: int = 0
    unreadable: int = 0
    no_picture: int = 0
    unchecked: int = 0
    skipped: int = 0
    pool: int | None = None
    selected: int = 0
    labelled: int = 0
    trained: int | None = None

    @property
    def adds_up(self) -> bool:
        """Whether the states add up to what was found."""
        checked = self.ok + self.flagged + self.unreadable + self.no_picture
        return self.found == checked + self.unchecked


@dataclass(frozen=True)
class Round:
    """One turn of the loop.

    Attributes:
        round_id: Zero-padded number.
        state: ``running``, ``waiting`` or ``done``.
        outcome: ``published``, ``kept`` or "".
        funnel: What became of the round's files.
        labels: Labels that the round's model learned from; None where nothing was trained.
        accuracy: Accuracy on the frozen holdout.
        random_accuracy: The same of a model trained on as many labels chosen at random.
        model_id: The model that the round trained, "" for none.
        gate: ``passed``, ``rejected`` or "".
        gate_reason: The gate's own words.
        missing_labels: Labels that a waiting round still waits for.
        spaces: Embedding spaces that the round used, each with where it comes from in words.
        seconds: Seconds of work of each stage, in the order of their first run.
        opened_at: When the round was opened.
    """

    round_id: str
    state: str = ""
    outcome: str = ""
    funnel: Funnel = field(default_factory=Funnel)
    labels: int | None = None
    accuracy: Rate | None = None
    random_accuracy: Rate | None = None
    model_id: str = ""
    gate: str = ""
    gate_reason: str = ""
    missing_labels: int = 0
    spaces: tuple[tuple[str, str], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    opened_at: datetime | None = None


@dataclass(frozen=True)
class Picture:
    """A sample as it is shown: thumbnail and the words under it.

    Attributes:
        name: File name.
        thumbnail: ``data:`` URI of a small image, "" where the media cannot be read.
        title: The first line: a label, or what was measured.
        lines: Further lines, for example why it was chosen.
        small: Whether the picture has so few pixels that they are drawn as squares.
        sample_id: Its id, "" for a file that is no sample.
    """

    name: str
    thumbnail: str = ""
    title: str = ""
    lines: tuple[str, ...] = ()
    small: bool = False
    sample_id: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures under one heading; ``total`` counts those that are not shown too."""

    heading: str
    total: int
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class FlagKind:
    """One kind of flag of samples and files, over all rounds.

    Attributes:
        kind: The flag's kind.
        found: Number of flags in each round, by round id.
        planted: Number that was put in on purpose in each round, None where nobody says.
        gallery: Examples, worst first.
        title: The kind in words.
        severity: ``error``, ``warning`` or ``info``.
        meaning: What such a flag says, "" where nobody wrote it down.
        remedy: What to do about it.
    """

    kind: str
    found: dict[str, int]
    planted: dict[str, int] | None
    gallery: Gallery
    title: str = ""
    severity: str = "warning"
    meaning: str = ""
    remedy: str = ""

    @property
    def total(self) -> int:
        """Flags of this kind over all rounds."""
        return sum(self.found.values())

    @property
    def total_planted(self) -> int | None:
        """Planted defects of this kind over all rounds, None where nobody says."""
        return None if self.planted is None else sum(self.planted.values())


@dataclass(frozen=True)
class Slice:
    """Accuracy where one metadata column has one value (or lies in one range)."""

    column: str
    value: str
    accuracy: Rate
    small: bool


@dataclass(frozen=True)
class Confusion:
    """Counts on the holdout: ``counts[i][j]`` samples of class i were called class j."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Window:
    """Deployed confidences of one model at one endpoint, harvested in one round.

    Attributes:
        round_id: Round whose harvest brought them.
        endpoint: Name of the endpoint.
        model_id: Model that answered.
        n: Number of inferences.
        expected: Accuracy that the calibrated confidences promise; None where it is refused, or no
            monitor has looked yet.
        refused: Why it is refused.
        by_labels: Accuracy of the model by labels of random picks; None without enough of them.
        histogram: Share of the inferences in each of 20 equal bins of [0, 1].
        reference: The same of the model's own holdout, () where unknown.
        flags: Drift that was found, in words.
    """

    round_id: str
    endpoint: str
    model_id: str
    n: int
    expected: Rate | None
    histogram: tuple[float, ...]
    reference: tuple[float, ...] = ()
    flags: tuple[str, ...] = ()
    refused: str = ""
    by_labels: Rate | None = None


@dataclass(frozen=True)
class HarvestCount:
    """How many events of the endpoint's logger ended in one state, and why."""

    state: str
    reason: str
    count: int


@dataclass(frozen=True)
class ReportData:
    """All that one report shows.

    Attributes:
        loop: Name of the loop.
        lake: URI of the lake.
        version: Lake version that the report describes, "" for an empty lake.
        as_of: Time of the newest work in the lake, so that one version gives one report.
        rounds: Rounds, oldest first.
        in_service: Model in service, "" for none.
        in_service_accuracy: Its accuracy on the holdout.
        n_samples: Samples in the lake.
        n_holdout: Samples of the frozen holdout.
        n_labels: Labels of people, tools and imports that are not the holdout's.
        selections: What the last rounds chose.
        flags: Flags by kind.
        confusion: Confusion matrix of the newest evaluated model.
        slices: Accuracy by metadata of the newest evaluated model.
        evaluated: The model that ``confusion`` and ``slices`` belong to.
        windows: Deployed confidences.
        harvest: What became of the logged events.
        verdict: Whether the loop is healthy, with the findings.
        total: The funnel of all rounds together.
        accounts: The funnel of each round, oldest first.
        efficiency: Label efficiency against random choice.
        models: Every model with its numbers, oldest first; the random arm's among them.
        map: The embedding map.
        errors: The most confident errors on the holdout and among labelled pictures.
        disagreements: Labels that a model confidently contradicts (kind of flag).
        drift: Drift over rounds.
        drift_note: What was not compared, and why; "" where everything was.
        annotators: Who labelled, by number.
        cost: What it cost.
        lineage: The model in service down to its samples; None without one.
        decisions: The newest decisions, newest first.
        standing: Flags that count now on what is no sample and no file, worst first.
        acts: What the loop decided that holds now.
        failed: Stages that failed and have not succeeded since, newest first.
        notes: What the report left out or could not read, in sentences.
        in_service_name: Name of the model in service, "" for none.
        flag_counts: Flags that stand now by kind, of all subjects.
        new_flags: Flags of each kind that the newest round brought.
        not_judged: What there was too little of to be judged.
        left_to_select: Pictures that can still be selected, as the newest monitor counted them;
            None where none has run.
        upcoming: Id of the round that comes next and was not opened yet: what ran after the last
            round carries it.
    """

    loop: str = ""
    lake: str = ""
    version: str = ""
    as_of: datetime | None = None
    rounds: tuple[Round, ...] = ()
    in_service: str = ""
    in_service_accuracy: Rate | None = None
    n_samples: int = 0
    n_holdout: int = 0
    n_labels: int = 0
    selections: tuple[Gallery, ...] = ()
    flags: tuple[FlagKind, ...] = ()
    confusion: Confusion | None = None
    slices: tuple[Slice, ...] = ()
    evaluated: str = ""
    windows: tuple[Window, ...] = ()
    harvest: tuple[HarvestCount, ...] = ()
    verdict: Verdict = field(default_factory=Verdict)
    total: Account = field(default_factory=Account)
    accounts: tuple[Account, ...] = ()
    efficiency: Efficiency = field(default_factory=Efficiency)
    models: tuple[ModelRow, ...] = ()
    map: EmbeddingMap = field(default_factory=EmbeddingMap)
    errors: Gallery | None = None
    disagreements: Gallery | None = None
    drift: tuple[DriftSeries, ...] = ()
    drift_note: str = ""
    annotators: Annotators = field(default_factory=Annotators)
    cost: Cost = field(default_factory=Cost)
    lineage: Lineage | None = None
    decisions: tuple[DecisionLine, ...] = ()
    standing: tuple[StandingFlag, ...] = ()
    acts: tuple[StandingAct, ...] = ()
    failed: tuple[FailedStage, ...] = ()
    notes: tuple[str, ...] = ()
    in_service_name: str = ""
    flag_counts: dict[str, int] = field(default_factory=dict)
    new_flags: dict[str, int] = field(default_factory=dict)
    not_judged: tuple[Unjudged, ...] = ()
    upcoming: str = ""
    left_to_select: int | None = None


def new_since(data: ReportData) -> str:
    """Return in words since when `ReportData.new_flags` are counted: ``since round 3 began``."""
    if not data.rounds:
        return "since the beginning"
    newest = data.rounds[-1].round_id
    if newest != data.upcoming:
        return f"since {round_name(newest)} began"
    if len(data.rounds) == 1:
        return "since the beginning"
    return round_name(newest, data.upcoming)
