"""The text of a first `loop.yaml`: short, with what was seen in the comments."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionloop.schema import SCHEMA_URL
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.media.survey import Survey

_BUDGET = 20
_PLAIN = re.compile(r"[A-Za-z~/.][\w~/.-]*(://[\w~/.-]+)?")
_LISTED = 12
_COMMENT_COLUMN = 34
_COMMENT_WIDTH = 64


@dataclass(frozen=True)
class LabelTable:
    """A CSV file that holds labels.

    Attributes:
        path: The file, as it is written into the configuration.
        rows: Rows with a label.
        images: Images looked at that a row names.
        classes: The labels, in alphabetical order.
    """

    path: str
    rows: int
    images: int
    classes: tuple[str, ...]


def draft(
    survey: Survey, *, name: str, source: str, labels: str, tables: tuple[LabelTable, ...]
) -> str:
    """Write a configuration.

    Args:
        survey: What lies in the source.
        name: Name of the loop.
        source: The source, as it is written into the configuration.
        labels: ``none``, ``folder`` or the path of one of `tables`.
        tables: Tables of labels that were found.

    Returns:
        YAML text.
    """
    parts = [
        f"# yaml-language-server: $schema={SCHEMA_URL}",
        "# Every field: docs/configuration.md. What is not written here has a default that works.",
        *_line(f"name: {scalar(name)}"),
        *_line("lake: lake", "where all state goes; a gs://… on a cluster"),
        "sources:",
        *_line(f"  - uri: {scalar(source)}", *_seen(survey)),
        *_labels(survey, labels, tables),
        *_classes(survey, labels, tables),
        *_groups(survey),
        *_line(f"selection: {{n_samples: {_budget(survey)}}}", "labels asked for in a round"),
        *_line(
            "labeling: {provider: csv}",
            f"a round writes lake/label_requests/{name}-0000.csv, and waits",
            "until people filled its column `label`",
        ),
        "# In a labelling tool instead, see docs/labeling.md:",
        "# labeling: {provider: label_studio, label_studio: {url: http://localhost:8080}}",
        *_line(f"training: {{image_size: {survey.image_size}}}", *_sizes(survey)),
    ]
    return "\n".join(parts) + "\n"


def scalar(text: str) -> str:
    """Return a text as YAML holds it, quoted where it has to be."""
    import yaml

    plain = bool(_PLAIN.fullmatch(text)) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Return names in one line, however many and odd they are."""
    shown = [re.sub(r"\s+", " ", name)[:40] for name in names[:_LISTED]]
    return ", ".join(shown) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def unreadable_words(survey: Survey) -> str:
    """Return ``3 unreadable (truncated 2, empty 1)``."""
    reasons = ", ".join(f"{why} {n}" for why, n in survey.unreadable.items())
    return f"{sum(survey.unreadable.values()):,} unreadable" + (f" ({reasons})" if reasons else "")


def _line(text: str, *comments: str) -> list[str]:
    """Return a line and its comments, each in its column."""
    lines = [line for comment in comments for line in textwrap.wrap(comment, _COMMENT_WIDTH)]
    if not lines:
        return [text]
    # A long value pushes its own comment aside; the others stay where the eye looks for them.
    column = max(_COMMENT_COLUMN, len(text) + 2)
    beside = [f"{text:<{column}}# {lines[0]}"]
    return beside + [f"{'':<{_COMMENT_COLUMN}}# {line}" for line in lines[1:]]


def _seen(survey: Survey) -> list[str]:
    part = f" of {survey.candidates:,} looked at" if survey.looked_at < survey.candidates else ""
    copies = f" ({survey.copies:,} of them copies)" if survey.copies else ""
    lines = [f"{counted(survey.images, 'image')}{copies}, {unreadable_words(survey)}{part}"]
    if survey.skipped:
        lines.append(f"{survey.skipped:,} could not be read")
    if survey.sidecars:
        keys = listed([key.name for key in survey.keys])
        lines.append(f"metadata in {counted(survey.sidecars, 'sidecar')}: {keys or 'no keys'}")
    return lines


def _sizes(survey: Survey) -> list[str]:
    if not survey.sides:
        return ["no image was readable"]
    low, high = survey.sides[0], survey.sides[-1]
    span = f"{low} px" if low == high else f"{low} to {high} px, mostly {survey.median_side}"
    return [f"shorter sides: {span}; larger sees more and trains longer"]


def _budget(survey: Survey) -> int:
    return max(1, min(_BUDGET, survey.candidates // 5))


def _labels(survey: Survey, labels: str, tables: tuple[LabelTable, ...]) -> list[str]:
    lines = []
    if labels == "folder":
        lines += _line("    labels: folder", f"known already: {_folders(survey)}")
        if sum(survey.folders.values()) == survey.images:
            lines += [
                "    # Every image has its label then, and nothing is left to ask for. To see how",
                "    # few would do, take that line away and let the folders answer when asked:",
                "    # labeling: {provider: oracle, labels: folder}",
            ]
    elif labels != "none":
        chosen = next(table for table in tables if table.path == labels)
        lines += _line(f"    labels: {scalar(labels)}", f"known already: {_table(survey, chosen)}")
    else:
        for table in tables:
            lines += _line(f"    # labels: {scalar(table.path)}", _table(survey, table))
        if survey.looks_like_classes:
            lines += _line("    # labels: folder", f"if these are classes: {_folders(survey)}")
    return lines


def _folders(survey: Survey) -> str:
    names = [f"{name} {n}" for name, n in survey.folders.items()]
    return f"{counted(len(names), 'folder')}, {listed(names)}"


def _table(survey: Survey, table: LabelTable) -> str:
    return (
        f"{counted(table.rows, 'label')} of {counted(len(table.classes), 'class', 'classes')}, "
        f"for {table.images:,} of {counted(survey.images, 'image')}"
    )


def _classes(survey: Survey, labels: str, tables: tuple[LabelTable, ...]) -> list[str]:
    names: tuple[str, ...] = ()
    if labels == "folder":
        names = tuple(survey.folders)
    elif labels != "none":
        names = next(table.classes for table in tables if table.path == labels)
    if not names or len(names) > 100:
        return []
    return [
        "# Classes are those of the first labels. Name them all, to have slips of the pen refused:",
        f"# classes: [{', '.join(map(scalar, names))}]",
    ]


def _groups(survey: Survey) -> list[str]:
    candidates = [key for key in survey.keys if key.groups]
    if not candidates:
        return []
    lines = ["# Images of one group (camera, patient, video) stay on one side of the holdout:"]
    for key in candidates[:5]:
        what = f"{counted(key.values, 'value')} in {counted(key.images, 'image')}"
        lines += _line(f"# holdout: {{group_by: {scalar(key.name)}}}", what)
    return lines
