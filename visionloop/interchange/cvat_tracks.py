"""Tracks of CVAT: where an object is in each frame of a video, between the frames people drew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

# Frames after which a hand-made file's tracks are no longer filled in: some hundred bytes each.
MOST_FILLED = 2_000_000


@dataclass(frozen=True, slots=True)
class Video:
    """The frames that a task of CVAT shows.

    Attributes:
        source: Name of the video.
        start: First frame, counted from 0.
        stop: Last frame; -1 where it is not known.
        step: Every how many frames one is shown.
        width: Pixels of a frame; 0 where it is not known.
        height: Pixels of a frame.
        subset: The part of the set that it belongs to.
        annotator: Who annotated it.
    """

    source: str = ""
    start: int = 0
    stop: int = -1
    step: int = 1
    width: int = 0
    height: int = 0
    subset: str = ""
    annotator: str = ""

    def between(self, after: int, before: int) -> range:
        """Return the frames that are shown between two others, without these."""
        first = after + 1 + (self.start - after - 1) % self.step
        last = min(before, self.stop + 1) if self.stop >= 0 else before
        return range(max(first, self.start), max(last, 0), self.step)


@dataclass(frozen=True, slots=True)
class Drawn:
    """An object in one frame.

    Attributes:
        frame: The frame, counted from 0.
        corners: x_min, y_min, x_max, y_max in pixels.
        keyframe: A person drew it; otherwise it was filled in.
        outside: The object is not in the picture from here on.
        rotated: The rectangle is turned, so that it is no box.
        attributes: What else is said of it.
    """

    frame: int
    corners: tuple[float, float, float, float]
    keyframe: bool
    outside: bool
    rotated: bool
    attributes: Mapping[str, Any]


def visible(drawn: Sequence[Drawn], video: Video, *, fill: bool = True) -> Iterator[Drawn]:
    """Yield where an object is seen, frame by frame.

    CVAT writes every frame. Of a file that holds what people drew alone, the frames between are
    filled in as CVAT does: the corners move evenly from one keyframe to the next, nothing is there
    after an `outside` one, and the last one stays to the end of the task.

    Args:
        drawn: What a track holds, each frame once.
        video: The frames of its task.
        fill: Whether frames are filled in.
    """
    ordered = sorted(drawn, key=lambda one: one.frame)
    if not fill or any(not one.keyframe for one in ordered):
        yield from (one for one in ordered if not one.outside)
        return
    for one, after in zip_longest(ordered, ordered[1:]):
        if one.outside:
            continue
        yield one
        if after is not None:
            span = after.frame - one.frame
            for frame in video.between(one.frame, after.frame):
                yield _moved(one, after, frame, (frame - one.frame) / span)
        elif video.stop >= 0:
            for frame in video.between(one.frame, video.stop + 1):
                yield replace(one, frame=frame, keyframe=False)


def filled(drawn: Sequence[Drawn], video: Video) -> int:
    """Return how many frames at most `visible` fills in for a track."""
    if not drawn or any(not one.keyframe for one in drawn):
        return 0
    frames = [one.frame for one in drawn]
    return max(*frames, video.stop) - min(frames)


def _moved(one: Drawn, after: Drawn, frame: int, share: float) -> Drawn:
    x_min, y_min, x_max, y_max = (
        a + (b - a) * share for a, b in zip(one.corners, after.corners, strict=True)
    )
    return replace(
        one,
        frame=frame,
        corners=(x_min, y_min, x_max, y_max),
        keyframe=False,
        rotated=one.rotated or after.rotated,
    )
