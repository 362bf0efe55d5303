"""What a labelling tool has to do for a round: take requests, tell progress, hand over answers.

The oracle, CSV files and Label Studio are such providers; `labeling.provider` can name a class of
your own as ``package.module:Class``, which is called with the loop's configuration and its lake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

DONE, SKIPPED, DRAFT = "done", "skipped", "draft"


@dataclass(frozen=True)
class Box:
    """An object, in pixels of the stored image.

    Attributes:
        x_min: Left edge.
        y_min: Upper edge.
        x_max: Right edge.
        y_max: Lower edge.
        label: Its class.
        confidence: The model's, null where a person drew it.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    label: str
    confidence: float | None = None


@dataclass(frozen=True)
class Ask:
    """One sample that people are asked about.

    Attributes:
        sample_id: The sample.
        uri: Where its media lies.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        purpose: ``training``, ``holdout``, ``relabel`` or ``audit``.
        rank: Place in the order in which people should see them, from 0.
        reason: Why it was picked, in a sentence.
        answers: How many different people have to answer.
        label: What the current model takes it for, null where it says nothing or people must not be
            led by it.
        confidence: Of that label, in [0, 1].
        boxes: What the current model sees in it; null where it is no detector.
        model_id: The model that says so.
        metadata: What else people should see: the columns that ``labeling.show`` names.
    """

    sample_id: str
    uri: str
    width: int
    height: int
    purpose: str
    rank: int
    reason: str = ""
    answers: int = 1
    label: str | None = None
    confidence: float | None = None
    boxes: tuple[Box, ...] | None = None
    model_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """One person's answer about one sample.

    Attributes:
        external_id: What the tool calls the answer; the same as long as it is the same answer.
        sample_id: The sample.
        annotator: Who answered, as the tool calls them.
        state: ``done``, ``skipped`` (cannot be labelled) or ``draft`` (not finished).
        label: Class of the image; null where there is none.
        boxes: Objects; null where nobody looked for any, empty where there is none.
        seconds: Time that it took, null where the tool does not say.
        prelabel: What the model had put there, null where nothing.
        created_at: When it was given, in UTC.
        updated_at: When it was last changed, in UTC.
    """

    external_id: str
    sample_id: str
    annotator: str
    state: str
    label: str | None
    boxes: tuple[Box, ...] | None
    seconds: float | None
    prelabel: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Rejected:
    """An answer that cannot be used.

    Attributes:
        external_id: What the tool calls it.
        sample_id: The sample, as far as it is known.
        reason: ``unknown_class``, ``outside``, ``unknown_sample``, ``erased``, ``empty`` or
            ``malformed``.
        detail: What exactly, for people.
        annotator: Who gave it, as the tool calls them; empty where it does not say.
        seconds: Time that it took, null where the tool does not say.
        created_at: When it was given, in UTC; null where the tool does not say.
        updated_at: When it was last changed, in UTC; null where the tool does not say.
    """

    external_id: str
    sample_id: str
    reason: str
    detail: str
    annotator: str = ""
    seconds: float | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True)
class Collected:
    """What a tool holds of a round's requests.

    Attributes:
        samples: Samples whose answers are listed here whole: what was stored of them before and
            is not among `annotations` was taken back.
        annotations: Their answers.
        rejected: Answers that cannot be used.
        gone: Samples whose requests the tool no longer has.
        cursor: Handed to the next `collect`, which may then leave out what did not change; empty
            where the provider always lists everything.
        where: What a person should open to see the rest.
    """

    samples: frozenset[str]
    annotations: Sequence[Annotation]
    rejected: Sequence[Rejected] = ()
    gone: frozenset[str] = frozenset()
    cursor: str = ""
    where: str = ""


@dataclass(frozen=True)
class Progress:
    """How far people are, as cheaply as the tool can tell.

    Attributes:
        answered: Requests that have all their answers, skips included.
        requested: Requests that the tool has.
        where: What a person should open.
    """

    answered: int
    requested: int
    where: str = ""


class LabelingProvider(Protocol):
    """A labelling tool. Every method may be called again after a failure in its middle.

    Each raises `InputError` for what the user can mend (a wrong token, a project that was deleted)
    and `VisionloopError` where the tool does not answer.
    """

    def request(self, round_id: str, asks: Sequence[Ask]) -> dict[str, str]:
        """Hand over requests; those that the tool already has are not made twice.

        Where people disagree about a sample it is handed over again, with more `answers`.

        Args:
            round_id: The round.
            asks: Requests of the round that are open, in the order of their rank; a list of
                answers, such as a CSV file, is handed all of them.

        Returns:
            What the tool calls each request, by sample id.
        """
        ...

    def poll(self, round_id: str, requests: Mapping[str, str]) -> Progress:
        """Tell how far people are.

        Args:
            round_id: The round.
            requests: What `request` returned.
        """
        ...

    def collect(self, round_id: str, requests: Mapping[str, str], cursor: str) -> Collected:
        """Return what was answered since the cursor.

        Args:
            round_id: The round.
            requests: What `request` returned.
            cursor: Of the last collection of this round that was stored; empty for all.
        """
        ...

    def recall(self, round_id: str, requests: Mapping[str, str]) -> list[str]:
        """Take requests back; one that somebody has answered or begun to answer stays.

        Args:
            round_id: The round.
            requests: Those to take back.

        Returns:
            The samples of those that are gone now.
        """
        ...


class ProviderFactory(Protocol):
    """Makes a provider: what ``package.module:Class`` names."""

    def __call__(self, config: LoopConfig, lake: Lake) -> LabelingProvider:
        """Return the provider of a loop."""
        ...
