"""Bytes in local files."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from visionloop.lake.storage.interface import FileInfo, StorageError, changed, stored_generation
from visionloop.lake.storage.reading import read_together
from visionloop.lake.storage.uris import join, local_path, normalise, uri_of

_PART = 1 << 20


class FileStorage:
    """Local files, also on a mounted volume."""

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield the files at or under a folder, in the order of their URIs.

        Raises:
            StorageError: There is no such folder, or it cannot be read.
        """
        from visionloop.lake.walking import status, walk

        root = str(local_path(prefix))
        try:
            found = iter([(root, status(root))]) if os.path.isfile(root) else walk(root)
            for path, held in found:
                if held is not None:
                    yield FileInfo(
                        uri_of(path),
                        held.st_size,
                        str(held.st_mtime_ns),
                        _as_time(held.st_mtime),
                    )
        except OSError as error:
            raise StorageError(
                f"cannot list: {error.strerror}",
                where=str(error.filename),
                remedy="Check that the folder exists and may be read",
            ) from error

    def read(self, uri: str) -> bytes:
        """Return a file's bytes.

        Raises:
            StorageError: It cannot be read.
        """
        path = local_path(uri)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error

    def read_listed(self, info: FileInfo) -> bytes:
        """Return a file's bytes, unless it was written to since it was listed."""
        data = self.read(info.uri)
        # Looked at afterwards: a change while it was read shows, too.
        try:
            found = os.stat(local_path(info.uri))
        except OSError:
            raise changed(info.uri) from None
        _same(info.uri, found, info.generation)
        return data

    def read_range(self, uri: str, start: int, length: int, generation: str = "") -> bytes:
        """Return a part of a file's bytes; see `visionloop.lake.storage.Storage`.

        Raises:
            StorageError: It cannot be read, or was written to since it was listed.
        """
        path = local_path(uri)
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(length)
                _same(uri, os.fstat(file.fileno()), generation)
                return data
        except OSError as error:
            raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error

    def write(self, uri: str, data: bytes) -> None:
        """Write a file beside its place, flush it to disk and rename it into place."""
        _place(io.BytesIO(data), local_path(uri))

    def exists(self, uri: str) -> bool:
        """Whether a file or folder lies there."""
        return local_path(uri).exists()

    def delete(self, uri: str) -> None:
        """Remove a file."""
        local_path(uri).unlink(missing_ok=True)

    def read_many(
        self, uris: Iterable[str], threads: int = 8
    ) -> Iterator[tuple[str, bytes | StorageError]]:
        """Yield ``(uri, bytes or the error)`` in the order given."""
        return read_together(self, uris, threads)

    def download(self, prefix: str, directory: str | Path) -> Path:
        """Copy a folder, or one file into a folder.

        Raises:
            StorageError: It cannot be copied.
        """
        source = local_path(prefix)
        try:
            if source.is_file():
                Path(directory).mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, directory)
            else:
                shutil.copytree(source, directory, dirs_exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot copy: {error}", where=str(source)) from error
        return Path(directory)

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Copy a folder file by file, each one whole or not at all."""
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                with path.open("rb") as source:
                    _place(
                        source,
                        local_path(join(normalise(prefix), str(path.relative_to(directory)))),
                    )


def _place(source: IO[bytes], path: Path) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(source, file, _PART)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(
            f"cannot write: {error.strerror}",
            where=str(path),
            remedy="Check the free space and the rights on the folder",
        ) from error


def _same(uri: str, found: os.stat_result, generation: str) -> None:
    wanted = stored_generation(generation)
    if wanted and wanted != str(found.st_mtime_ns):
        raise changed(uri)


def _as_time(seconds: float) -> datetime:
    """Return a file's time; a broken clock's, beyond the years 1 to 9999, becomes the nearest."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return (datetime.max if seconds > 0 else datetime.min).replace(tzinfo=UTC)
