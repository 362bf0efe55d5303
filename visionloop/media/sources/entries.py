"""What a source tells of each thing that it holds, before and after its bytes are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from visionloop.lake.storage import FileInfo

MEDIA, CONTAINER, SIDECAR, LABELS, HIDDEN = "media", "container", "sidecar", "labels", "hidden"
REPEATED, ROW = "repeated", "row"

# Between a container's URI and the name of what it holds: `gs://b/000.tar!/cat/1.jpg`.
INSIDE = "!/"
# Between the marks of what speaks of a file and of what once did, see `sidecar_mark`.
SILENT = "; ;; "


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, as its source lists it.

    Attributes:
        info: Where it lies. Its generation is what tells whether it has changed: of a container, it
            also has to change when the same bytes would be read in another way.
        role: ``media``: one image; ``container``: a file that holds others (a tar, a video), opened
            only where its generation is new; ``sidecar``, ``labels`` and ``hidden``: no media, only
            counted; ``repeated``: a line of a list that names what an earlier line names, only
            counted, and the one role whose URI is listed twice; ``row``: a row of a table of
            metadata that names no file, only counted, with the table's URI.
        sidecars: Metadata files beside it, the most telling one first.
        values: Metadata that the source itself has of it: plain JSON values by name.
        label: Label that the source has of it; empty for none.
        boxes: Boxes that the source has of it, as rows of the column `labels.boxes`; None where it
            says nothing of boxes, empty where it says that there is none.
        table: Metadata that a table beside the source has of it, in the same form.
        path: What its path says by the source's pattern; empty where the pattern does not fit, None
            where there is none.
        reason: Why its bytes cannot be had, in one word, where the listing tells already: a line of
            a list that names no file is ``missing``.
    """

    info: FileInfo
    role: str = MEDIA
    sidecars: tuple[FileInfo, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    boxes: tuple[Mapping[str, Any], ...] | None = None
    reason: str = ""
    path: Mapping[str, Any] | None = None
    table: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a container, with its bytes.

    Attributes:
        entry: As a listing would tell it; its URI is ``<container>!/<name>``, its generation the
            container's.
        data: Its encoded bytes; None where they could not be had.
        sample_id: Its id, 64 hexadecimal digits, where that is not the SHA-256 of its bytes: a
            frame of a video. Empty otherwise.
        keep: Its bytes lie nowhere else, so that the lake keeps them under the id.
        captured_at: When it was taken, UTC, where the container tells.
        unreadable: Why it is no media, in one word: the place in the container is damaged.
        detail: The same in the reader's own words, with the byte offset where it is known.
    """

    entry: Entry
    data: bytes | None
    sample_id: str = ""
    keep: bool = False
    captured_at: datetime | None = None
    unreadable: str = ""
    detail: str = ""
