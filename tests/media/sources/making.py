"""Real tars and videos, for the tests of sources."""

from __future__ import annotations

import io
import json
import tarfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from visionloop.media.sources import CONTAINER, Entry, Member, Source, open_source
from visionloop.source_config import SourceConfig
from visionloop.stages import sources as _opened_by_stages  # noqa: F401

RATE = 25


def source_of(uri: Path | str, **settings: Any) -> Source:
    return open_source(SourceConfig(uri=str(uri), **settings))


def held(source: Source) -> list[Member]:
    """Return all that the containers of a source hold."""
    return [
        member
        for entry in source.entries()
        if entry.role == CONTAINER
        for member in source.members(entry)
    ]


def make_bucket(address: str, name: str) -> None:
    """Make a bucket of the emulator."""
    request = urllib.request.Request(
        f"{address}/storage/v1/b?project=p",
        json.dumps({"name": name}).encode(),
        {"content-type": "application/json"},
    )
    urllib.request.urlopen(request).read()


def names(found: list[Member] | list[Entry]) -> list[str]:
    """Return the ends of URIs: what lies behind the last `!/`, or the file's name."""
    entries = [one.entry if isinstance(one, Member) else one for one in found]
    return [entry.info.uri.rpartition("!/")[2].rpartition("/")[2] for entry in entries]


def tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def moving(index: int) -> NDArray[np.uint8]:
    """Return frame `index` of a picture with a white block that moves, and tells the index."""
    frame = np.full((96, 160, 3), 40, np.uint8)
    frame[20:60, (index * 3) % 140 : (index * 3) % 140 + 20] = 230
    return frame


def video(
    path: Path,
    frames: int = 50,
    picture: Callable[[int], NDArray[np.uint8]] = moving,
    codec: str = "libx264",
    *,
    rotation: int = 0,
    created: str = "",
    **options: str,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        if created:
            container.metadata["creation_time"] = created
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = 160, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
