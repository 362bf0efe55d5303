"""Reads files inside tar archives by their URIs, wherever the tar lies."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.lake.archives import (
    Damage,
    Member,
    is_compressed,
    member_uri,
    members,
    name_in,
    unpack,
)
from visionloop.lake.storage import (
    INSIDE,
    FileInfo,
    ObjectChanged,
    Storage,
    StorageError,
    local_path,
    open_storage,
    read_together,
    scheme_of,
)
from visionloop.lake.storage.interface import changed, stored_generation

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 8 << 20
# Headers lie between members: one request to a bucket for those that are near each other.
_AHEAD = 1 << 20
_AHEAD_LOCAL = 1 << 14
# Archives whose index stays in memory, some 200 bytes a member; and those of them that have a
# temporary file as large as they are.
_HELD, _HELD_SPOOLED = 16, 2


class Archive:
    """One tar: an index of its members, and their bytes.

    Args:
        info: The tar as it is listed now.
        storage: What reads it.
        spool: Copy a tar in a bucket to a temporary file, whole: cheaper where all of it is read.

    Attributes:
        spooled: Whether it has a temporary file.
        size: Bytes of the unpacked tar.

    Raises:
        StorageError: It cannot be read.
    """

    def __init__(self, info: FileInfo, storage: Storage, *, spool: bool = False) -> None:
        self.info = info
        self._lock = threading.Lock()
        self._index: dict[str, tuple[int, int]] | None = None
        self._damage: Damage | None = None
        self._file: IO[bytes] | None = None
        local = scheme_of(info.uri) == "file"
        self._ranges: Callable[[int, int], bytes] | None = None
        if local and not is_compressed(info.uri):
            self._file = _opened(info.uri)
        elif spool or is_compressed(info.uri):
            self._file = self._spooled(storage, local)
        else:
            self._ranges = lambda start, length: storage.read_range(
                info.uri, start, length, info.generation
            )
        self.spooled = self._file is not None and not (local and not is_compressed(info.uri))
        self.size = os.fstat(self._file.fileno()).st_size if self._file else info.size

    def _spooled(self, storage: Storage, local: bool) -> IO[bytes]:
        if local:
            packed = _opened(self.info.uri)
        else:
            packed = temporary()
            for start in range(0, self.info.size, _CHUNK):
                length = min(_CHUNK, self.info.size - start)
                packed.write(storage.read_range(self.info.uri, start, length, self.info.generation))
            packed.seek(0)
        if not is_compressed(self.info.uri):
            packed.flush()
            return packed
        with packed:
            target = temporary()
            self._damage = unpack(packed, target)
            target.flush()
        return target

    def __iter__(self) -> Iterator[Member | Damage]:
        """Yield the members in the order of the tar, at last the damage if there is any."""
        found: Damage | None = None
        ahead = _AHEAD if self._ranges else _AHEAD_LOCAL
        for item in members(_View(self.read, self.size, ahead), self.size):
            if isinstance(item, Member):
                yield item
            else:
                found = item
        # What stopped the unpacking is the cause of whatever is wrong with the tar.
        if damage := self._damage or found:
            yield damage

    @property
    def index(self) -> dict[str, tuple[int, int]]:
        """Offset and size of each member that can be read, by its name."""
        with self._lock:  # several threads ask at once, and one reads the headers
            if self._index is None:
                self._index = {
                    item.name: (item.offset, item.size)
                    for item in self
                    if isinstance(item, Member) and not item.reason
                }
            return self._index

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the unpacked tar; may be called by several threads.

        Raises:
            StorageError: They cannot be read.
        """
        if self._ranges is not None:
            return self._ranges(offset, length)
        assert self._file is not None
        parts = []
        while length > 0:
            try:
                part = os.pread(self._file.fileno(), length, offset)
            except OSError as error:
                raise StorageError(f"cannot read: {error.strerror}", where=self.info.uri) from error
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def bytes_of(self, name: str) -> bytes:
        """Return a member's bytes.

        Raises:
            StorageError: There is no such member, or it is cut.
        """
        place = self.index.get(name)
        if place is None:
            raise StorageError(f"the tar has no member {name!r:.200}", where=self.info.uri)
        data = self.read(*place)
        if len(data) < place[1]:
            raise StorageError(f"the member {name!r:.200} is cut", where=self.info.uri)
        return data


class _View:
    """A tar as the seekable file that the module tarfile reads headers from."""

    def __init__(self, read: Callable[[int, int], bytes], size: int, ahead: int) -> None:
        self._read, self._size, self._ahead, self._position = read, size, ahead, 0
        self._held, self._from = b"", 0

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, length: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        length = left if length < 0 else min(length, left)
        start = self._position - self._from
        if start < 0 or start + length > len(self._held):
            wanted = min(max(length, self._ahead), left)
            self._held, self._from, start = self._read(self._position, wanted), self._position, 0
        part = self._held[start : start + length]
        self._position += len(part)
        return part


class ArchiveStorage:
    """Members of tars, read-only.

    Args:
        spool: As of `Archive`.
    """

    def __init__(self, *, spool: bool = False) -> None:
        self._spool = spool

    def archive(self, container: str) -> Archive:
        """Return a tar, opened; one that has changed is opened anew.

        Raises:
            StorageError: It is not there, or cannot be read.
        """
        key = (container, self._spool)
        with _LOCK:
            opening = _OPENING.setdefault(key, threading.Lock())
        with opening:
            return self._current(key)

    def _current(self, key: tuple[str, bool]) -> Archive:
        container = key[0]
        with _LOCK:
            held = _OPEN.get(key)
            if held is not None:
                _OPEN.move_to_end(key)
        # A file may be asked each time what it is; an object's listing is a request.
        if held is not None and scheme_of(container) != "file":
            return held
        storage = open_storage(container)
        info = next((i for i in storage.list(container) if i.uri == container), None)
        if info is None:
            raise StorageError("the tar is not there", where=container)
        if held is not None and held.info == info:
            return held
        made = Archive(info, storage, spool=self._spool)
        with _LOCK:
            _OPEN[key] = made
            # A file is closed, and a temporary one gone, once the last reader has let go of it.
            spooled = [name for name, one in _OPEN.items() if one.spooled]
            for name in spooled[:-_HELD_SPOOLED]:
                del _OPEN[name]
            while len(_OPEN) > _HELD:
                _OPEN.popitem(last=False)
        return made

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield the members at or below a name; below ``x.tar!/`` all of them."""
        whole = prefix.endswith(INSIDE)
        container, name = (prefix[: -len(INSIDE)], "") if whole else name_in(prefix)
        try:
            archive = self.archive(container)
        except StorageError:
            return
        if name in archive.index:
            wanted = [name]  # no other is looked at: this is asked of every member, one by one
        else:
            folder = name.rstrip("/") + "/"
            wanted = [n for n in archive.index if whole or n.startswith(folder)]
        infos = [
            FileInfo(
                member_uri(container, Member(n, *archive.index[n])),
                archive.index[n][1],
                archive.info.generation,
                archive.info.updated,
            )
            for n in wanted
        ]
        yield from sorted(infos, key=lambda info: info.uri)

    def read(self, uri: str) -> bytes:
        """Return a member's bytes."""
        container, name = name_in(uri)
        try:
            return self.archive(container).bytes_of(name)
        except ObjectChanged:
            with _LOCK:
                _OPEN.pop((container, self._spool), None)
            return self.archive(container).bytes_of(name)

    def read_listed(self, info: FileInfo) -> bytes:
        """Return a member's bytes, unless its tar was overwritten since it was listed."""
        container, name = name_in(info.uri)
        archive = self.archive(container)
        if archive.info.generation != stored_generation(info.generation):
            raise changed(info.uri)
        return archive.bytes_of(name)

    def read_range(self, uri: str, start: int, length: int, generation: str = "") -> bytes:
        """Return a part of a member's bytes, see `visionloop.lake.storage.Storage`.

        Raises:
            StorageError: There is no such member, or it cannot be read.
        """
        container, name = name_in(uri)
        archive = self.archive(container)
        if name not in archive.index:
            raise StorageError(f"the tar has no member {name!r:.200}", where=container)
        if generation and archive.info.generation != stored_generation(generation):
            raise changed(uri)
        offset, size = archive.index[name]
        return archive.read(offset + start, max(0, min(length, size - start)))

    def exists(self, uri: str) -> bool:
        """Whether a tar holds such a member."""
        return next(self.list(uri), None) is not None

    def read_many(
        self, uris: Iterable[str], threads: int = 8
    ) -> Iterator[tuple[str, bytes | StorageError]]:
        """Yield ``(uri, bytes or the error)`` in the order given."""
        return read_together(self, uris, threads)

    def download(self, prefix: str, directory: str | Path) -> Path:
        """Copy the members below a name into a folder."""
        top = prefix.rstrip("/") + "/"
        for info in self.list(prefix):
            target = Path(directory) / (
                name_in(info.uri)[1] if info.uri == prefix else info.uri.removeprefix(top)
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(info.uri))
        return Path(directory)

    def write(self, uri: str, data: bytes) -> None:
        """Refuse: a tar is never changed."""
        raise _read_only(uri)

    def delete(self, uri: str) -> None:
        """Refuse: a tar is never changed."""
        raise _read_only(uri)

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Refuse: a tar is never changed."""
        raise _read_only(prefix)


def _opened(uri: str) -> IO[bytes]:
    try:
        return local_path(uri).open("rb")
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=uri) from error


def temporary() -> IO[bytes]:
    """Return a temporary file that goes when it is closed.

    Raises:
        StorageError: There is no room for one.
    """
    try:
        return tempfile.TemporaryFile(prefix="visionloop-")
    except OSError as error:
        raise StorageError(
            f"cannot make a temporary file: {error.strerror}",
            remedy="Free some space, or set TMPDIR to a folder that has some",
        ) from error


def _read_only(uri: str) -> InputError:
    return InputError("a tar archive is only read", where=uri, remedy="Write beside it")


_LOCK = threading.Lock()
_OPENING: dict[tuple[str, bool], threading.Lock] = {}
_OPEN: OrderedDict[tuple[str, bool], Archive] = OrderedDict()
