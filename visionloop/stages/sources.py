"""The configuration's sources, looked at before anything is read from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.media.sources import OPENERS

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.media.sources import Source
    from visionloop.source_config import SourceConfig


def _logged_images(source: SourceConfig) -> Source:
    from visionloop.serving.logged_images import LoggedImages

    return LoggedImages(source)


# `visionloop.media.sources` cannot import the room that reads these.
OPENERS["events"] = _logged_images


def check_sources(loop: LoopConfig) -> None:
    """Refuse sources that are not there.

    Raises:
        InputError: The configuration names no source, or one of them, its table of labels or its
            list of frames does not exist or cannot be read.
        StorageError: A source may not be looked at.
    """
    from visionloop.lake.storage import normalise, open_storage
    from visionloop.media.sources.braces import expand
    from visionloop.media.sources.frame_names import FrameNames

    if not loop.sources:
        raise InputError(
            "the configuration names no source of images",
            where="sources",
            remedy="Add `sources:` with a `uri:`, or give --source",
        )
    for source in loop.sources:
        if source.resolved_kind == "tar" and "{" in source.uri:
            expand(source.uri)  # a missing one of them is counted
        elif not open_storage(source.uri).exists(normalise(source.uri)):
            raise InputError(
                f"the source {source.uri!r} does not exist",
                where="sources",
                remedy="Check the path, or the bucket's name and prefix",
            )
        if source.video and source.video.frames:
            FrameNames.read(source.video.frames)
        if source.labels not in ("none", "folder", "source") and not open_storage(
            source.labels
        ).exists(normalise(source.labels)):
            raise InputError(
                f"the labels {source.labels!r} of a source do not exist",
                where="sources.labels",
                remedy="Use `none`, `folder`, `source`, or the URI of a CSV file with file,label",
            )


def label_files(loop: LoopConfig) -> list[str]:
    """Return the URIs of the tables of labels that may lie among the media of a source."""
    named = [source.labels for source in loop.sources] + [loop.labeling.labels]
    return [uri for uri in named if uri not in ("", "none", "folder", "source")]
