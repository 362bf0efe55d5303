"""What is known of a kind of flag, whatever its subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Kind:
    """A kind of flag, in words that pages, metrics and notifications share.

    Attributes:
        name: As it stands in the table ``flags``.
        title: A short heading.
        about: What it speaks of, the group that a page puts it in: ``pictures``, ``metadata``,
            ``labels``, ``drift``, ``models`` or ``loop``.
        severity: ``info`` (good to know), ``warning`` (look at it) or ``error`` (act on it).
        standing: Whether it states how things are now, and is withdrawn when they are so no more;
            otherwise it was found of one subject once, and stays.
        meaning: What it says, in one or two sentences.
        remedy: What a person can do.
    """

    name: str
    title: str
    about: str
    severity: Severity
    standing: bool
    meaning: str
    remedy: str
