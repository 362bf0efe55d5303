"""The evidence of a flag in words and units, for pages, lines and messages alike."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

# What is told apart from the rest, or is for programs.
_APART = {"reference", "unit", "images", "measure", "rule", "problems", "model_id", "original",
          "sample_id", "uri", "told_by", "probabilities", "posterior", "votes",
          "confident_learning", "level", "look", "population"}  # fmt: skip
_LONGEST = 160
_SHORT_UNIT = 16
# The id of a sample within a sentence of another stage.
_ID = re.compile(r",? \b[0-9a-f]{40,64}\b")


def file_name(uri: str) -> str:
    """Return the last part of a URI, as a person reads it."""
    return unquote(uri.rstrip("/").rpartition("/")[2])


def evidence_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evidence of a row of ``flags``; empty where there is none."""
    held = json.loads(row["evidence"]) if row["evidence"] else {}
    return held if isinstance(held, dict) else {"problem": held}


def measured(value: float, unit: str) -> str:
    """Return a number with its unit, shares in percent.

    Args:
        value: The number.
        unit: Its unit; empty for none.
    """
    if unit in ("share", "probability"):
        return f"{value:.1%}" if abs(value) >= 0.001 or value == 0 else f"{value:.2g}"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def evidence_lines(row: Mapping[str, Any]) -> list[str]:
    """Return what a flag rests on, the most telling first; neither ids nor raw JSON.

    Args:
        row: A row of ``flags``.
    """
    evidence = evidence_of(row)
    lines = _special(row, evidence)
    if row["score"] is not None and row["kind"] not in _WITHOUT_SCORE:
        lines.append(_score(row, evidence))
    lines += [
        f"{name.replace('_', ' ')}: {_plain(value)}"[:_LONGEST]
        for name, value in evidence.items()
        if name not in _APART and name not in _SPECIAL.get(row["kind"], ()) and _is_plain(value)
    ]
    if evidence.get("reference"):
        lines.append(f"compared with {evidence['reference']}"[:_LONGEST])
    return lines


def _score(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    unit, comma, span = str(evidence.get("unit") or "").partition(", ")
    name = str(evidence.get("measure") or "").replace("_", " ")
    if comma:  # `likeness, 0 to 1`: a name and its span, rather than a unit
        name, unit = name or unit, ""
    elif len(unit) > _SHORT_UNIT:  # said once: twice it would bury the two numbers
        unit, span = "", unit
    line = f"{name} {measured(row['score'], unit)}".strip()
    if row["threshold"] is not None:
        line += f", threshold {measured(row['threshold'], unit)}"
    return f"{line} ({span})" if span else line


# What `_special` tells of a kind.
_SPECIAL = {
    "label_suspect": ("label", "suggested", "holdout"),
    "exact_duplicate": ("original_uri",),
    "pixel_duplicate": ("original_uri",),
    "near_duplicate": ("original_uri", "bits"),
    "semantic_duplicate": ("original_uri",),
    "attached_data": ("attached",),
    "bad_metadata": ("problem",),
    "unreadable": ("reason", "detail"),
    "confident_disagreement": ("label", "answered"),
    "stale_label": ("label", "answered", "why"),
    "failed_stage": ("what", "where", "remedy"),
}
_WITHOUT_SCORE = ("unreadable", "label_conflict", "exact_duplicate", "pixel_duplicate",
                  "failed_stage")  # fmt: skip


def _special(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    kind = row["kind"]
    lines: list[str] = []
    if kind == "label_suspect":
        lines.append(f"labelled {evidence.get('label')}, likelier {evidence.get('suggested')}")
    elif kind in ("confident_disagreement", "stale_label"):
        lines.append(f"labelled {evidence.get('label')}, answered {evidence.get('answered')}")
        lines.append(str(evidence.get("why") or ""))
    elif kind == "failed_stage":
        lines += [str(evidence.get(name) or "") for name in ("what", "remedy")]
        lines.append(f"{row['score']:.0f} {evidence.get('unit')} since it succeeded")
    elif kind == "unreadable":
        said = [str(evidence[name]) for name in ("reason", "detail") if evidence.get(name)]
        lines += [one.replace("_", " ")[:_LONGEST] for one in said]
    elif kind == "attached_data":
        lines.append(f"{evidence.get('attached')} behind the picture")
    elif kind == "bad_metadata":
        lines.append(str(evidence.get("problem", "")))
    elif kind == "label_conflict" and isinstance(evidence.get("votes"), dict):
        # Without the names: pages are handed around, and `visionloop labels status` has them.
        said_by = Counter(str(one) for one in evidence["votes"].values())
        lines += [f"{one}: {n}" for one, n in said_by.most_common()]
    elif kind.endswith("_duplicate"):
        original = evidence.get("original_uri") or evidence.get("original") or ""
        lines.append(f"the same as {file_name(str(original))}")
        if "bits" in evidence:
            lines.append(f"{evidence['bits']} of 256 bits of the fingerprints differ")
    lines += [str(one)[:_LONGEST] for one in evidence.get("problems") or ()]
    return [_ID.sub("", line) for line in lines if line]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
