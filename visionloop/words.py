"""Words that several commands and pages tell things with."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return ``1 image`` or ``1,200 images``.

    Args:
        number: How many.
        one: The word for one.
        many: The word for another number; empty appends an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def round_number(round_id: str, upcoming: str = "") -> str:
    """Return a round's number, for where ``round`` stands beside it: ``3``, or ``after 2``.

    Args:
        round_id: Id of the round, such as ``0003``; one that is no number stays as it is.
        upcoming: Id of the round that comes next and was not opened yet. Work between two rounds
            carries it, and is told to be after the round before.
    """
    if not (round_id.isascii() and round_id.isdigit()):
        return round_id
    number = int(round_id)
    if round_id != upcoming:
        return str(number)
    return f"after {number - 1}" if number else "before 0"


def round_name(round_id: str, upcoming: str = "") -> str:
    """Return a round as people read it: ``round 3``, or ``after round 2``; "" for no round.

    Args:
        round_id: As in `round_number`.
        upcoming: As in `round_number`.
    """
    said = round_number(round_id, upcoming)
    when, _, number = said.partition(" ") if round_id == upcoming else ("", "", said)
    return f"{when} round {number}".lstrip() if said else ""


def in_round(round_id: str, upcoming: str = "") -> str:
    """Return when something was, as people read it: ``in round 3``, or ``after round 2``.

    Args:
        round_id: As in `round_number`.
        upcoming: As in `round_number`.
    """
    name = round_name(round_id, upcoming)
    return name if round_id == upcoming or not name else f"in {name}"


def round_id_of(text: str) -> str:
    """Return the id of a round that a person named: ``0003`` for ``3`` and for ``round 3``.

    Args:
        text: What was written; what names no number comes back as it is.
    """
    number = text.strip().lower().removeprefix("round").strip()
    return f"{int(number):04d}" if number.isascii() and number.isdigit() else text
