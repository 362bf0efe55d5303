"""Reads samples' bytes, checks that they are the sample's, decodes and reduces them, in threads.

Reading and decoding go on while the caller works on what it has: a GPU does not wait for images,
nor the decoder for a GPU.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pyarrow as pa
from PIL import Image

from visionloop.errors import UnreadableMedia, VisionloopError
from visionloop.lake.identity import is_sample
from visionloop.lake.schemas import arrow_schema
from visionloop.lake.storage import Storage, StorageError, open_storage, storage_of
from visionloop.media.budget import DECODING
from visionloop.media.decode import decode_stored, upright

if TYPE_CHECKING:
    from visionloop.lake import Lake, Run

T = TypeVar("T")

# Samples that are read at once, and how many times that are begun: the encoded bytes of 64 images
# are in memory, of which a large photograph has 10 MB, and who takes 64 finds most of the next ones
# decoded.
WINDOW = 16
AHEAD = 4
READ_THREADS = 8


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """One sample, read or not.

    Attributes:
        sample_id: The sample.
        uri: Where its bytes lie.
        value: What was made of the decoded image; None when it cannot be read.
        reason: Why not, a word: ``missing``, ``changed``, or a decoder's reason; empty if read.
        detail: The storage's or the decoder's own words.
    """

    sample_id: str
    uri: str
    value: T | None
    reason: str = ""
    detail: str = ""


def load_images(
    media: Mapping[str, str], transform: Callable[[Image.Image], T], *, side: int = 0
) -> Iterator[Loaded[T]]:
    """Read, decode and transform samples, in the order of their ids.

    Args:
        media: URI by sample id.
        transform: Makes of a decoded picture, upright and of mode L, RGB or RGBX, what is kept;
            called in threads, also for samples that were not asked for yet, fewer than `WINDOW`
            times `AHEAD`.
        side: A photograph may be decoded at a reduced scale that keeps so many pixels of its
            shorter side; 0 decodes all at full size.

    Yields:
        Every sample once. One whose bytes are gone, broken, or no longer those that its id was made
        of is yielded with a reason: predictions about other bytes would be filed under its name.
    """
    order = sorted(media)

    def make(entry: tuple[str, bytes | StorageError]) -> Loaded[T]:
        sample_id, data = entry
        uri = media[sample_id]
        if isinstance(data, VisionloopError):
            return Loaded(sample_id, uri, None, "missing", data.what)
        if not is_sample(sample_id, data):
            return Loaded(sample_id, uri, None, "changed", "the file was replaced after its ingest")
        try:
            with DECODING.share() as share:
                found = decode_stored(data, draft=side, reserve=share.take)
                return Loaded(sample_id, uri, transform(upright(found.image, found.exif)))
        except UnreadableMedia as error:
            return Loaded(sample_id, uri, None, error.reason, error.detail)

    def begin(start: int) -> Iterator[Loaded[T]]:
        window = order[start : start + WINDOW]
        return pool.map(make, _read({name: media[name] for name in window}, storages))

    storages: dict[str, Storage] = {}
    starts = iter(range(0, len(order), WINDOW))
    begun: deque[Future[Iterator[Loaded[T]]]] = deque()
    # The reader ends first: it hands to the pool.
    with (
        ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 8)) as pool,
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            begun.extend(reader.submit(begin, start) for start in islice(starts, AHEAD))
            while begun:
                yield from begun.popleft().result()
                begun.extend(reader.submit(begin, start) for start in islice(starts, 1))
        finally:
            for waiting in begun:
                waiting.cancel()


def _read(
    media: Mapping[str, str], storages: dict[str, Storage]
) -> list[tuple[str, bytes | StorageError]]:
    # A lake on a disk may hold samples that lie in a bucket, and the reverse.
    by_storage: dict[str, list[str]] = defaultdict(list)
    for sample_id, uri in media.items():
        by_storage[storage_of(uri)].append(sample_id)
    found: dict[str, bytes | StorageError] = {}
    for name, sample_ids in by_storage.items():
        uris = [media[sample_id] for sample_id in sample_ids]
        storage = storages.setdefault(name, open_storage(uris[0]))
        read = storage.read_many(uris, threads=READ_THREADS)
        found |= {sample_id: data for sample_id, (_, data) in zip(sample_ids, read, strict=True)}
    return [(sample_id, found[sample_id]) for sample_id in media]


def unreadable_flags(unreadable: Iterable[Loaded[Any]], *, stage: str) -> pa.Table:
    """Return rows of the table `flags` for samples that could not be read.

    Args:
        unreadable: What `load_images` yielded with a reason.
        stage: The stage that met them.
    """
    now = datetime.now(UTC)
    rows = [
        {
            "subject": loaded.sample_id,
            "subject_type": "sample",
            "stage": stage,
            "kind": "unreadable",
            "score": 1.0,
            "threshold": 1.0,
            "evidence": json.dumps(
                {
                    "uri": loaded.uri,
                    "reason": loaded.reason,
                    "detail": loaded.detail,
                    "reference": "the bytes that lay there when the stage needed them",
                    "unit": "",
                    "images": [loaded.sample_id],
                }
            ),
            "flagged_at": now,
        }
        for loaded in unreadable
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("flags"))


def flag_unreadable(
    lake: Lake, run: Run, unreadable: Iterable[Loaded[Any]], tried: Container[str], *, stage: str
) -> None:
    """Flag samples that a stage cannot read, and take back the flags of what it could read again.

    Args:
        lake: The lake, whose newest flags are looked at.
        run: The stage's run.
        unreadable: What `load_images` yielded with a reason.
        tried: Ids of all samples that the stage tried to read.
        stage: Its name.
    """
    found = list(unreadable)
    mine = f"stage == '{stage}' and kind == 'unreadable'"
    held = lake.read("flags", columns=["subject"], where=mine)["subject"].to_pylist()
    names = {subject for subject in held if subject in tried}
    names |= {loaded.sample_id for loaded in found}
    if names:
        subjects = ", ".join(f"'{name}'" for name in sorted(names))
        run.replace(
            "flags", unreadable_flags(found, stage=stage), f"{mine} and subject in ({subjects})"
        )
