"""The configuration's sources, looked at before anything is read from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


def check_sources(loop: LoopConfig) -> None:
    """Refuse sources that are not there.

    Raises:
        InputError: The configuration names no source, or one of them, or its table of labels, does
            not exist.
        StorageError: A source may not be looked at.
    """
    from visionloop.lake.storage import normalise, open_storage

    if not loop.sources:
        raise InputError(
            "the configuration names no source of images",
            where="sources",
            remedy="Add `sources:` with a `uri:`, or give --source",
        )
    for source in loop.sources:
        if not open_storage(source.uri).exists(normalise(source.uri)):
            raise InputError(
                f"the source {source.uri!r} does not exist",
                where="sources",
                remedy="Check the path, or the bucket's name and prefix",
            )
        if source.labels not in ("none", "folder") and not open_storage(source.labels).exists(
            normalise(source.labels)
        ):
            raise InputError(
                f"the labels {source.labels!r} of a source do not exist",
                where="sources.labels",
                remedy="Use `none`, `folder`, or the URI of a CSV file with file,label",
            )


def label_files(loop: LoopConfig) -> list[str]:
    """Return the URIs of the tables of labels that may lie among the media of a source."""
    named = [source.labels for source in loop.sources] + [loop.labeling.labels]
    return [uri for uri in named if uri not in ("", "none", "folder")]
