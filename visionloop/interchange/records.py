"""The one form between all formats: an image, and what somebody or something said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Examples of each kind of problem that are kept; all of them are counted, and told to who listens.
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Box:
    """One object.

    Attributes:
        x_min: Left edge in pixels of the image, 0 being the image's own left edge.
        y_min: Upper edge.
        x_max: Right edge, beyond the last pixel: a box of one pixel is 1 wide.
        y_max: Lower edge.
        label: Its class.
        score: How sure whoever found it is, None where nobody said.
        scores: Its score for each class of the set, in the order of `Reading.classes`; mostly
            empty.
        attributes: What else is said of it, such as ``difficult``.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    label: str
    score: float | None = None
    scores: tuple[float, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Annotated:
    """One image and its annotations.

    Attributes:
        file: The image's name as the set calls it, with slashes.
        uri: Where its bytes lie; empty where they were not found.
        sample_id: SHA-256 of its bytes, empty where the set does not say.
        width: Pixels, 0 where the set does not say.
        height: Pixels.
        labels: Classes of the whole image, mostly one.
        score: How sure whoever labelled it is of the first label.
        probabilities: Probability of each class of the set, in the order of `Reading.classes`.
        boxes: Objects; None where nobody looked for any, which is not the same as none.
        metadata: What else is known: text, numbers, booleans.
        split: The part of the set that it belongs to, such as ``train``.
        origin: Who annotated it.
        seconds: For how long they looked at it; None where nobody says.
        untouched: Whether the tool says that nobody changed what a model or a file had put there.
    """

    file: str
    uri: str = ""
    sample_id: str = ""
    width: int = 0
    height: int = 0
    labels: tuple[str, ...] = ()
    score: float | None = None
    probabilities: tuple[float, ...] = ()
    boxes: tuple[Box, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    split: str = ""
    origin: str = ""
    seconds: float | None = None
    untouched: bool = False

    @property
    def annotated(self) -> bool:
        """Whether anybody said anything about what is in it."""
        return bool(self.labels) or self.boxes is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a set that is not as it should be.

    Attributes:
        kind: What it is, in one word.
        file: The file that it stands in, or that it is about.
        field: The place in that file.
        detail: What stands there.
    """

    kind: str
    file: str
    field: str = ""
    detail: str = ""

    def __str__(self) -> str:
        """Return one line for a person."""
        place = f"{self.file}, {self.field}" if self.field else self.file
        return f"{self.kind}: {place}" + (f": {self.detail}" if self.detail else "")


class Problems:
    """Counts what is wrong, keeps examples, and stops nothing.

    Args:
        tell: Called with every problem, for a list of all.

    Attributes:
        counts: Number of problems of each kind.
        examples: The first problems of each kind.
        boxes: Boxes that were met: ``found`` = ``kept`` + those of each reason to drop one.
    """

    def __init__(self, tell: Callable[[Problem], None] | None = None) -> None:
        self._tell = tell
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Problem]] = {}
        self.boxes: Counter[str] = Counter()

    def add(self, kind: str, file: str, field: str = "", detail: str = "") -> None:
        """Note a problem.

        Args:
            kind: What it is, in one word.
            file: The file that it stands in, or that it is about.
            field: The place in that file.
            detail: What stands there.
        """
        problem = Problem(kind, file, field, detail[:300])
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(problem)
        if self._tell is not None:
            self._tell(problem)

    def drop_box(self, kind: str, file: str, field: str = "", detail: str = "") -> None:
        """Note a box that was found and is not kept.

        Args:
            kind: What it is, in one word.
            file: The file that it stands in, or that it is about.
            field: The place in that file.
            detail: What stands there.
        """
        self.boxes["found"] += 1
        self.boxes[kind] += 1
        self.add(kind, file, field, detail)

    def lines(self) -> list[str]:
        """Return the counts and their first example, a line each, for a person."""
        return [
            f"{count:,} {kind.replace('_', ' ')}: for example {self.examples[kind][0]}"
            for kind, count in sorted(self.counts.items())
        ]


@dataclass
class Reading:
    """A set that is being read.

    Attributes:
        format: Name of its format.
        uri: Where it lies.
        problems: Filled while the records are read.
        records: The records, once.
        classes: Names of its classes in the set's own order, where it has one: complete when the
            last record was read.
    """

    format: str
    uri: str
    problems: Problems
    records: Iterator[Annotated]
    classes: list[str]

    def __iter__(self) -> Iterator[Annotated]:
        """Return the records."""
        return self.records
