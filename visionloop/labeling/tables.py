"""Reads labels that people write: CSV files with ``file,label`` or ``sample_id,label``."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from visionloop.errors import InputError
from visionloop.labeling.provider import DONE, SKIPPED, Annotation
from visionloop.lake.storage import name_of, open_storage

KEYS = ("sample_id", "file")


def read_label_csv(uri: str) -> list[tuple[int, str, str, str]]:
    """Read a CSV file of labels.

    Args:
        uri: The file, UTF-8, separated by commas, semicolons or tabs, with a header that has the
            column ``label`` and one of ``sample_id`` and ``file``. Other columns are allowed.

    Returns:
        ``(line, key, value, label)`` for each row with a label; key is ``sample_id`` or ``file``.
        A label can be an answer that skips the sample, see `visionloop.labeling.answers.is_skip`.

    Raises:
        InputError: The file has no such header, or a line of it is torn: see `parse_label_csv`.
        StorageError: It cannot be read.
    """
    try:
        text = open_storage(uri).read(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text: {error.reason} at byte {error.start}",
            where=uri,
            remedy="Save the file as UTF-8",
        ) from None
    return parse_label_csv(text, uri)


def parse_label_csv(text: str, uri: str) -> list[tuple[int, str, str, str]]:
    """Return the rows with a label of what a CSV file holds, see `read_label_csv`.

    Args:
        text: The whole file.
        uri: Where it lies, for messages.

    Raises:
        InputError: The file has no such header; quotes are unbalanced, so that lines run into each
            other; or a line has more fields than the header.
    """
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = {name.strip().lower(): name for name in reader.fieldnames or [] if name}
    key = next((name for name in KEYS if name in columns), None)
    if key is None or "label" not in columns:
        raise InputError(
            f"the header is {first.strip()!r}",
            where=uri,
            remedy="Begin the file with `file,label` or `sample_id,label`",
        )
    rows = []
    begins = 2
    try:
        for row in reader:
            label = (row.get(columns["label"]) or "").strip()
            value = (row.get(columns[key]) or "").strip()
            # What a spreadsheet leaves behind the last column is empty.
            if "\n" in label or "\n" in value or any(row.get(None) or ()):
                raise csv.Error("it has other fields than the header")
            if label and value:
                rows.append((reader.line_num, key, value, label))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"the line cannot be read: {error}",
            where=f"{uri}, line {begins}",
            remedy=f"Put a field that has a `{delimiter}` or a quote in it between quotes, and "
            "double the quotes in it",
        ) from None
    return rows


class FileNames:
    """Finds samples by what people call their files.

    A name matches the end of a URI on whole path segments, so that ``cat/1.png`` finds
    ``gs://bucket/2026/cat/1.png`` and not ``…/bobcat/1.png``.

    Args:
        uris: Sample ids by URI; several URIs may hold one sample.
    """

    def __init__(self, uris: Mapping[str, str]) -> None:
        self._by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for uri, sample_id in uris.items():
            self._by_name[name_of(uri)].append((_plain(uri), sample_id))

    def find(self, name: str) -> set[str]:
        """Return the samples that a file name can mean: one, none, or several."""
        wanted = _plain(name).strip("/")
        wanted = wanted.removeprefix("./")
        candidates = self._by_name.get(wanted.rpartition("/")[2], [])
        return {
            sample_id
            for uri, sample_id in candidates
            if uri == wanted or uri.endswith("/" + wanted)
        }


def _plain(uri: str) -> str:
    from urllib.parse import unquote

    return unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri


def labels_of_files(
    uri: str, uris: Mapping[str, str], *, sample_ids: Iterable[str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Read a CSV file of labels and find the samples that it speaks of.

    Args:
        uri: The CSV file, see `read_label_csv`.
        uris: Sample ids by the URI of their files.
        sample_ids: Known sample ids; those of `uris` by default.

    Returns:
        Label by sample id, and the keys of rows that no known sample has.

    Raises:
        InputError: A file name means several samples, or one sample has two labels.
    """
    known = set(uris.values()) if sample_ids is None else set(sample_ids)
    names = FileNames(uris)
    labels: dict[str, str] = {}
    unknown: list[str] = []
    for line, key, value, label in read_label_csv(uri):
        found = names.find(value) if key == "file" else {value.lower()} & known
        if len(found) > 1:
            raise InputError(
                f"the name {value!r} means {len(found)} different samples",
                where=f"{uri}, line {line}",
                remedy="Write more of the path, or the sample_id",
            )
        if not found:
            unknown.append(value)
            continue
        sample_id = found.pop()
        if labels.setdefault(sample_id, label) != label:
            raise InputError(
                f"sample {value!r} is labelled {labels[sample_id]!r} and {label!r}",
                where=f"{uri}, line {line}",
                remedy="Keep one label a sample",
            )
    return labels, unknown


def answered(answers: Mapping[str, str | None], by: str) -> list[Annotation]:
    """Return the answers of a list that has one a sample and tells nothing else of it.

    Args:
        answers: Label by sample id, None for one that cannot be labelled.
        by: Who is named as the annotator.
    """
    now = datetime.now(UTC)
    return [
        Annotation(
            external_id="",
            sample_id=sample_id,
            annotator=by,
            state=SKIPPED if label is None else DONE,
            label=label,
            boxes=None,
            seconds=None,
            prelabel=None,
            created_at=now,
            updated_at=now,
        )
        for sample_id, label in answers.items()
    ]
