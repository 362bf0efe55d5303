"""The funnel through all stages, as plain values that have to add up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Some of a step's items, by what became of them.

    Attributes:
        name: In words, such as "further copies of a picture".
        n: How many.
    """

    name: str
    n: int


@dataclass(frozen=True)
class Step:
    """One step of the funnel.

    Attributes:
        key: Its name for machines: ``found``, ``checked``, ``samples``, ``pool``, ``embedded``,
            ``predicted``, ``selectable``, ``selected``, ``requested``, ``answered``, ``trained``;
            ``logged``, ``harvested``, ``inferences``, ``linked`` for events.
        title: In words, such as "Pictures in the lake".
        unit: What is counted: files, pictures, requests, labels, events, inferences.
        n: How many reached this step.
        of: How many could have; None at the beginning.
        source: Key of the step that ``of`` counts.
        entered: Those that joined from elsewhere, by where from.
        rest: Those that did not reach the step, by why.
        kept: Those that did, by what they are; may be empty, otherwise it adds up to ``n``.
        note: A sentence on what is counted, "" for none.
    """

    key: str
    title: str
    unit: str
    n: int
    of: int | None = None
    source: str = ""
    entered: tuple[Part, ...] = ()
    rest: tuple[Part, ...] = ()
    kept: tuple[Part, ...] = ()
    note: str = ""

    @property
    def missing(self) -> int:
        """Items that no reason accounts for; 0 where the step adds up."""
        if self.of is None:
            return 0
        came = self.of + sum(part.n for part in self.entered)
        return came - self.n - sum(part.n for part in self.rest)

    @property
    def adds_up(self) -> bool:
        """Whether all that came is accounted for, and by a count that is not negative."""
        parts = (*self.entered, *self.rest, *self.kept)
        inside = not self.kept or sum(part.n for part in self.kept) == self.n
        return self.missing == 0 and inside and all(part.n >= 0 for part in parts)


@dataclass(frozen=True)
class Account:
    """The funnel of one round, or of all.

    Attributes:
        round_id: The round; "" for all rounds together.
        steps: From files found to labels learned from.
        events: From logged events to inferences on pictures of the lake; () without a harvest.
    """

    round_id: str = ""
    steps: tuple[Step, ...] = ()
    events: tuple[Step, ...] = ()

    @property
    def adds_up(self) -> bool:
        """Whether every step does."""
        return all(step.adds_up for step in (*self.steps, *self.events))

    def step(self, key: str) -> Step | None:
        """Return the step of a name, None where there is none."""
        return next((one for one in (*self.steps, *self.events) if one.key == key), None)


def parts(*pairs: tuple[str, int]) -> tuple[Part, ...]:
    """Return the parts that are not empty; a negative one is kept, so that it shows."""
    return tuple(Part(name, n) for name, n in pairs if n)
