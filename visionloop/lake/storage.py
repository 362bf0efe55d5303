"""Bytes by URI: ``file://`` (or a plain path) and ``gs://``.

Everything that reads or writes media, models and event segments goes through here, so that a lake
is the same thing on a laptop and in a bucket.
"""
# Over 400 lines: one interface and its two implementations, which are read side by side.

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from visionloop import environment
from visionloop.errors import InputError, VisionloopError

if TYPE_CHECKING:
    from google.cloud import storage as gcs


# Between the URI of a tar and the name of what it holds. A file's path has its own `!` quoted.
INSIDE = "!/"
_MEMBER = re.compile(r"(?is)^(.*?\.(?:tar|tar\.gz|tgz))!/(.+)$")


@dataclass(frozen=True)
class FileInfo:
    """One object or file as a listing found it.

    Attributes:
        uri: Where it lies.
        size: Bytes.
        generation: What changes whenever the bytes do: the object's generation, or a file's
            modification time in nanoseconds.
        updated: When it was last written, UTC.
    """

    uri: str
    size: int
    generation: str
    updated: datetime


class StorageError(VisionloopError):
    """An object could not be read or written."""


class Storage(Protocol):
    """What can be done with bytes at a URI."""

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield what lies under a prefix, in the order of its URIs."""

    def read(self, uri: str) -> bytes:
        """Return an object's bytes; raises `StorageError` when it cannot be read."""

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return a part of an object's bytes, shorter only at its end.

        Args:
            uri: The object.
            start: The first byte, from 0.
            length: How many.

        Raises:
            StorageError: It cannot be read.
        """

    def write(self, uri: str, data: bytes) -> None:
        """Replace an object whole: a reader sees the old bytes or the new, never a part."""

    def exists(self, uri: str) -> bool:
        """Whether an object or a folder lies there."""

    def delete(self, uri: str) -> None:
        """Remove an object; one that is not there is no error."""

    def read_many(
        self, uris: Iterable[str], threads: int = 8
    ) -> Iterator[tuple[str, bytes | StorageError]]:
        """Yield ``(uri, bytes or the error)`` in the order given, read by several threads."""

    def download(self, prefix: str, directory: str | Path) -> Path:
        """Copy what lies under a prefix into a local folder, and return the folder."""

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Copy a local folder under a prefix; existing objects are replaced."""


def scheme_of(uri: str) -> str:
    """Return ``file`` or ``gs``.

    Raises:
        InputError: The URI has another scheme.
    """
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if scheme not in ("file", "gs"):
        raise InputError(
            f"storage scheme {scheme!r} is not supported",
            where=uri,
            remedy="Use a path, file://… or gs://…",
        )
    return scheme


def normalise(uri: str | Path) -> str:
    """Return a URI in the one form that the lake stores: ``file:///absolute/path`` or ``gs://…``.

    Raises:
        InputError: The URI is empty, or of a scheme that no storage has.
    """
    text = str(uri)
    if not text:
        raise InputError("an empty URI", remedy="Give a path, file://… or gs://…")
    if is_member(text):
        container, name = split_member(text)
        return normalise(container) + INSIDE + name
    if scheme_of(text) == "gs":
        return text.rstrip("/")
    return "file://" + quote(os.fsencode(local_path(text)))


def local_path(uri: str | Path) -> Path:
    """Return the absolute path of a ``file://`` URI or a plain path.

    Raises:
        InputError: The URI names a host.
    """
    text = str(uri)
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise InputError(
                f"file URI names a host, {parts.netloc!r}",
                where=text,
                remedy="Write file:///absolute/path with three slashes",
            )
        # By bytes: a name that is no UTF-8 leads back to its file, too.
        text = os.fsdecode(unquote_to_bytes(text[len("file://") + len(parts.netloc) :]))
    return Path(os.path.abspath(os.path.expanduser(text)))


def is_member(uri: str) -> bool:
    """Return whether a URI names a file inside a tar: ``<tar>!/<member>``."""
    return INSIDE in uri and _MEMBER.match(uri) is not None


def split_member(uri: str) -> tuple[str, str]:
    """Return the URI of the tar and the name of its member, as a member's URI has them.

    Raises:
        InputError: It is no URI of a file inside a tar.
    """
    found = _MEMBER.match(uri)
    if found is None:
        raise InputError("no URI of a file inside a tar", where=uri, remedy="Write …/x.tar!/name")
    return found[1], found[2]


def storage_of(uri: str) -> str:
    """Return what reads a URI, as a key: URIs of one key can be read by one storage."""
    return "archive" if is_member(uri) else scheme_of(uri)


def join(root: str, *parts: str) -> str:
    """Append path segments to a URI, quoting them as the scheme needs."""
    if scheme_of(root) == "file":
        return normalise(str(local_path(root).joinpath(*parts)))
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(uri: str) -> str:
    """Return the last segment of a URI, unquoted."""
    last = uri.rstrip("/").rsplit("/", 1)[-1]
    return unquote(last) if uri.startswith("file://") else last


def relative(root: str, uri: str) -> str:
    """Return a URI's place under a root, unquoted and with slashes."""
    if scheme_of(root) == "file":
        return local_path(uri).relative_to(local_path(root)).as_posix()
    return uri[len(root.rstrip("/")) + 1 :]


def open_storage(uri: str | Path) -> Storage:
    """Return the storage that a URI's scheme names, or the one of files inside tar archives.

    Raises:
        InputError: The scheme is not supported.
    """
    if is_member(str(uri)):
        from visionloop.lake.archive_storage import ArchiveStorage

        return ArchiveStorage()
    match scheme_of(str(uri)):
        case "gs":
            return GoogleCloudStorage()
        case _:
            return FileStorage()


def read_together(
    storage: Storage, uris: Iterable[str], threads: int
) -> Iterator[tuple[str, bytes | StorageError]]:
    """Read by several threads, for a storage's `Storage.read_many`; see `Storage.read_many`."""

    def read(uri: str) -> tuple[str, bytes | StorageError]:
        try:
            return uri, storage.read(uri)
        except StorageError as error:
            return uri, error

    # Windows bound the memory: map() alone would submit every URI at once.
    pending = list(uris)
    with ThreadPoolExecutor(threads) as pool:
        window = threads * 8
        for start in range(0, len(pending), window):
            yield from pool.map(read, pending[start : start + window])


class FileStorage:
    """Local files, also on a mounted volume."""

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield the files at or under a folder, in the order of their URIs."""
        from visionloop.lake.walking import status, walk

        root = str(local_path(prefix))
        try:
            found = iter([(root, status(root))]) if os.path.isfile(root) else walk(root)
            for path, held in found:
                if held is not None:
                    yield FileInfo(
                        normalise(path),
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
        """Return a file's bytes."""
        path = local_path(uri)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return a part of a file's bytes."""
        path = local_path(uri)
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error

    def write(self, uri: str, data: bytes) -> None:
        """Write a file beside its place, flush it to disk and rename it into place."""
        path = local_path(uri)
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(handle, "wb") as file:
                file.write(data)
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
        """Copy a folder."""
        shutil.copytree(local_path(prefix), directory, dirs_exist_ok=True)
        return Path(directory)

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Copy a folder file by file, each one whole or not at all."""
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                self.write(
                    join(normalise(prefix), str(path.relative_to(directory))), path.read_bytes()
                )


def _as_time(seconds: float) -> datetime:
    """Return a file's time; a broken clock's, beyond the years 1 to 9999, becomes the nearest."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return (datetime.max if seconds > 0 else datetime.min).replace(tzinfo=UTC)


class GoogleCloudStorage:
    """Objects in Cloud Storage, through google-cloud-storage."""

    def __init__(self) -> None:
        self._client: gcs.Client | None = None

    def _bucket(self, uri: str) -> tuple[gcs.Bucket, str]:
        if self._client is None:
            from google.auth.credentials import AnonymousCredentials
            from google.auth.exceptions import DefaultCredentialsError
            from google.cloud import storage as gcs

            try:
                if environment.storage_emulator():
                    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
                    self._client = gcs.Client("emulated", credentials=anonymous)
                else:
                    self._client = gcs.Client()
            except DefaultCredentialsError as error:
                raise InputError(
                    "no Google credentials were found",
                    where=uri,
                    remedy="Run `gcloud auth application-default login`, or give the pod a service "
                    "account with Workload Identity",
                ) from error
        parts = urlsplit(uri)
        if not parts.netloc:
            raise InputError("a gs:// URI needs a bucket", where=uri)
        return self._client.bucket(parts.netloc), uri[len("gs://") + len(parts.netloc) :].lstrip(
            "/"
        )

    @staticmethod
    def _patience() -> dict[str, Any]:
        """Return for how long a request waits and is tried again."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        seconds = environment.storage_timeout()
        return {"retry": DEFAULT_RETRY.with_timeout(seconds), "timeout": min(60.0, seconds)}

    @staticmethod
    def _errors() -> tuple[type[Exception], ...]:
        """Return what the client raises: its own errors, and its transport's."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        return GoogleAPIError, GoogleAuthError, OSError

    @staticmethod
    def _failure(doing: str, uri: str, error: Exception) -> StorageError:
        return StorageError(
            f"cannot {doing}: {type(error).__name__}: {_first_line(error)}",
            where=uri,
            remedy="Check that the bucket exists and answers, and that this account may read and "
            "write it, then run this again: what was stored is kept",
        )

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield the objects at or under a prefix; ``a/b`` does not match ``a/bc``."""
        errors = self._errors()
        bucket, name = self._bucket(prefix)
        folder = name.rstrip("/") + "/" if name else ""
        try:
            for blob in bucket.client.list_blobs(
                bucket, prefix=name.rstrip("/"), **self._patience()
            ):
                if blob.name.endswith("/") or not (
                    blob.name == name.rstrip("/") or blob.name.startswith(folder)
                ):
                    continue
                yield FileInfo(
                    f"gs://{bucket.name}/{blob.name}",
                    int(blob.size or 0),
                    str(blob.generation or ""),
                    blob.updated or datetime.now(UTC),
                )
        except errors as error:
            raise self._failure("list", prefix, error) from error

    def read(self, uri: str) -> bytes:
        """Return an object's bytes."""
        errors = self._errors()
        bucket, name = self._bucket(uri)
        try:
            return bytes(bucket.blob(name).download_as_bytes(**self._patience()))
        except errors as error:
            raise self._failure("read", uri, error) from error

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return a part of an object's bytes."""
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        errors = self._errors()
        bucket, name = self._bucket(uri)
        if length <= 0:
            return b""
        try:
            part = bucket.blob(name).download_as_bytes(
                start=start, end=start + length - 1, **self._patience()
            )
            return bytes(part)
        except RequestRangeNotSatisfiable:
            return b""  # it begins behind the end
        except errors as error:
            raise self._failure("read", uri, error) from error

    def write(self, uri: str, data: bytes) -> None:
        """Upload an object; Cloud Storage replaces it whole."""
        errors = self._errors()
        bucket, name = self._bucket(uri)
        try:
            bucket.blob(name).upload_from_string(
                data, content_type="application/octet-stream", **self._patience()
            )
        except errors as error:
            raise self._failure("write", uri, error) from error

    def exists(self, uri: str) -> bool:
        """Whether an object, or any object under that prefix, lies there."""
        return next(iter(self.list(uri)), None) is not None

    def delete(self, uri: str) -> None:
        """Remove an object."""
        from google.api_core.exceptions import NotFound

        errors = self._errors()
        bucket, name = self._bucket(uri)
        try:
            bucket.blob(name).delete(**self._patience())
        except NotFound:
            return
        except errors as error:
            raise self._failure("delete", uri, error) from error

    def read_many(
        self, uris: Iterable[str], threads: int = 8
    ) -> Iterator[tuple[str, bytes | StorageError]]:
        """Yield ``(uri, bytes or the error)`` in the order given."""
        return read_together(self, uris, threads)

    def download(self, prefix: str, directory: str | Path) -> Path:
        """Copy the objects under a prefix into a folder."""
        for info in self.list(prefix):
            target = Path(directory) / info.uri[len(prefix.rstrip("/")) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(info.uri))
        return Path(directory)

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Copy a folder under a prefix."""
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                self.write(join(prefix, str(path.relative_to(directory))), path.read_bytes())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]
