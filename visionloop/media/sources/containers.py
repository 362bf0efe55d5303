"""A source whose tars and videos are opened: what they hold are its samples."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator
from contextlib import closing
from typing import IO, TYPE_CHECKING

from visionloop.lake.anywhere import Anywhere
from visionloop.lake.archive_storage import temporary
from visionloop.lake.archives import Damage, is_tar
from visionloop.lake.storage import (
    FileInfo,
    Storage,
    StorageError,
    join,
    local_path,
    name_of,
    relative,
    scheme_of,
)
from visionloop.media.sources.entries import (
    CONTAINER,
    HIDDEN,
    INSIDE,
    MEDIA,
    Entry,
    Member,
)
from visionloop.media.sources.frame_names import FrameNames
from visionloop.media.sources.frames import Choice, frames, is_video
from visionloop.media.sources.named import nowhere
from visionloop.media.sources.shards import tar_members

if TYPE_CHECKING:
    from visionloop.media.sources import Source
    from visionloop.source_config import SourceConfig, VideoConfig

_CHUNK = 8 << 20


class OpenedContainers:
    """A source, and what its containers hold.

    Args:
        inner: What lists the files.
        source: Its configuration.
    """

    def __init__(self, inner: Source, source: SourceConfig) -> None:
        self._inner = inner
        self._labels = source.labels
        self._sidecars = source.metadata != "none"
        self._tars = source.resolved_kind == "tar"
        self._video = source.video
        self._copy = source.copy_media
        self._asked: FrameNames | None = None
        self._anywhere = Anywhere(spool=True)

    @property
    def root(self) -> str:
        """The URI of the source."""
        return self._inner.root

    @property
    def storage(self) -> Storage:
        """What reads files, and members of tars."""
        return self._anywhere

    def entries(self) -> Iterator[Entry]:
        """Yield what the source lists; what is opened has the role of a container."""
        if self._video is not None and self._video.frames:
            yield from self._asked_for(self._video)
            return
        for entry in self._inner.entries():
            if entry.role != MEDIA or entry.reason:
                yield entry
            elif self._tars and is_tar(entry.info.uri):
                # Members are read again once their labels are wanted.
                tagged = self._labels in ("folder", "source")
                way = f"labels={self._labels}" if tagged else ""
                yield _tagged(entry, way)
            elif self._video is not None and is_video(entry.info.uri):
                yield _tagged(entry, _way(self._video))
            else:
                yield entry

    def _asked_for(self, video: VideoConfig) -> Iterator[Entry]:
        """Yield the files; of the videos those of which frames are asked for."""
        names = self._names(video)
        matched = names.matched(self._videos())
        problems = [
            Entry(nowhere(join(self.root, name)), reason=reason)
            for reason, these in (
                ("no_such_video", names.without(matched.values())),
                ("bad_frame_name", sorted(names.malformed)),
            )
            for name in these
        ]

        def listed() -> Iterator[Entry]:
            for entry in self._inner.entries():
                if entry.role != MEDIA or entry.reason or not is_video(entry.info.uri):
                    yield entry
                elif (path := self._path(entry.info.uri)) in matched:
                    yield _tagged(entry, f"frames={names.digest(matched[path])}")
                else:
                    yield dataclasses.replace(entry, role=HIDDEN, sidecars=())

        problems.sort(key=lambda entry: entry.info.uri)
        yield from heapq.merge(listed(), problems, key=lambda entry: entry.info.uri)

    def _names(self, video: VideoConfig) -> FrameNames:
        if self._asked is None:
            self._asked = FrameNames.read(video.frames)
        return self._asked

    def _videos(self) -> Iterator[str]:
        for entry in self._inner.entries():
            if entry.role == MEDIA and not entry.reason and is_video(entry.info.uri):
                yield self._path(entry.info.uri)

    def _path(self, uri: str) -> str:
        below = uri.startswith(self.root.rstrip("/") + "/")
        return relative(self.root, uri) if below else name_of(uri)

    def members(self, entry: Entry, skip: int = 0) -> Iterator[Member]:
        """Yield what a tar or a video holds."""
        if is_tar(entry.info.uri):
            archive = self._anywhere.archives.archive(entry.info.uri)
            yield from tar_members(
                archive, entry, skip, labels=self._labels, sidecars=self._sidecars, copy=self._copy
            )
            return
        with closing(self._video_file(entry.info)) as file:
            for place, member in enumerate(self._frames(file, entry)):
                if place >= skip:
                    yield member

    def _video_file(self, info: FileInfo) -> IO[bytes]:
        if scheme_of(info.uri) == "file":
            try:
                return local_path(info.uri).open("rb")
            except OSError as error:
                raise StorageError(f"cannot read: {error.strerror}", where=info.uri) from error
        copy = temporary()
        for start in range(0, info.size, _CHUNK):
            length = min(_CHUNK, info.size - start)
            copy.write(self._anywhere.read_range(info.uri, start, length, info.generation))
        copy.seek(0)
        return copy

    def _frames(self, file: IO[bytes], entry: Entry) -> Iterator[Member]:
        video = self._video
        assert video is not None  # else no video is a container
        asked: dict[int, str] | None = None
        if video.frames:
            names, path = self._names(video), self._path(entry.info.uri)
            asked = names.of(path) or names.of(name_of(entry.info.uri))
        choice = Choice(
            every=video.every,
            scenes=video.scenes,
            indexes=None if asked is None else frozenset(asked),
        )
        left = dict(asked or {})
        damaged = False
        for found in frames(file, choice):
            if isinstance(found, Damage):
                damaged = True
                yield _fault(entry, "?damaged", found.reason, found.detail)
                continue
            left.pop(found.index, None)
            values = {
                **entry.values,
                "video": entry.info.uri,
                "video_frame": found.index,
                "video_seconds": round(found.seconds, 6),
            }
            info = dataclasses.replace(
                entry.info,
                uri=f"{entry.info.uri}{INSIDE}{found.index:08d}.jpg",
                size=len(found.data),
            )
            yield Member(
                dataclasses.replace(entry, info=info, role=MEDIA, values=values),
                found.data,
                sample_id=found.sample_id,
                keep=True,
                captured_at=found.captured_at,
            )
        told = "lies behind the damage" if damaged else "the video has no such frame"
        for index, name in sorted(left.items()):
            yield _fault(entry, f"{index:08d}.jpg", "no_such_frame", f"{name}: {told}")


def _way(video: VideoConfig) -> str:
    return f"every={video.every!r}" if video.every is not None else f"scenes={video.scenes!r}"


def _tagged(entry: Entry, way: str) -> Entry:
    """Return a file as a container; read in another way it holds something else."""
    generation = f"{entry.info.generation};{way}" if way else entry.info.generation
    info = dataclasses.replace(entry.info, generation=generation)
    return dataclasses.replace(entry, info=info, role=CONTAINER)


def _fault(entry: Entry, name: str, reason: str, detail: str) -> Member:
    info = dataclasses.replace(entry.info, uri=f"{entry.info.uri}{INSIDE}{name}", size=0)
    return Member(Entry(info), None, unreadable=reason, detail=detail)
