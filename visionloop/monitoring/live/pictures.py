"""Pictures for the live view: thumbnails of a page at once, and images as they lie in the lake."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.errors import UnreadableMedia, VisionloopError
from visionloop.labeling.media.showing import CONTENT_TYPES, Shown, show
from visionloop.lake.anywhere import Anywhere
from visionloop.lake.identity import is_sample
from visionloop.media import sniff
from visionloop.monitoring.live.index import Index

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask

    from visionloop.lake import Lake

# Side of a thumbnail that is made here, in pixels: as those that ingest keeps.
SIDE = 160
_CACHED_BYTES = 96 << 20
# A file of thumbnails so small is read whatever the originals are like.
_SMALL_FILE = 16 << 20
_READERS = 4
_WAIT_SECONDS = 60.0


class NoPicture(Exception):
    """There is no picture to show; the message says why, for a person."""


@dataclass(frozen=True)
class _Located:
    """Where the thumbnails of an index lie.

    Attributes:
        files: The files of the table.
        file_of: Number of the file that holds each row's thumbnail, -1 for none: int32 [n].
    """

    files: list[FileScanTask]
    file_of: NDArray[np.int32]


class Pictures:
    """Reads pictures, some at a time; asked by several threads."""

    def __init__(self) -> None:
        self._storage = Anywhere()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="pictures")
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, Shown] = OrderedDict()
        self._cached = 0
        self._pending: dict[str, Future[None]] = {}
        self._located: tuple[str, _Located] | None = None

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def expect(self, lake: Lake, index: Index, sample_ids: Sequence[str]) -> None:
        """Begin to read the thumbnails of a page: its browser asks for them next.

        Args:
            lake: The lake.
            index: Its images.
            sample_ids: Those of the page.
        """
        with self._lock:
            wanted = [
                one for one in sample_ids if one not in self._cache and one not in self._pending
            ]
            if not wanted:
                return
            done = self._threads.submit(self._fill, lake, index, wanted)
            self._pending.update(dict.fromkeys(wanted, done))
        done.add_done_callback(lambda _: self._forget(wanted))

    def _forget(self, sample_ids: Sequence[str]) -> None:
        with self._lock:
            for one in sample_ids:
                self._pending.pop(one, None)

    def thumbnail(self, lake: Lake, index: Index, sample_id: str) -> Shown:
        """Return an image's thumbnail.

        Args:
            lake: The lake.
            index: The index of the version that is shown.
            sample_id: The image.

        Raises:
            NoPicture: There is none, nor an original that one can be made of.
        """
        self.expect(lake, index, [sample_id])
        with self._lock:
            pending = self._pending.get(sample_id)
        if pending is not None:
            with contextlib.suppress(TimeoutError):
                pending.result(_WAIT_SECONDS)
        with self._lock:
            found = self._cache.get(sample_id)
            if found is not None:
                self._cache.move_to_end(sample_id)
                return found
        raise NoPicture("neither the file nor a thumbnail is there any more")

    def original(self, index: Index, sample_id: str, *, max_side: int = 0) -> Shown:
        """Return an image as a browser can show it.

        Args:
            index: The images.
            sample_id: The image.
            max_side: Longest side in pixels; 0: as it is.

        Raises:
            NoPicture: It is not there any more, is another one by now, or cannot be read.
        """
        row = index.row_of(sample_id)
        uri = index.table["uri"][row].as_py() if row >= 0 else None
        if not uri:
            raise NoPicture("the lake does not know where it lies")
        reading = self._readers.submit(self._read, uri, sample_id, max_side)
        try:
            return reading.result(_WAIT_SECONDS)
        except TimeoutError:
            raise NoPicture("its storage does not answer") from None

    def is_there(self, index: Index, sample_id: str) -> bool:
        """Return whether a file lies where the image's was; True where its storage does not say.

        Args:
            index: The images.
            sample_id: The image.
        """
        row = index.row_of(sample_id)
        uri = index.table["uri"][row].as_py() if row >= 0 else None
        try:
            return self._storage.exists(uri) if uri else False
        except VisionloopError:
            return True

    def _read(self, uri: str, sample_id: str, max_side: int) -> Shown:
        try:
            data = self._storage.read(uri)
        except VisionloopError as error:  # also where nobody may read it: the lake kept a thumbnail
            raise NoPicture(f"the file cannot be read: {error.what}") from None
        if not is_sample(sample_id, data):
            raise NoPicture("another file lies in its place by now")
        try:
            return show(data, max_side=max_side)
        except UnreadableMedia as error:
            raise NoPicture(f"the file cannot be shown: {error.what}") from None

    def _fill(self, lake: Lake, index: Index, sample_ids: list[str]) -> None:
        missing = set(sample_ids)
        rows = {one: index.row_of(one) for one in sample_ids}
        rows = {one: row for one, row in rows.items() if row >= 0}
        try:
            located = self._locate(lake, index)
            late: dict[int, list[str]] = {}
            for number, held in _by_file(located, rows).items():
                if self._is_worth(located.files[number], index, [rows[one] for one in held]):
                    missing -= self._take(_kept(lake, [located.files[number]], held))
                else:
                    late[number] = held
            missing -= self._take(self._made(index, missing & rows.keys()))
            for number, held in late.items():
                left = [one for one in held if one in missing]
                if left:
                    missing -= self._take(_kept(lake, [located.files[number]], left))
        except (OSError, pa.ArrowException, VisionloopError):
            # The lake moved on, and a vacuum took the files that were named: the originals stay.
            self._located = None
            self._take(self._made(index, missing & rows.keys()))

    def _is_worth(self, file: FileScanTask, index: Index, rows: list[int]) -> bool:
        """Whether to read a whole file of thumbnails rather than the originals of some images."""
        sizes = pc.sum(index.table["size"].take(pa.array(rows))).as_py() or 0
        return bool(file.file.file_size_in_bytes <= max(_SMALL_FILE, sizes))

    def _take(self, pictures: Iterator[tuple[str, Shown]]) -> set[str]:
        taken = set()
        for sample_id, shown in pictures:
            taken.add(sample_id)
            with self._lock:
                if sample_id not in self._cache:
                    self._cached += len(shown.data)
                self._cache[sample_id] = shown
                while self._cached > _CACHED_BYTES and len(self._cache) > 1:
                    _, dropped = self._cache.popitem(last=False)
                    self._cached -= len(dropped.data)
        return taken

    def _made(self, index: Index, sample_ids: set[str]) -> Iterator[tuple[str, Shown]]:
        def make(sample_id: str) -> tuple[str, Shown | None]:
            uri = index.table["uri"][index.row_of(sample_id)].as_py()
            try:
                return sample_id, self._read(uri, sample_id, SIDE) if uri else None
            except NoPicture:
                return sample_id, None

        for sample_id, shown in self._readers.map(make, sorted(sample_ids)):
            if shown is not None:
                yield sample_id, shown

    def _locate(self, lake: Lake, index: Index) -> _Located:
        if self._located is None or self._located[0] != index.version:
            self._located = (index.version, _located(lake, index))
        return self._located[1]


def _by_file(located: _Located, rows: dict[str, int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for sample_id, row in rows.items():
        number = int(located.file_of[row])
        if number >= 0:
            found.setdefault(number, []).append(sample_id)
    return found


def _located(lake: Lake, index: Index) -> _Located:
    file_of = np.full(len(index), -1, np.int32)
    table = lake.table("thumbnails")
    snapshot = lake.snapshot("thumbnails", version=index.version)
    if table is None or not snapshot:
        return _Located([], file_of)
    files = list(table.scan(snapshot_id=snapshot).plan_files())
    held, numbers = [pa.array([], pa.string())], [np.zeros(0, np.int32)]
    for number, task in enumerate(files):
        for batch in _batches(lake, [task], "sample_id"):
            held.append(batch["sample_id"].cast(pa.string()))
            numbers.append(np.full(batch.num_rows, number, np.int32))
    # Looked up at once: each look-up sorts all of the images' ids into a table first.
    places = pc.index_in(pa.concat_arrays(held), value_set=index.table["sample_id"])
    known = pc.is_valid(places).to_numpy(zero_copy_only=False)
    file_of[places.drop_null().to_numpy()] = np.concatenate(numbers)[known]
    return _Located(files, file_of)


def _kept(
    lake: Lake, files: list[FileScanTask], sample_ids: list[str]
) -> Iterator[tuple[str, Shown]]:
    """Yield the thumbnails that ingest made of some images."""
    wanted = pa.array(sample_ids, pa.string())
    for batch in _batches(lake, files, "sample_id", "image"):
        some = batch.filter(pc.is_in(batch["sample_id"].cast(pa.string()), value_set=wanted))
        for sample_id, data in zip(
            some["sample_id"].to_pylist(), some["image"].to_pylist(), strict=True
        ):
            kind = CONTENT_TYPES.get(sniff.kind(data)) if data else None
            if kind:
                yield sample_id, Shown(data, kind, "the lake's thumbnail")


def _batches(lake: Lake, files: list[FileScanTask], *columns: str) -> Iterator[Any]:
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    table = lake.table("thumbnails")
    if table is not None:
        scan = ArrowScan(table.metadata, table.io, table.schema().select(*columns), AlwaysTrue())
        yield from scan.to_record_batches(files)
