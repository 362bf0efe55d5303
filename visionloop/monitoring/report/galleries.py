"""The pictures that the report shows: what was chosen, what was flagged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from visionloop.monitoring.report.data import FlagKind, Gallery, Picture
from visionloop.monitoring.report.thumbnails import thumbnails

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Newest rounds shown, pictures of each, and examples of each kind of flag.
ROUNDS, SELECTED, EXAMPLES = 2, 24, 6

_HEADINGS = {
    "exact_duplicate": "The same bytes again",
    "near_duplicate": "Nearly the same picture again",
    "semantic_duplicate": "Nearly the same to the encoder",
    "holdout_copy": "A picture of the holdout again",
    "unreadable": "Not readable",
    "blurred": "Blurred",
    "dark": "Dark",
    "bright": "Overexposed",
    "low_contrast": "Without contrast",
    "low_information": "Nearly empty",
    "odd_aspect": "Long strips",
    "grey": "Grey among coloured ones",
    "tiny": "Tiny",
    "pixel_duplicate": "The same pixels in another file",
    "attached_data": "With something else behind the picture",
    "bad_metadata": "Metadata that cannot be true",
    "label_suspect": "Labels that are likely wrong",
    "label_conflict": "Labels that people disagree about",
}


def selection_galleries(
    lake: Lake, selections: pa.Table, samples: pa.Table, labels: Mapping[str, str | None]
) -> tuple[Gallery, ...]:
    """Return what the newest rounds chose, newest first.

    Args:
        lake: The lake, for thumbnails.
        selections: Table ``selections``.
        samples: Table ``samples`` (sample_id, uri).
        labels: Known labels.
    """
    uris = _uris(samples)
    rows = selections.to_pylist()
    shown: dict[str, list[dict[str, Any]]] = {}
    for round_id in sorted({row["round_id"] for row in rows}, reverse=True)[:ROUNDS]:
        own = [row for row in rows if row["round_id"] == round_id]
        shown[round_id] = sorted(own, key=lambda row: (row["rank"], row["sample_id"]))
    pictures = thumbnails(
        lake,
        {
            uris.get(row["sample_id"], ""): row["sample_id"]
            for own in shown.values()
            for row in own[:SELECTED]
        },
    )
    galleries = []
    for round_id, own in shown.items():
        made = []
        for row in own[:SELECTED]:
            uri = uris.get(row["sample_id"], "")
            thumb = pictures.get(uri)
            label = labels.get(row["sample_id"])
            made.append(
                Picture(
                    file_name(uri) or row["sample_id"][:12],
                    thumb.uri if thumb else "",
                    label if label is not None else "not labelled yet",
                    why(row),
                    thumb.small if thumb else False,
                )
            )
        galleries.append(
            Gallery(f"Round {round_id}", len(own), tuple(made), _shown(len(made), len(own)))
        )
    return tuple(galleries)


def why(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in words why a row of ``selections`` was chosen."""
    from visionloop.selection.explain import explain

    values = json.loads(row["objectives"]) if row["objectives"] else {}
    known = {name: value for name, value in values.items() if _is_number(value)}
    said = explain(known, arm=row["arm"] or "selected")
    # Under a picture, in a column of words, the opening that all sentences share is noise.
    for opening in ("Picked because it is ", "Picked because "):
        if said.startswith(opening):
            said = said.removeprefix(opening)
            said = said[:1].upper() + said[1:]
    return (said,) if row["rank"] is None else (f"Choice {row['rank'] + 1}.", said)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def flag_kinds(
    lake: Lake,
    flags: pa.Table,
    samples: pa.Table,
    planted: Mapping[str, Mapping[str, int]] | None,
) -> tuple[FlagKind, ...]:
    """Return the flags of files and samples by kind, the most frequent first.

    Args:
        lake: The lake, for thumbnails.
        flags: Table ``flags``.
        samples: Table ``samples`` (sample_id, uri).
        planted: Defects that were put in on purpose, ``{round id: {kind: n}}``.
    """
    uris = _uris(samples)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in flags.to_pylist():
        if row["subject_type"] in ("sample", "file"):
            by_kind.setdefault(row["kind"], []).append(row)
    for counts in (planted or {}).values():
        for kind in counts:
            by_kind.setdefault(kind, [])
    examples = {
        kind: sorted(rows, key=lambda row: (row["round_id"], row["subject"]))[-EXAMPLES:]
        for kind, rows in by_kind.items()
    }
    pictures = thumbnails(
        lake,
        {
            _place(row, uris): "" if row["subject_type"] == "file" else row["subject"]
            for kind, rows in examples.items()
            for row in rows
            if kind != "unreadable"
        },
    )
    kinds = []
    for kind, rows in sorted(by_kind.items(), key=lambda item: (-len(item[1]), item[0])):
        found: dict[str, int] = {}
        for row in rows:
            found[row["round_id"]] = found.get(row["round_id"], 0) + 1
        made = []
        for row in examples[kind]:
            uri = _place(row, uris)
            thumb = pictures.get(uri)
            title, *lines = _evidence(row)
            made.append(
                Picture(
                    file_name(uri) or row["subject"][:12],
                    thumb.uri if thumb else "",
                    title,
                    tuple(lines),
                    thumb.small if thumb else False,
                )
            )
        heading = _HEADINGS.get(kind, kind.replace("_", " ").capitalize())
        put_in = None
        if planted is not None:
            put_in = {round_id: counts.get(kind, 0) for round_id, counts in planted.items()}
        gallery = Gallery(heading, len(rows), tuple(made), _shown(len(made), len(rows)))
        kinds.append(FlagKind(kind, found, put_in, gallery))
    return tuple(kinds)


def file_name(uri: str) -> str:
    """Return the last part of a URI, as a person reads it."""
    return unquote(uri.rstrip("/").rpartition("/")[2])


def _evidence(row: Mapping[str, Any]) -> list[str]:
    evidence = json.loads(row["evidence"]) if row["evidence"] else {}
    kind = row["kind"]
    if kind == "unreadable":
        return [str(evidence.get("reason") or "unreadable").replace("_", " ")]
    if kind == "exact_duplicate":
        return ["same bytes as", file_name(str(evidence.get("original", "")))]
    if kind == "near_duplicate":
        lines = ["same picture as", file_name(str(evidence.get("original_uri", "")))]
        if "unconfirmed" not in evidence:
            lines.append(f"likeness {row['score']:.3f}, threshold {row['threshold']:.3f}")
        return [*lines, f"{evidence.get('bits')} of 256 bits differ"]
    if kind == "semantic_duplicate":
        lines = ["alike to", file_name(str(evidence.get("original_uri", "")))]
        return [*lines, f"cosine {row['score']:.3f}, threshold {row['threshold']:.3f}"]
    if kind == "pixel_duplicate":
        return ["same pixels as", file_name(str(evidence.get("original_uri", "")))]
    if kind == "attached_data":
        return [f"{evidence.get('attached')} behind the picture"]
    if kind == "label_suspect":
        return [
            f"labelled {evidence.get('label')}, likelier {evidence.get('suggested')}",
            f"probability {row['score']:.2g} against {row['threshold']:.2g}",
        ]
    if kind == "label_conflict" and "votes" in evidence:
        # Without the names: this page is handed around, and `visionloop labels status` has them.
        said = Counter(str(one) for one in evidence["votes"].values())
        return [f"{one}: {n}" for one, n in said.most_common()]
    if kind == "bad_metadata":
        return [str(evidence.get("problem", "")), *_rest(evidence)]
    if row["score"] is None:
        return [kind.replace("_", " ")]
    measure = str(evidence.get("measure") or "score")
    lines = [f"{measure} {row['score']:.2g}"]
    if row["threshold"] is not None:
        lines.append(f"threshold {row['threshold']:.2g}")
    if evidence.get("median") is not None:
        lines.append(f"median {evidence['median']:.2g}")
    return lines


def _rest(evidence: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value}"[:80] for name, value in evidence.items() if name != "problem"]


def _place(row: Mapping[str, Any], uris: Mapping[str, str]) -> str:
    return row["subject"] if row["subject_type"] == "file" else uris.get(row["subject"], "")


def _uris(samples: pa.Table) -> dict[str, str]:
    ids, uris = samples["sample_id"].to_pylist(), samples["uri"].to_pylist()
    return {sample: uri or "" for sample, uri in zip(ids, uris, strict=True)}


def _shown(shown: int, total: int) -> str:
    if shown == total:
        return f"{total:,} in all."
    return f"{shown:,} of {total:,} are shown."
