"""Classes that labels or replies name, and that the loop or its model does not know."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Named:
    """Where a class was named.

    Attributes:
        label: The class.
        where: ``labels``, ``answers that were refused``, or ``replies of <endpoint>``.
        samples: Ids of the samples that it was said of, where they are known.
        n: How often it was said.
    """

    label: str
    where: str
    samples: tuple[str, ...]
    n: int


@dataclass(frozen=True)
class Unseen:
    """A class that is none of those known.

    Attributes:
        label: The class.
        unknown_to: ``the loop``, or ``the model in service``.
        known: The classes that it was looked for among.
        named: Where it was named, most often first.
    """

    label: str
    unknown_to: str
    known: tuple[str, ...]
    named: tuple[Named, ...] = field(default=())

    @property
    def n(self) -> int:
        """How often it was said."""
        return sum(one.n for one in self.named)

    @property
    def samples(self) -> list[str]:
        """Ids of the samples that it was said of, each once."""
        return list(dict.fromkeys(sample for one in self.named for sample in one.samples))


def unseen_classes(
    named: Iterable[Named], classes: Collection[str], learned: Collection[str]
) -> list[Unseen]:
    """Return the classes that are named somewhere and known nowhere, by name.

    A class that the loop has and the model in service has never learned is told of only where
    people's labels name it: the model itself cannot.

    Args:
        named: Where classes were named.
        classes: The loop's classes; empty where the labels tell them.
        learned: The classes of the model in service; empty for none.
    """
    by_class: dict[str, list[Named]] = {}
    for one in named:
        if one.n:
            by_class.setdefault(one.label, []).append(one)
    found = []
    for label, places in sorted(by_class.items()):
        told = tuple(sorted(places, key=lambda one: (-one.n, one.where)))
        if classes and label not in classes:
            found.append(Unseen(label, "the loop", tuple(classes), told))
        elif learned and label not in learned:
            found.append(Unseen(label, "the model in service", tuple(learned), told))
    return found
