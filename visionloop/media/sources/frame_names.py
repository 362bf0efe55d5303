"""Frames that are asked for by name, in the form of LightlyOne: ``{video}-{frame}-{ext}.png``.

``street/clip-099-mp4.png`` is frame 99, counted from 0, of ``street/clip.mp4`` below the source. A
name without folders also finds a video in a folder, where only one has that name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from visionloop.errors import InputError
from visionloop.lake.storage import open_storage

_NAME = re.compile(r"(?P<stem>.+)-(?P<frame>\d{1,12})-(?P<ext>[A-Za-z0-9]+)\.(?:png|jpg|jpeg)")


class FrameNames:
    """Which frames of which videos are asked for.

    Args:
        names: The frames' names.

    Attributes:
        malformed: Names that are not of this form.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.malformed: set[str] = set()
        self._wanted: dict[str, dict[int, str]] = {}
        for name in names:
            found = _NAME.fullmatch(name)
            if found is None:
                self.malformed.add(name)
                continue
            video = f"{found['stem']}.{found['ext']}"
            self._wanted.setdefault(video, {}).setdefault(int(found["frame"]), name)

    @classmethod
    def read(cls, uri: str) -> FrameNames:
        """Read a text file with one name a line.

        Raises:
            InputError: It is no text, or names no frame.
            StorageError: It cannot be read.
        """
        try:
            text = open_storage(uri).read(uri).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                "the list of frames is no UTF-8 text", where=uri, remedy="Write one name a line"
            ) from error
        names = [line.strip() for line in text.splitlines()]
        made = cls(name for name in names if name and not name.startswith("#"))
        if not made._wanted:
            raise InputError(
                "the list names no frame",
                where=uri,
                remedy="Write names such as clip-099-mp4.png, one a line",
            )
        return made

    def matched(self, videos: Iterable[str]) -> dict[str, str]:
        """Return which of some videos each asked-for name means.

        Args:
            videos: Paths below the source.

        Returns:
            The name of the video in the list, by path.
        """
        paths = set(videos)
        by_last: dict[str, list[str]] = {}
        for path in paths:
            by_last.setdefault(path.rpartition("/")[2], []).append(path)
        found = {}
        for video in self._wanted:
            if video in paths:
                found[video] = video
            elif "/" not in video and len(by_last.get(video, ())) == 1:
                found[by_last[video][0]] = video
        return found

    def of(self, video: str) -> dict[int, str]:
        """Return the names asked for of one video of the list, by their frame's index."""
        return self._wanted.get(video, {})

    def without(self, matched: Iterable[str]) -> list[str]:
        """Return the names whose video is none of those that were matched."""
        rest = set(self._wanted) - set(matched)
        return sorted(name for video in rest for name in self._wanted[video].values())

    def digest(self, video: str) -> str:
        """Return what changes when other frames of a video are asked for."""
        indexes = ",".join(map(str, sorted(self._wanted.get(video, {}))))
        return hashlib.sha256(indexes.encode()).hexdigest()[:16]
