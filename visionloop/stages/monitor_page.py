"""The monitor's Markdown page: what is new, the worst first, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table, markdown_text
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.monitoring.unjudged import Unjudged

# Examples shown of each kind, and in all; every kind is shown at least once.
_OF_KIND, _IN_ALL = 5, 60


def monitor_page(
    lake: Lake,
    version: str,
    new: Sequence[dict[str, Any]],
    sections: Sequence[str],
    not_judged: Sequence[Unjudged] = (),
) -> str:
    """Return the page.

    Args:
        lake: The lake, for the names of files.
        version: The lake's version after the monitor.
        new: Rows of ``flags`` that are new.
        sections: What the parts of the monitor tell, in order.
        not_judged: What there was too little of to be judged.
    """
    parts = ["# Checks\n", "## New flags\n"]
    if new:
        by_kind = _by_severity(new)
        parts.append(_counts(by_kind))
        shown = [row for rows in _examples(list(by_kind.values())) for row in rows]
        parts.append("\n" + _table(lake, version, shown))
        if len(shown) < len(new):
            left = len(new) - len(shown)
            parts.append(f"\n{counted(left, 'more flag is', 'more flags are')} in the lake.")
    else:
        parts.append("Nothing new was flagged.")
    parts += _standing(lake, version, new)
    parts += _not_judged(not_judged)
    return "\n".join(parts) + "\n\n" + "\n".join(section for section in sections if section)


def _standing(lake: Lake, version: str, new: Sequence[dict[str, Any]]) -> list[str]:
    """Return how many flags stand that earlier monitors found, by kind; nothing where none do."""
    from visionloop.monitoring.kinds import KINDS

    held = lake.read("flags", columns=["kind"], version=version)["kind"].to_pylist()
    stand = Counter(kind for kind in held if kind in KINDS and KINDS[kind].standing)
    stand -= Counter(row["kind"] for row in new)
    if not stand:
        return []
    told = (f"{KINDS[kind].title}: {n:,}" for kind, n in sorted(stand.items()))
    return [f"\nStanding from before: {'; '.join(told)}."]


def _not_judged(not_judged: Sequence[Unjudged]) -> list[str]:
    from visionloop.monitoring.unjudged import title_of

    rows = [(markdown_text(title_of(one)), markdown_text(one.text)) for one in not_judged]
    if not rows:
        return []
    return ["\n## Not judged: too few to say\n", markdown_table(["flag", "why"], rows)]


def _by_severity(new: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the flags by kind: the severest kinds first, of each the worst flags first."""
    from visionloop.monitoring.kinds import SEVERITIES, kind_of

    found: dict[str, list[dict[str, Any]]] = {}
    for row in new:
        found.setdefault(row["kind"], []).append(row)
    order = sorted(
        found, key=lambda name: (-SEVERITIES.index(kind_of(name).severity), -len(found[name]), name)
    )
    return {name: sorted(found[name], key=_badness) for name in order}


def _badness(row: dict[str, Any]) -> tuple[float, str]:
    """Return what sorts the worst first: the score that is farthest from its threshold."""
    if row["score"] is None or row["threshold"] is None:
        return 0.0, row["subject"]
    return -abs(row["score"] - row["threshold"]), row["subject"]


def _examples(kinds: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Return the first flags of each kind, fewer of each where there are many kinds."""
    each = max(1, min(_OF_KIND, _IN_ALL // max(1, len(kinds))))
    return [rows[:each] for rows in kinds]


def _counts(by_kind: dict[str, list[dict[str, Any]]]) -> str:
    from visionloop.monitoring.kinds import kind_of

    rows = [
        (kind_of(name).severity, kind_of(name).title, len(rows), kind_of(name).remedy)
        for name, rows in by_kind.items()
    ]
    return markdown_table(["severity", "what", "new flags", "what to do"], rows)


def _table(lake: Lake, version: str, shown: Sequence[dict[str, Any]]) -> str:
    from visionloop.monitoring.kinds import kind_of
    from visionloop.monitoring.telling import evidence_lines

    names, upcoming = _names(lake, version, shown), lake.rounds.upcoming()
    rows = [
        (
            kind_of(row["kind"]).title,
            names.get(row["subject"], row["subject"]),
            "; ".join(evidence_lines(row, upcoming)),
        )
        for row in shown
    ]
    return markdown_table(
        ["what", "of", "evidence"], [tuple(map(markdown_text, row)) for row in rows]
    )


def _names(lake: Lake, version: str, shown: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the file names of samples and files; what else is flagged bears its name already."""
    from pyiceberg.expressions import In

    from visionloop.monitoring.telling import file_name

    names = {row["subject"]: file_name(row["subject"]) for row in shown if _of(row, "file")}
    ids = sorted({row["subject"] for row in shown if _of(row, "sample")})
    if ids:
        where = In(term="sample_id", literals=ids)
        found = lake.read("samples", columns=["sample_id", "uri"], where=where, version=version)
        names |= {row["sample_id"]: file_name(row["uri"] or "") for row in found.to_pylist()}
    return {subject: name for subject, name in names.items() if name}


def _of(row: dict[str, Any], subject_type: str) -> bool:
    return bool(row["subject_type"] == subject_type)
