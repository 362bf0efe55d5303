"""What each source brought: its newest images beside those that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.words import counted, round_name

UNNAMED = "images without a source"
# So many of the latest rounds that a model learned from are looked at one by one.
_PARTS = 8


@dataclass(frozen=True)
class Part:
    """A part of a reference that is enough by itself.

    Attributes:
        rows: Rows of ``samples``.
        reference: What they are, in words.
    """

    rows: NDArray[np.intp]
    reference: str


@dataclass(frozen=True)
class Arrivals:
    """What one source brought.

    Attributes:
        source: Its URI, as it stands in ``samples``.
        name: Its name: the last part of the URI, more where two sources share that.
        newest: Rows of ``samples`` that came last, intp [m].
        before: Rows that they are compared with, intp [n].
        rounds: The rounds that brought the newest, ascending.
        reference: What `before` is, in words; empty where there is nothing.
        look: Which look at this reference it is, from 1 on.
        new: Whether the model in service learned from other sources only.
        reason: Why nothing can be compared; empty where something can.
        parts: What the model learned one by one, rounds of the source or other sources: images
            that are like any of these are not new to it, though they differ from all together.
    """

    source: str
    name: str
    newest: NDArray[np.intp]
    before: NDArray[np.intp]
    rounds: tuple[str, ...]
    reference: str
    look: int = 1
    new: bool = False
    reason: str = ""
    parts: tuple[Part, ...] = ()


def arrivals(
    sources: Sequence[str],
    of_source: NDArray[np.intp],
    rounds: Sequence[str],
    of_round: NDArray[np.intp],
    of_run: NDArray[np.intp],
    learned: NDArray[np.bool_] | None,
    *,
    least: int,
) -> list[Arrivals]:
    """Split what each source brought into its newest images and their reference.

    The reference is fixed while a model serves: all that the source had brought when the model in
    service learned from it. So slow change adds up, and what a model has been trained on is no
    drift any more: neither that window, nor another that is like one of the rounds that it learned
    from (`Arrivals.parts`). Before the first model it is all that came earlier. The newest are the
    latest rounds behind the reference, as many as are needed for `least` images.

    A source from which the model in service never learned is new. It is compared with all that the
    other sources had brought when the model learned from them.

    Args:
        sources: URIs of the sources.
        of_source: Number of the source of each row of ``samples``, [N].
        rounds: Ids of the rounds.
        of_round: Number of the round that brought each row, [N].
        of_run: Number of the run that brought each row, [N]: what a source brought has been looked
            at as often as runs brought it.
        learned: Whether the model in service learned from each row, [N]; None before the first.
        least: Images that make a window.

    Returns:
        One entry a source, in the order of their names.
    """
    names = source_names(sources)
    order = np.argsort(np.array(rounds, dtype=object), kind="stable")
    rank = np.empty(len(rounds), np.intp)
    rank[order] = np.arange(len(rounds))
    ids = [rounds[i] for i in order]
    when = rank[of_round]
    rows_of = {s: np.flatnonzero(of_source == s) for s in range(len(sources))}
    learned_rows = np.zeros(len(when), bool) if learned is None else learned
    # The last round of each source from which the model in service learned.
    ends = {
        s: int(when[rows[learned_rows[rows]]].max())
        for s, rows in rows_of.items()
        if learned_rows[rows].any()
    }
    known = {s: rows[when[rows] <= ends[s]] for s, rows in rows_of.items() if s in ends}
    found = []
    for s, rows in rows_of.items():
        if not len(rows):
            continue
        end = ends.get(s, -1)
        came = np.unique(when[rows[when[rows] > end]])
        # Before the first model something has to be left to compare with.
        newest = _newest(when[rows], came if ends else came[1:], least)
        parts: list[Part] = []
        if not ends:
            before = rows[when[rows] < newest.min()] if len(newest) else rows[:0]
            told = "all that came before"
        elif s in ends:
            before = rows[when[rows] <= end]
            parts = [
                Part(
                    part,
                    f"{counted(len(part), 'image')} of {names[s]} from {round_name(ids[number])}",
                )
                for number in reversed(np.unique(when[rows[learned_rows[rows]]]))
                if len(part := rows[when[rows] == number]) >= least
            ]
            told = "all that had come when the model in service learned from it"
        else:
            before = np.concatenate(list(known.values()))
            parts = [
                Part(part, f"{counted(len(part), 'image')} of {names[other]}")
                for other, part in known.items()
                if len(part) >= least
            ]
            told = ""
        new = bool(ends) and s not in ends
        if new:
            learned_from = counted(len(ends), "source")
            reference = (
                f"{counted(len(before), 'image')} of the {learned_from} that the model in service "
                "learned from"
            )
        else:
            span = _span([ids[i] for i in np.unique(when[before])])
            reference = f"{counted(len(before), 'image')} of {names[s]} from {span}, {told}"
        after = rows[when[rows] > (end if ends else when[rows].min())]
        found.append(
            Arrivals(
                sources[s],
                names[s],
                rows[np.isin(when[rows], newest)],
                before,
                tuple(ids[i] for i in newest),
                reference if len(before) else "",
                max(1, len(np.unique(np.stack([when[after], of_run[after]]), axis=1).T)),
                new,
                _reason(len(newest), bool(ends)),
                tuple(parts[:_PARTS]),
            )
        )
    return sorted(found, key=lambda one: one.name)


def source_names(sources: Sequence[str]) -> list[str]:
    """Return a name for each source: the last part of its URI, more where two share that.

    Args:
        sources: Different URIs; an empty one is of images that came from no source.
    """
    parts = [source.rstrip("/").split("/") for source in sources]
    names = []
    for own in parts:
        if own == [""]:
            names.append(UNNAMED)
            continue
        length = 1
        while length < len(own) and sum(one[-length:] == own[-length:] for one in parts) > 1:
            length += 1
        names.append("/".join(own[-length:]))
    return names


def _newest(when: NDArray[np.intp], came: NDArray[np.intp], least: int) -> NDArray[np.intp]:
    """Return the latest rounds that brought enough together, ascending; all where none do."""
    counts = np.bincount(when, minlength=1)
    total, take = 0, 0
    while take < len(came) and total < least:
        take += 1
        total += int(counts[came[-take]])
    return came[len(came) - take :]


def _span(rounds: Sequence[str]) -> str:
    if len(rounds) < 2:
        return round_name(rounds[0]) if rounds else "no round"
    return f"{round_name(rounds[0])} to {round_name(rounds[-1])}"


def _reason(n_newest: int, has_learned: bool) -> str:
    if n_newest:
        return ""
    if has_learned:
        return "nothing has come since the model in service learned from this source"
    return "these are its first images"
