"""Frames of a video file, through PyAV: which ones, and as which bytes.

The whole video is decoded in the order in which it is shown, by one thread, and frames are counted
from 0; so the same file gives the same frames wherever it is read. The decoder is told to stop at
damage instead of painting over it: the frames before it are kept.

A frame becomes a JPEG of quality 95 without chroma subsampling. A video has lost what a JPEG would
lose long before, a PNG of the same frame is about four times as large, and every stage behind this
one decodes a JPEG faster.
"""

from __future__ import annotations

import errno
import hashlib
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.lake.archives import Damage
from visionloop.lake.identity import frame_id, with_note
from visionloop.lake.storage import StorageError

if TYPE_CHECKING:
    import av
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".flv", ".wmv", ".3gp", ".ogv"),
)
# What a scene's begin is told from: grey values of the whole picture at this size.
THUMB = (64, 36)

_QUALITY = 95
_CHUNK = 1 << 20
# A picture of 8192 by 8192 pixels; as for images, more is a bomb or a mistake.
_MAX_PIXELS = 178_956_970
# What a container declares as its length is rounded, and its last frame may be short.
_SLACK_SECONDS = 0.25


@dataclass(frozen=True)
class Shown:
    """A frame as it is shown, before it is chosen.

    Attributes:
        index: Its place in the video, from 0.
        seconds: When it is shown, counted from the first frame.
        thumb: Its grey values, uint8 [36, 64]; made when it is asked for.
    """

    index: int
    seconds: float
    thumb: Callable[[], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Frame:
    """A frame that was chosen.

    Attributes:
        index: Its place in the video, from 0.
        seconds: When it is shown, counted from the first frame.
        sample_id: Its id.
        data: Its JPEG, with the note of `visionloop.lake.identity`.
        captured_at: The container's time of creation and `seconds`; None where there is none.
    """

    index: int
    seconds: float
    sample_id: str
    data: bytes
    captured_at: datetime | None


class Choice:
    """Which frames are wanted; one object a video, asked once for each frame in order.

    Args:
        every: As in `visionloop.source_config.VideoConfig`.
        scenes: As there.
        indexes: Frames that are asked for by name; None where none are.
    """

    def __init__(
        self,
        *,
        every: float | None = None,
        scenes: float | None = None,
        indexes: frozenset[int] | None = None,
    ) -> None:
        self._every, self._scenes, self._indexes = every, scenes, indexes
        self._next = 0.0
        self._before: Any = None

    def wants(self, shown: Shown) -> bool:
        """Return whether a frame is taken."""
        if self._indexes is not None:
            return shown.index in self._indexes
        if self._every is not None:
            # Times are fractions of a time base: a frame at 1.9999 s is the one at 2 s.
            if shown.seconds + 1e-3 < self._next:
                return False
            self._next = (int((shown.seconds + 1e-3) / self._every) + 1) * self._every
            return True
        assert self._scenes is not None
        thumb = shown.thumb().astype("int16")
        before, self._before = self._before, thumb
        return before is None or float(abs(thumb - before).mean()) / 255 > self._scenes

    @property
    def last(self) -> int | None:
        """The last frame that may be wanted; None where it is not known."""
        return None if self._indexes is None else max(self._indexes, default=-1)


def is_video(uri: str) -> bool:
    """Return whether a name is that of a video."""
    return uri.lower().endswith(SUFFIXES)


def digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file, which is read in pieces, and go back to its beginning."""
    total = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        total.update(chunk)
    file.seek(0)
    return total.hexdigest()


def frames(file: IO[bytes], choice: Choice) -> Iterator[Frame | Damage]:
    """Yield the frames of a video that are wanted, at last the damage if there is any.

    Args:
        file: The video, seekable.
        choice: What is wanted.

    Raises:
        InputError: PyAV is not installed.
        StorageError: The disk cannot be read.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(
            "videos are read with PyAV, which is not installed",
            remedy="Install visionloop[lake], or pip install av",
        ) from error
    video = digest(file)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    place = _Place()
    try:
        with av.open(file, mode="r", metadata_errors="replace") as container:
            stream = _picture_stream(container)
            if stream is None:
                yield Damage("not_an_image", "the file has no video stream")
                return
            if stream.codec_context is None:
                yield Damage("unsupported", "there is no decoder for its video stream")
                return
            yield from _chosen(container, stream, choice, video, place, size)
    except (av.FFmpegError, OSError, OverflowError, ValueError) as error:
        # FFmpeg's own errors, also EIO, are about what it read; a disk's fault comes from below it.
        if not isinstance(error, av.FFmpegError) and getattr(error, "errno", 0) == errno.EIO:
            raise StorageError("cannot read: the disk reports an error") from error
        yield _damage(error, place, size, has_moov=_has_moov(file, size))


@dataclass
class _Place:
    """How far a video was read.

    Attributes:
        offset: Byte at which the last packet began.
        packets: Packets of the stream that were read.
        shown: Frames that were decoded.
        seconds: When the last of them is shown.
        length: For how long a frame is shown.
    """

    offset: int = 0
    packets: int = 0
    shown: int = 0
    seconds: float = 0.0
    length: float = 0.0


def _picture_stream(container: av.container.InputContainer) -> Any:
    from av.stream import Disposition

    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    return moving[0] if moving else None


def _chosen(
    container: Any, stream: Any, choice: Choice, video: str, place: _Place, size: int
) -> Iterator[Frame | Damage]:
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    began = _created(container, stream)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    place.length = 1 / rate
    first: float | None = None
    # What the decoder still holds when the file is over: where the end is cut, frames between them
    # are missing, and these would be counted as the wrong ones.
    delayed: list[Frame] = []
    for packet in container.demux(stream):
        if packet.size:
            place.packets += 1
            place.offset = packet.pos if packet.pos is not None else place.offset
        if packet.is_corrupt:
            raise ValueError("a packet of it is cut")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError("a frame of it is corrupt")
            if frame.width * frame.height > _MAX_PIXELS:
                raise ValueError(f"frames of {frame.width} by {frame.height} pixels")
            time = frame.time if frame.time is not None else place.shown / rate
            first = time if first is None else first
            place.seconds = max(0.0, time - first)
            shown = Shown(place.shown, place.seconds, partial(_thumb, frame))
            place.shown += 1
            if choice.wants(shown):
                index = shown.index
                data = with_note(_jpeg(frame), video, index)
                moment = began + timedelta(seconds=shown.seconds) if began else None
                made = Frame(index, shown.seconds, frame_id(video, index), data, moment)
                if packet.size:
                    yield made
                else:
                    delayed.append(made)
            if packet.size and choice.last is not None and place.shown > choice.last:
                return
    damage = _missing(container, stream, place, size)
    if damage is None:
        yield from delayed
    else:
        yield damage


def _thumb(frame: Any) -> npt.NDArray[np.uint8]:
    small = frame.reformat(*THUMB, format="gray", interpolation="AREA")
    values: npt.NDArray[np.uint8] = small.to_ndarray()
    return values


def _jpeg(frame: Any) -> bytes:
    image = _upright(frame.to_image(), frame.rotation)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=_QUALITY, subsampling=0)
    return target.getvalue()


def _upright(image: Image.Image, degrees: int) -> Image.Image:
    """Turn a picture as the container's display matrix asks, by quarters."""
    from PIL import Image

    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    turn = turns.get(degrees % 360)
    return image if turn is None else image.transpose(turn)


def _created(container: Any, stream: Any) -> datetime | None:
    """Return the time of creation that a container states; many state none, or a clock's zero."""
    text = container.metadata.get("creation_time") or stream.metadata.get("creation_time") or ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment if moment.year > 1970 else None


def _missing(container: Any, stream: Any, place: _Place, size: int) -> Damage | None:
    """Return what a video lacks of the length that it declares: its end may be cut silently."""
    where = f"after byte {place.offset} of {size}"
    if not place.shown:
        return Damage("truncated", f"no frame can be decoded, {where}")
    if stream.frames and place.packets < stream.frames:
        told = f"{place.packets} of {stream.frames} frames are there"
        return Damage("truncated", f"{told}, {where}")
    declared = _declared_seconds(container, stream)
    reached = place.seconds + place.length
    if declared and reached + max(_SLACK_SECONDS, 3 * place.length) < declared:
        return Damage("truncated", f"{reached:.2f} s of {declared:.2f} s are there, {where}")
    return None


def _declared_seconds(container: Any, stream: Any) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # The container's length is that of its longest stream.
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration) / 1e6
    return 0.0


def _damage(error: Exception, place: _Place, size: int, *, has_moov: bool) -> Damage:
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if not size:
        return Damage("empty", "0 bytes")
    if not has_moov:
        return Damage("truncated", f"an MP4 without its whole index (moov), it ends at byte {size}")
    where = f"after frame {place.shown - 1}, " if place.shown else ""
    return Damage(
        "truncated" if "is cut" in told else "corrupt",
        f"{told}, {where}near byte {place.offset} of {size}",
    )


def _has_moov(file: IO[bytes], size: int) -> bool:
    """Return False for an MP4 or MOV without its whole index, which writers put at the end."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        length, name = struct.unpack(">I4s", file.read(8))
        if offset == 0 and name != b"ftyp":
            return True  # another container
        if length == 1 and offset + 16 <= size:
            length = struct.unpack(">Q", file.read(8))[0]
        if name == b"moov":
            return bool(offset + length <= size)
        if length < 8:
            break
        offset += length
    return False
