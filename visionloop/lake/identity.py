"""Which sample some bytes are.

A sample's id is the SHA-256 of its encoded bytes. A frame of a video is encoded by this program, so
that its bytes may change with the encoder; its id is therefore derived from the video:

    SHA-256 of the text ``<SHA-256 of the video's bytes, hexadecimal>:<frame's index, from 0>``

A frame is kept as a JPEG that carries a comment segment with both, and with the SHA-256 of the rest
of the file. So the bytes alone tell which sample they are, and whether they were changed.
"""

from __future__ import annotations

import hashlib
import re
import struct

_NOTE = re.compile(
    rb"visionloop-frame 1 video=([0-9a-f]{64}) index=(0|[1-9][0-9]{0,11}) rest=([0-9a-f]{64})"
)
_COMMENT = b"\xff\xfe"
# A JPEG begins with its start marker and the segment JFIF; a note is looked for no further on.
_WITHIN = 256


def frame_id(video_sha256: str, index: int) -> str:
    """Return the id of a frame.

    Args:
        video_sha256: SHA-256 of the video's bytes, in lower-case hexadecimal.
        index: The frame's place in the video as it is shown, from 0.
    """
    return hashlib.sha256(f"{video_sha256}:{index}".encode()).hexdigest()


def with_note(jpeg: bytes, video_sha256: str, index: int) -> bytes:
    """Return a JPEG with the comment that names the frame which it is.

    Args:
        jpeg: A JPEG that begins with the segment JFIF.
        video_sha256: As in `frame_id`.
        index: As in `frame_id`.

    Raises:
        ValueError: The bytes begin as no such JPEG.
    """
    if jpeg[:4] != b"\xff\xd8\xff\xe0":
        raise ValueError("not a JPEG with the segment JFIF")
    place = 4 + struct.unpack_from(">H", jpeg, 4)[0]
    rest = hashlib.sha256(jpeg).hexdigest()
    note = f"visionloop-frame 1 video={video_sha256} index={index} rest={rest}".encode()
    return jpeg[:place] + _COMMENT + struct.pack(">H", 2 + len(note)) + note + jpeg[place:]


def is_sample(sample_id: str, data: bytes) -> bool:
    """Return whether bytes are those that a sample's id was made of.

    A note is believed only where the whole file bears it out. That is for files which this program
    wrote: what a source brings is named by its bytes, whatever notes they carry.
    """
    if hashlib.sha256(data).hexdigest() == sample_id:
        return True
    found = _NOTE.search(data, 0, _WITHIN) if data[:2] == b"\xff\xd8" else None
    if found is None:
        return False
    video, index, rest = (part.decode("ascii") for part in found.groups())
    if frame_id(video, int(index)) != sample_id:
        return False
    plain = data[: found.start() - len(_COMMENT) - 2] + data[found.end() :]
    return hashlib.sha256(plain).hexdigest() == rest
