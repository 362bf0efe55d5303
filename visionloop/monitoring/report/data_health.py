"""Whether the loop is healthy, and why, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

HEALTHY, LOOK, ACT, CANNOT_TELL, NOTHING = "healthy", "look", "act", "cannot tell", "nothing yet"
ERROR, WARNING, INFO = "error", "warning", "info"


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know.

    Attributes:
        severity: ``error`` (act), ``warning`` (look) or ``info`` (what cannot be told, among it).
        text: One or two sentences.
        section: Anchor of the section that shows it: ``rounds``, ``funnel``, ``efficiency``,
            ``models``, ``slices``, ``map``, ``flags``, ``drift``, ``production``, ``annotators``,
            ``cost``, ``lineage``, ``events`` or ``selection``.
        remedy: What to do, "" where there is nothing to do.
        key: Its name for machines, such as ``publication_blocked`` or ``flags.unreadable``.
        unknown: Whether it says that something cannot be told.
    """

    severity: str
    text: str
    section: str
    remedy: str = ""
    key: str = ""
    unknown: bool = False


@dataclass(frozen=True)
class Verdict:
    """The health of the loop.

    Attributes:
        state: ``healthy``, ``look``, ``act``, ``cannot tell`` or ``nothing yet`` (empty lake).
        title: It in a few words, such as "Act now" or "Healthy".
        because: One sentence that says why.
        findings: What is odd, worst first; what cannot be told comes last.
    """

    state: str = NOTHING
    title: str = "Nothing yet"
    because: str = "The lake is empty: no round has run."
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class FailedStage:
    """A stage that failed and has not succeeded since.

    Attributes:
        stage: Its name.
        round_id: The round that it worked on.
        at: When.
        what: What went wrong.
        where: Where.
        remedy: What to do.
    """

    stage: str
    round_id: str
    at: datetime | None
    what: str
    where: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class StandingAct:
    """A decision of the loop that holds now.

    Attributes:
        act: ``block`` or ``random_share``.
        text: One sentence.
        since: When it was decided.
        share: The random share in force, [0, 1]; None for a block.
    """

    act: str
    text: str
    since: datetime | None = None
    share: float | None = None


@dataclass(frozen=True)
class StandingFlag:
    """A flag that counts now, on something that is no sample and no file.

    Attributes:
        kind: The flag's kind.
        title: The kind in words.
        severity: ``error``, ``warning`` or ``info``.
        subject: In words: an endpoint, a camera, a class, a stage, a model by its round.
        subject_type: What it is.
        score: What was measured; None where nothing was.
        threshold: What it was held against.
        unit: Unit of both, "" for none.
        reference: What it was compared with, in words.
        lines: Further evidence, in words.
        since: When it was flagged first.
        remedy: What to do.
        images: Sample ids, worst first.
    """

    kind: str
    title: str
    severity: str
    subject: str
    subject_type: str
    score: float | None
    threshold: float | None
    unit: str = ""
    reference: str = ""
    lines: tuple[str, ...] = ()
    since: datetime | None = None
    remedy: str = ""
    images: tuple[str, ...] = ()
