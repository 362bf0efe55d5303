"""Bytes in Google Cloud Storage, through google-cloud-storage."""

from __future__ import annotations

import io
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from visionloop import environment
from visionloop.errors import InputError
from visionloop.lake.storage.google_errors import failure, raised
from visionloop.lake.storage.google_upload import PART, Corrupted, checksum, send
from visionloop.lake.storage.interface import (
    FileInfo,
    StorageError,
    stored_generation,
)
from visionloop.lake.storage.reading import read_together
from visionloop.lake.storage.uris import join

if TYPE_CHECKING:
    from google.cloud import storage as gcs

# What is asked of a listing: without it, each object comes with all its metadata.
_FIELDS = "items(name,size,generation,updated),nextPageToken"
# What an object that is stored packed may unpack to.
_MAX_UNPACKED = 1 << 30
# Times that bytes are asked for whose checksum is wrong.
_TRIES = 3


class GoogleCloudStorage:
    """Objects in Cloud Storage."""

    def __init__(self) -> None:
        self._client: gcs.Client | None = None

    def _at(self, uri: str) -> tuple[gcs.Bucket, str]:
        """Return bucket and name of an object; the name is whatever follows, ``//`` and all."""
        if self._client is None:
            self._client = _client(uri)
        bucket, _, name = uri[len("gs://") :].partition("/")
        if not bucket:
            raise InputError("a gs:// URI needs a bucket", where=uri)
        return self._client.bucket(bucket), name

    def list(self, prefix: str) -> Iterator[FileInfo]:
        """Yield the objects at or under a prefix; ``a/b`` does not match ``a/bc``.

        Memory holds one page of the listing, a thousand objects. What stands for an empty folder,
        an object of 0 bytes whose name ends with a slash, is left out.
        """
        return self._list(prefix)

    def _list(self, prefix: str, page_size: int | None = None) -> Iterator[FileInfo]:
        bucket, name = self._at(prefix)
        name = name.rstrip("/")
        try:
            # Listed by itself: a listing of `a/b` goes through all of `a/b-old/`, too.
            alone = bucket.get_blob(name, **_patience()) if name else None
            if alone is not None:
                yield _info(alone)
            for blob in bucket.client.list_blobs(
                bucket,
                prefix=f"{name}/" if name else None,
                fields=_FIELDS,
                page_size=page_size,
                **_patience(),
            ):
                if blob.size or not blob.name.endswith("/"):
                    yield _info(blob)
        except raised() as error:
            raise failure("list", prefix, error) from error

    def read(self, uri: str) -> bytes:
        """Return an object's bytes, unpacked where it is stored with ``Content-Encoding: gzip``.

        Its checksum is verified.
        """
        return self._read(uri, "")

    def read_listed(self, info: FileInfo) -> bytes:
        """Return the bytes of the generation that a listing found, and of no other."""
        return self._read(info.uri, info.generation)

    def _read(self, uri: str, generation: str) -> bytes:
        bucket, name = self._at(uri)
        into = io.BytesIO()
        try:
            blob = _fetch(bucket, name, generation, into)
        except raised() as error:
            raise failure("read", uri, error) from error
        data = into.getvalue()
        return _unpacked(data, uri) if blob.content_encoding == "gzip" else data

    def read_range(self, uri: str, start: int, length: int, generation: str = "") -> bytes:
        """Return a part of an object's bytes as they are stored; see `GoogleCloudStorage.read`.

        Of one with ``Content-Encoding: gzip`` they are a part of the packed bytes.
        """
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        bucket, name = self._at(uri)
        if length <= 0:
            return b""
        try:
            # As they are stored: of what is unpacked on its way there are no ranges.
            part = bucket.blob(name).download_as_bytes(
                start=start,
                end=start + length - 1,
                raw_download=True,
                checksum=None,
                if_generation_match=_number(generation),
                **_patience(),
            )
            return bytes(part)
        except RequestRangeNotSatisfiable:
            return b""  # it begins behind the end
        except raised() as error:
            raise failure("read", uri, error) from error

    def write(self, uri: str, data: bytes) -> None:
        """Upload an object; Cloud Storage replaces it whole."""
        self._write(uri, io.BytesIO(data), len(data))

    def _write(self, uri: str, source: IO[bytes], size: int) -> None:
        bucket, name = self._at(uri)
        try:
            # Either compares the checksum of what it sent with that of what was stored.
            if size > PART:
                send(bucket.blob(name), source, size, _patience())
            else:
                bucket.blob(name, chunk_size=PART).upload_from_file(
                    source, size=size, content_type="application/octet-stream", **_patience()
                )
        except raised() as error:
            raise failure("write", uri, error) from error

    def exists(self, uri: str) -> bool:
        """Whether an object, or any object under that prefix, lies there."""
        return next(self._list(uri, page_size=10), None) is not None

    def delete(self, uri: str) -> None:
        """Remove an object."""
        from google.api_core.exceptions import NotFound

        bucket, name = self._at(uri)
        try:
            bucket.blob(name).delete(**_patience())
        except NotFound:
            return
        except raised() as error:
            raise failure("delete", uri, error) from error

    def read_many(
        self, uris: Iterable[str], threads: int = 8
    ) -> Iterator[tuple[str, bytes | StorageError]]:
        """Yield ``(uri, bytes or the error)`` in the order given."""
        return read_together(self, uris, threads)

    def download(self, prefix: str, directory: str | Path) -> Path:
        """Copy the objects under a prefix into a folder, each one whole or not at all."""
        top = prefix.rstrip("/")
        for info in self.list(prefix):
            place = info.uri[len(top) + 1 :] or info.uri.rpartition("/")[2]
            self._download(info, _inside(Path(directory), place, info.uri))
        return Path(directory)

    def _download(self, info: FileInfo, target: Path) -> None:
        bucket, name = self._at(info.uri)
        temporary = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:99]}.")
            with os.fdopen(handle, "w+b") as file:
                blob = _fetch(bucket, name, info.generation, file)
                if blob.content_encoding == "gzip":
                    file.seek(0)
                    unpacked = _unpacked(file.read(), info.uri)
                    file.seek(0)
                    file.truncate()
                    file.write(unpacked)
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
            temporary = None
        except raised() as error:
            raise failure("download", info.uri, error) from error
        finally:
            if temporary:
                Path(temporary).unlink(missing_ok=True)

    def upload(self, directory: str | Path, prefix: str) -> None:
        """Copy a folder under a prefix."""
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                uri = join(prefix, str(path.relative_to(directory)))
                with path.open("rb") as file:
                    self._write(uri, file, path.stat().st_size)


def _client(uri: str) -> gcs.Client:
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage as gcs

    try:
        if environment.storage_emulator():
            anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
            return gcs.Client("emulated", credentials=anonymous)
        return gcs.Client()
    except DefaultCredentialsError as error:
        raise InputError(
            "no Google credentials were found",
            where=uri,
            remedy="Run `gcloud auth application-default login`, or give the pod a service "
            "account with Workload Identity",
        ) from error


def _patience() -> dict[str, Any]:
    """Return for how long a request waits and is tried again."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    seconds = environment.storage_timeout()
    again = DEFAULT_RETRY.with_timeout(seconds).with_delay(initial=0.5, maximum=30.0)
    return {"retry": again, "timeout": min(60.0, seconds)}


def _number(generation: str) -> int | None:
    own = stored_generation(generation)
    return int(own) if own.isdigit() else None


def _info(blob: gcs.Blob) -> FileInfo:
    return FileInfo(
        f"gs://{blob.bucket.name}/{blob.name}",
        int(blob.size or 0),
        str(blob.generation or ""),
        blob.updated or datetime.now(UTC),
    )


def _fetch(bucket: gcs.Bucket, name: str, generation: str, into: IO[bytes]) -> gcs.Blob:
    """Copy an object as it is stored into a file, and verify it.

    Verified here: the client leaves it when a broken connection made it go on in the middle.
    """
    from google.api_core.exceptions import NotFound

    for _ in range(_TRIES):
        blob = bucket.blob(name)
        into.seek(0)
        into.truncate()
        try:
            blob.download_to_file(
                into,
                raw_download=True,
                checksum=None,
                if_generation_match=_number(generation),
                **_patience(),
            )
        except NotFound:
            # It went on after a broken connection, and the generation that it began with is gone.
            if not into.tell():
                raise
            continue
        if _is_whole(blob, into):
            return blob
    raise Corrupted(
        f"its checksum is wrong, or it is overwritten meanwhile, {_TRIES} times in a row"
    )


def _is_whole(blob: gcs.Blob, file: IO[bytes]) -> bool:
    """Compare the CRC32C, which every object has; composite ones have no MD5."""
    return not blob.crc32c or checksum(file) == blob.crc32c  # an emulator may tell none


def _unpacked(data: bytes, uri: str) -> bytes:
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(data, _MAX_UNPACKED)
    except zlib.error as error:
        raise StorageError(
            f"cannot read: it says `Content-Encoding: gzip`, and {error}",
            where=uri,
            remedy="Correct it: gcloud storage objects update --clear-content-encoding",
        ) from error
    if not unpacker.eof:
        more = len(plain) >= _MAX_UNPACKED
        why = f"unpacks to more than {_MAX_UNPACKED} bytes" if more else "ends early"
        raise StorageError(f"cannot read: its gzip {why}", where=uri)
    return plain


def _inside(folder: Path, place: str, uri: str) -> Path:
    """Return where an object comes to lie; one that would lie elsewhere is refused."""
    parts = place.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in place:
        raise StorageError(
            "an object's name is no path of a file",
            where=uri,
            remedy="Rename it: no `..`, no `//`, no slash at the end",
        )
    return folder.joinpath(*parts)
