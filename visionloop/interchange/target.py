"""Where a set is written to: visible whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from visionloop.errors import InputError, VisionloopError
from visionloop.interchange.places import SUMMARY, below
from visionloop.lake.storage import local_path, normalise, open_storage, scheme_of


class Target(AbstractContextManager["Target"]):
    """A folder or bucket prefix that a set is written to.

    A folder is written beside its place and renamed into it by `finish`. A bucket cannot rename:
    there the summary is written last, and a prefix without one is not whole.

    Args:
        uri: The folder or prefix.
        force: Replace the set that an export has put there.

    Raises:
        InputError: Something is there already, and `force` was not given, or it is no export.
    """

    def __init__(self, uri: str, *, force: bool = False) -> None:
        self.uri = normalise(uri)
        self._local = scheme_of(self.uri) == "file"
        self._storage = open_storage(self.uri)
        self._open: dict[str, IO[bytes]] = {}
        if not force and self._occupied():
            raise InputError(
                "the target is not empty",
                where=uri,
                remedy="Name another folder, or replace an earlier export with --force",
            )
        if force and self._occupied() and not self._storage.exists(below(self.uri, SUMMARY)):
            raise InputError(
                f"--force replaces an export alone, and there is no {SUMMARY} at the target",
                where=uri,
                remedy="Name another folder, or remove yourself what is there",
            )
        if self._local:
            place = local_path(self.uri)
            if place.is_file():
                raise InputError("the target is a file", where=uri, remedy="Name a folder")
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                made = tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.")
            except OSError as error:
                raise InputError(
                    f"cannot write here: {error.strerror}",
                    where=uri,
                    remedy="Check the rights on the folder above it",
                ) from error
            self._folder = Path(made)
        else:
            for info in list(self._storage.list(self.uri)) if force else []:
                self._storage.delete(info.uri)
            self._folder = Path(tempfile.mkdtemp(prefix="visionloop-export-"))

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk, where links can be."""
        return self._local

    def _occupied(self) -> bool:
        if not self._local:
            return self._storage.exists(self.uri)
        place = local_path(self.uri)
        return place.is_file() or (place.is_dir() and any(place.iterdir()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._open.values():
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole."""
        if self._local:
            with self._new(path).open("xb") as file:
                file.write(data)
        else:
            self._storage.write(below(self.uri, checked(path)), data)

    def link(self, path: str, uri: str) -> None:
        """Put a symbolic link to a local file."""
        os.symlink(local_path(uri), self._new(path))

    def open(self, path: str) -> IO[bytes]:
        """Return a file that grows until `finish`; the same one for the same path."""
        if path not in self._open:
            self._open[path] = self._new(path).open("xb")
        return self._open[path]

    def close(self, path: str) -> Path:
        """Close a file that `open` gave, and return where it lies until `finish`."""
        self._open.pop(path).close()
        return self._folder / path

    def scratch(self) -> IO[bytes]:
        """Return a file that is no part of the set."""
        return tempfile.TemporaryFile(dir=self._folder)

    def finish(self, summary: dict[str, Any]) -> None:
        """Put the set into its place, with what is to be known of it.

        Raises:
            VisionloopError: It cannot be put there.
        """
        for file in self._open.values():
            file.close()
        told = json.dumps(summary, indent=1, default=str, ensure_ascii=False).encode() + b"\n"
        if not self._local:
            self._storage.upload(self._folder, self.uri)
            self._storage.write(below(self.uri, SUMMARY), told)
            return
        self._new(SUMMARY).write_bytes(told)
        self._folder.chmod(0o755)
        place = local_path(self.uri)
        try:
            if not place.is_dir() or not any(place.iterdir()):
                os.rename(self._folder, place)
                return
            old = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.old."))
            os.rename(place, old)
            os.rename(self._folder, place)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise VisionloopError(
                f"cannot put the set into its place: {error.strerror}",
                where=str(place),
                remedy="Check the rights on the folder, and run this again",
            ) from error

    def _new(self, path: str) -> Path:
        place = self._folder.joinpath(*checked(path).split("/"))
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def checked(path: str) -> str:
    """Return a path that stays below the root of a set.

    Raises:
        InputError: It does not.
    """
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InputError(f"{path!r} cannot name a file of a set", remedy="Rename the image")
    return path
