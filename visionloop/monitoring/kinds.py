"""The registry of all kinds of flags: pages, metrics and notifications take their words from it."""

from __future__ import annotations

from visionloop.errors import VisionloopError
from visionloop.monitoring.drift_kinds import DRIFT_KINDS
from visionloop.monitoring.kind import Kind, Severity
from visionloop.monitoring.loop_kinds import LOOP_KINDS
from visionloop.monitoring.sample_kinds import SAMPLE_KINDS

__all__ = ["KINDS", "SEVERITIES", "Kind", "Severity", "kind_of", "kinds_table"]

# From the least to the most severe.
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*SAMPLE_KINDS, *DRIFT_KINDS, *LOOP_KINDS)}


def kind_of(name: str) -> Kind:
    """Return what is known of a kind.

    Args:
        name: As it stands in the table ``flags``.

    Raises:
        VisionloopError: This visionloop knows no such kind.
    """
    try:
        return KINDS[name]
    except KeyError:
        raise VisionloopError(
            f"the lake holds flags of the kind {name!r}, which this visionloop does not know",
            remedy="Read the lake with the visionloop that wrote it, or with a newer one",
        ) from None


def kinds_table() -> str:
    """Return all kinds as the Markdown table of docs/monitoring.md."""
    lines = ["| kind | severity | stands | what it says | what to do |", "|---|---|---|---|---|"]
    for kind in KINDS.values():
        stands = "while it is so" if kind.standing else "for good"
        lines.append(
            f"| `{kind.name}` | {kind.severity} | {stands} | {kind.meaning} | {kind.remedy} |"
        )
    return "\n".join(lines) + "\n"
