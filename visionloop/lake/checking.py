"""Checks a lake: every reference resolves, every count reconciles, nothing is there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.lake.catalog import catalog_errors

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was checked.
        checked: How many things were looked at.
        broken: How many of them are wrong.
        examples: The first of those, each with what is wrong with it.
        remedy: What to do; empty where nothing is wrong.
    """

    check: str
    checked: int
    broken: int = 0
    examples: list[str] = field(default_factory=list)
    remedy: str = ""

    @property
    def state(self) -> str:
        """``ok`` or ``broken``."""
        return "broken" if self.broken else "ok"


def finding(check: str, checked: int, wrong: Sequence[str], remedy: str) -> Finding:
    """Return a finding of what is wrong, with the first few as examples.

    Args:
        check: Name of the check.
        checked: How many were looked at.
        wrong: What is wrong, one text each.
        remedy: What to do about it.
    """
    return Finding(check, checked, len(wrong), list(wrong[:EXAMPLES]), remedy if wrong else "")


def check(lake: Lake, *, advance: Callable[[Finding], None] = lambda found: None) -> list[Finding]:
    """Check a loop's newest version, its history and the files that its rows name.

    Nothing is changed. It costs a read of every row and of every model, and a listing of every
    source.

    Args:
        lake: The lake.
        advance: Called with each finding as it is made.

    Returns:
        One finding for each check, those that found nothing wrong too.
    """
    from visionloop.lake import checking_files, checking_rows

    found: list[Finding] = []

    def keep(findings: Iterable[Finding]) -> None:
        for one in findings:
            found.append(one)
            advance(one)

    version = lake.version()
    if not version:
        keep([Finding("versions", 0)])
        return found
    with catalog_errors(lake.place):
        keep(checking_files.tables_of_versions(lake))
        if any(one.broken for one in found):
            # A row that cannot be read cannot be checked: that is no second fault.
            return found
        keep(checking_rows.rows(lake, version))
        keep(checking_files.media(lake, version))
        keep(checking_files.models(lake, version))
        keep([checking_files.erasures(lake)])
    return found
