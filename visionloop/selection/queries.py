"""What a SIMILARITY line finds more of: sample ids, or sets that the lake or a file names."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
from collections.abc import Callable, Collection, Mapping
from typing import Any

from visionloop.errors import InputError
from visionloop.selection.config import SelectionConfig
from visionloop.selection.lines import Objective

# Kinds of sets, and the tables and columns that LightlyOne's word `tag` is looked up in, in turn.
KINDS = ("file", "round", "selection", "flag", "label", "training_set", "tag")
_TABLES = {
    "round": ("selections", "round_id", "sample_id"),
    "selection": ("named_selections", "name", "sample_id"),
    "flag": ("flags", "kind", "subject"),
    "training_set": ("training_sets", "training_set", "sample_id"),
}

_PLURALS = {
    "round": "rounds with a selection",
    "selection": "saved selections",
    "flag": "kinds of flags",
    "label": "labels",
    "training_set": "training sets",
}
_ID_LENGTH = 64
_SHOWN = 8

Read = Callable[..., Any]


def resolve_queries(
    config: SelectionConfig,
    read: Read,
    *,
    labels: Mapping[str, Collection[str]],
    embedded: Collection[str],
) -> tuple[SelectionConfig, list[str]]:
    """Replace sets of samples by the ids of those among them that have an embedding.

    Args:
        config: The configuration.
        read: Reads columns of a table of the lake: ``read(table, *columns, where=…)``.
        labels: The classes of each labelled sample.
        embedded: Samples that have an embedding.

    Returns:
        The configuration with plain ids, and all these ids in order, each once.

    Raises:
        InputError: A set does not exist, or none of it has an embedding; no sample's id begins as
            a query does, or several do.
    """
    lines: list[Objective] = []
    everyone: dict[str, None] = {}
    for line in config.strategies:
        if not line.query:
            lines.append(line)
            continue
        ids: dict[str, None] = {}
        for item in line.query:
            kind, _, name = item.partition(":")
            if kind not in KINDS:
                ids[_whole_id(item, read)] = None
                continue
            found = members(kind, name, read, labels)
            if not found:
                raise InputError(
                    f"the query `{item}` names no sample",
                    where="selection.strategies",
                    remedy=_there_is(kind, name, read, labels),
                )
            known = sorted(s for s in found if s in embedded)
            if not known:
                raise InputError(
                    f"the query `{item}` names {len(found)} samples, none with an embedding",
                    where="selection.strategies",
                    remedy="Run `visionloop run intake --config loop.yaml`, which embeds what the "
                    "lake holds, or name other samples",
                )
            ids.update(dict.fromkeys(known))
        everyone.update(ids)
        plain = line.input.model_copy(update={"query": tuple(ids), "tag_name": None})
        lines.append(line.model_copy(update={"input": plain}))
    return config.model_copy(update={"strategies": tuple(lines)}), list(everyone)


def _whole_id(item: str, read: Read) -> str:
    """Return the sample id that a query is or begins."""
    if len(item) == _ID_LENGTH:
        return item
    kind, colon, name = item.partition(":")
    if colon:
        likely = difflib.get_close_matches(kind, KINDS[:-1], 1)
        raise InputError(
            f"the query `{item}` is of an unknown kind, {kind!r}",
            where="selection.strategies",
            remedy=(f"Did you mean `{likely[0]}:{name}`? " if likely else "")
            + f"Give sample ids, or one of {', '.join(f'{k}:…' for k in KINDS[:-1])}",
        )
    import pyarrow.compute as pc

    column = read("samples", "sample_id")["sample_id"]
    found = column.filter(pc.starts_with(column, item)).to_pylist() if item else []
    if item in found:
        return item
    if len(found) != 1:
        several = ", ".join(sorted(found)[:2])
        raise InputError(
            f"the query `{item}` begins the ids of {len(found)} samples, such as {several}"
            if found
            else f"no sample of the lake has the id `{item}`, nor one that begins so",
            where="selection.strategies",
            remedy="Give more of the id"
            if found
            else "Give ids, or their beginnings, as `visionloop select` prints them; a set is "
            f"named by {', '.join(f'{k}:…' for k in KINDS[:-1])}",
        )
    return str(found[0])


def _there_is(kind: str, name: str, read: Read, labels: Mapping[str, Collection[str]]) -> str:
    """Return what could have been meant by the name of a set that is not there."""
    if kind == "file":
        return "The file lists no sample id: write one a line, or a CSV column `sample_id`"
    known: dict[str, set[str]] = {}
    for each in _TABLES if kind == "tag" else [kind]:
        if each == "label":
            known[each] = {label for held in labels.values() for label in held}
        else:
            table, column, _ = _TABLES[each]
            known[each] = {value for value in read(table, column)[column].to_pylist() if value}
    likely = difflib.get_close_matches(name, {one for found in known.values() for one in found}, 1)
    parts = [f"Did you mean `{kind}:{likely[0]}`?"] if likely else []
    for each, found in known.items():
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        listed = ", ".join(sorted(found)[:_SHOWN]) + more
        parts.append(f"{_PLURALS[each].capitalize()} of the lake: {listed or 'none'}.")
    return " ".join(parts)


def members(kind: str, name: str, read: Read, labels: Mapping[str, Collection[str]]) -> set[str]:
    """Return the ids of a set of samples, none where nothing has the name.

    Args:
        kind: One of `KINDS`.
        name: The set's name; of a ``file`` its URI.
        read: Reads columns of a table of the lake.
        labels: The classes of each labelled sample, for the kind ``label``.

    Raises:
        InputError: A file cannot be read.
    """
    if kind == "file":
        return _listed(name)
    if kind == "label":
        return {sample for sample, own in labels.items() if name in own}
    for table, column, subject in _TABLES.values() if kind == "tag" else [_TABLES[kind]]:
        # Compared here: a name is a person's text and must not become part of a filter.
        rows = read(table, column, subject).to_pylist()
        found = {row[subject] for row in rows if row[column] == name and row[subject]}
        if found:
            return found
    return set()


def digests_of_files(config: SelectionConfig) -> dict[str, str]:
    """Return a digest of the ids in each file that a query names, by the file.

    The rest of a query lies in the lake, which tells by its version whether it has changed.

    Raises:
        InputError: A file cannot be read.
    """
    items = [item.partition(":") for line in config.strategies for item in line.query]
    return {
        name: hashlib.sha256("\n".join(sorted(_listed(name))).encode()).hexdigest()
        for kind, _, name in items
        if kind == "file"
    }


def _listed(uri: str) -> set[str]:
    """Return the ids of a file: one a line, or the column `sample_id` of a CSV file."""
    from visionloop.lake.storage import StorageError, open_storage

    try:
        text = open_storage(uri).read(uri).decode("utf-8-sig")
    except (StorageError, UnicodeDecodeError) as error:
        raise InputError(
            "cannot read the sample ids of a query: "
            + (
                error.what.removeprefix("cannot read: ")
                if isinstance(error, StorageError)
                else "it is no text in UTF-8"
            ),
            where=uri,
            remedy="Give a text file with a sample id a line, or a CSV file with `sample_id`",
        ) from error
    rows = [row for row in csv.reader(io.StringIO(text)) if row and row[0].strip()]
    column = rows[0].index("sample_id") if rows and "sample_id" in rows[0] else None
    if column is not None:
        rows = rows[1:]
    return {row[column or 0].strip() for row in rows if len(row) > (column or 0)}
