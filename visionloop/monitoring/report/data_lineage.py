"""Where the model in service comes from, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.data_funnel import Part


@dataclass(frozen=True)
class DecisionLine:
    """A decision of the loop.

    Attributes:
        decision: ``gate``, ``publish``, ``rollback``, ``watch``, ``auto_labels``, ``random_share``,
            ``block`` or ``unblock``.
        subject: In words; a model by its round.
        outcome: What was decided.
        reason: Why, in the decider's words.
        round_id: The round.
        decided_at: When.
    """

    decision: str
    subject: str
    outcome: str
    reason: str
    round_id: str
    decided_at: datetime | None = None


@dataclass(frozen=True)
class LearnedFrom:
    """A sample of the training set.

    Attributes:
        sample_id: Its id, or the tombstone of one that was erased.
        name: File name, "" where it was erased.
        label: The label that was learned.
        origin: Who gave it: ``import``, ``oracle``, ``csv``, ``label_studio``, ``model`` …
        picked_in: Round that picked it, "" where none did.
        arm: ``selected``, ``unknown`` or ``random`` as it was picked; "" where it was not.
        source: Its source.
    """

    sample_id: str
    name: str
    label: str
    origin: str
    picked_in: str
    arm: str
    source: str


@dataclass(frozen=True)
class Lineage:
    """The model in service, down to its samples.

    Attributes:
        model_id: Its id.
        name: "model of round 3".
        round_id: The round that trained it.
        architecture: Its network.
        training_set: Digest of the training set's rows.
        n_samples: Rows of the training set.
        by_origin: Rows by who gave the label.
        by_round: Rows by the round that picked the sample.
        by_arm: Rows by how it was picked.
        by_source: Rows by source.
        by_class: Rows by label.
        holdout: Labelled holdout samples that it was measured on.
        accuracy: Its accuracy there.
        decisions: Decisions about it, oldest first.
        before: Name of the model that was in service before, "" for none.
        samples: The first rows of the training set; ``n_samples`` tells of how many.
        uri: Where its bundle lies.
        trained_at: When it was trained.
    """

    model_id: str
    name: str
    round_id: str
    architecture: str = ""
    training_set: str = ""
    n_samples: int = 0
    by_origin: tuple[Part, ...] = ()
    by_round: tuple[Part, ...] = ()
    by_arm: tuple[Part, ...] = ()
    by_source: tuple[Part, ...] = ()
    by_class: tuple[Part, ...] = ()
    holdout: int = 0
    accuracy: Rate | None = None
    decisions: tuple[DecisionLine, ...] = ()
    before: str = ""
    samples: tuple[LearnedFrom, ...] = ()
    uri: str = ""
    trained_at: datetime | None = None
