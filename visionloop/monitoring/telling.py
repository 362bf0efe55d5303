"""The evidence of a flag in words and units, for pages, lines and messages alike."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from visionloop.monitoring.findings import SINCE
from visionloop.words import in_round

# What is told apart from the rest, or is for programs.
_APART = {"reference", "unit", "images", "measure", "rule", "problems", "model_id", "original",
          "sample_id", "uri", "told_by", "probabilities", "posterior", "votes",
          "confident_learning", "level", "look", "population", SINCE}  # fmt: skip
_LONGEST = 160
# Beyond so many digits two numbers are the same to whoever reads them.
_MOST_DIGITS = 5
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


def measured(value: float, unit: str, more: int = 0) -> str:
    """Return a number with its unit, shares in percent.

    Args:
        value: The number.
        unit: Its unit; empty for none.
        more: Digits more than usual.
    """
    if unit in ("share", "probability"):
        small = abs(value) < 0.001 and value != 0
        return f"{value:.{2 + more}g}" if small else f"{value:.{1 + more}%}"
    large = abs(value) >= 1000
    number = f"{value:,.{more}f}" if large else f"{value:.{3 + more}g}"
    return f"{number} {unit}".rstrip()


def measured_apart(value: float, threshold: float, unit: str) -> tuple[str, str]:
    """Return a number and its threshold with their unit, and the digits that tell them apart.

    Args:
        value: The number.
        threshold: What it was held against.
        unit: Unit of both; empty for none.
    """
    said = measured(value, unit), measured(threshold, unit)
    for more in range(1, _MOST_DIGITS):
        if said[0] != said[1] or value == threshold:
            return said
        said = measured(value, unit, more), measured(threshold, unit, more)
    return said


def evidence_lines(row: Mapping[str, Any], upcoming: str = "") -> list[str]:
    """Return what a flag rests on, the most telling first; neither ids nor raw JSON.

    Args:
        row: A row of ``flags``.
        upcoming: Id of the round that comes next, see `visionloop.words.round_name`.
    """
    evidence = evidence_of(row)
    lines = _special(row, evidence)
    if row["score"] is not None and row["kind"] not in _WITHOUT_SCORE:
        lines.append(_score(row, evidence))
    lines += [
        _named(name, value, upcoming)[:_LONGEST]
        for name, value in evidence.items()
        if name not in _APART and name not in _SPECIAL.get(row["kind"], ()) and _is_plain(value)
    ]
    if evidence.get("reference"):
        lines.append(f"compared with {evidence['reference']}"[:_LONGEST])
    return lines


def _score(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    value = row["score"]
    unit, comma, span = str(evidence.get("unit") or "").partition(", ")
    name = str(evidence.get("measure") or "").replace("_", " ")
    if comma:  # `likeness, 0 to 1`: a name and its span, rather than a unit
        name, unit = name or unit, ""
    elif len(unit) > _SHORT_UNIT:  # said once: twice it would bury the two numbers
        unit, span = "", unit
    if row["threshold"] is None:
        line = f"{name} {measured(value, unit)}".strip()
    else:
        score, threshold = measured_apart(value, row["threshold"], unit)
        line = f"{name} {score}, threshold {threshold}".strip()
    return f"{line} ({span})" if span else line


# How sure an answer was, of the two kinds that rest on it.
_SURE = ("as_answered", "calibrated", "as_answered_threshold")
# What `_special` tells of a kind.
_SPECIAL = {
    "label_suspect": ("label", "suggested", "holdout"),
    "exact_duplicate": ("original_uri",),
    "pixel_duplicate": ("original_uri",),
    "near_duplicate": ("original_uri", "bits"),
    "semantic_duplicate": ("original_uri",),
    "attached_data": ("attached",),
    "unreadable": ("reason", "detail"),
    "confident_disagreement": ("label", "answered", *_SURE),
    "stale_label": ("label", "answered", "why", *_SURE),
    "failed_stage": ("what", "where", "remedy"),
}
_WITHOUT_SCORE = ("unreadable", "label_conflict", "exact_duplicate", "pixel_duplicate",
                  "failed_stage", "label_suspect", "confident_disagreement")  # fmt: skip


def _special(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    kind = row["kind"]
    lines: list[str] = []
    if kind == "label_suspect":
        lines += _suspected(row, evidence)
    elif kind in ("confident_disagreement", "stale_label"):
        lines.append(f"labelled {evidence.get('label')}, answered {evidence.get('answered')}")
        lines += [str(evidence.get("why") or ""), _sure(row, evidence)]
    elif kind == "failed_stage":
        lines += [str(evidence.get(name) or "") for name in ("what", "remedy")]
        lines.append(f"{row['score']:.0f} {evidence.get('unit')} since it succeeded")
    elif kind == "unreadable":
        said = [str(evidence[name]) for name in ("reason", "detail") if evidence.get(name)]
        lines += [one.replace("_", " ")[:_LONGEST] for one in said]
    elif kind == "attached_data":
        lines.append(f"{evidence.get('attached')} behind the picture")
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


def _suspected(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    label, suggested = evidence.get("label"), evidence.get("suggested")
    lines = [f"labelled {label}, likelier {suggested}"]
    if row["score"] is not None and row["threshold"] is not None:
        given, rival = measured_apart(row["score"], row["threshold"], "probability")
        lines.append(
            f"the label has a probability of {given}, {suggested} one of {rival}: a label is "
            "doubted where another class is likelier"
        )
    return lines


def _sure(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """Return how sure an answer was: as it was given, and calibrated on the holdout."""
    raw, calibrated = evidence.get("as_answered"), evidence.get("calibrated")
    if raw is None or calibrated is None:
        return ""
    least = evidence.get("as_answered_threshold")
    given, limit = measured(raw, "share"), ""
    if least is not None:
        given, limit = measured_apart(raw, least, "share")
    if row["kind"] != "confident_disagreement" or row["threshold"] is None:
        return (
            f"{given} sure as answered, {measured(calibrated, 'share')} calibrated on the holdout"
        )
    score, threshold = measured_apart(calibrated, row["threshold"], "share")
    said = f"{given} sure as answered, {score} calibrated on the holdout, threshold {threshold}"
    return f"{said}, and of equal ones those above {limit} as answered" if limit else said


def _named(name: str, value: Any, upcoming: str) -> str:
    if name.endswith("_in_round"):
        when = in_round(str(value), upcoming)
        return f"{name.removesuffix('_in_round').replace('_', ' ')} {when}"
    return f"{name.replace('_', ' ')}: {_plain(value)}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
