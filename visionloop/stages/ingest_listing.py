"""Lists the sources, and examines what is listed: what the stages of an ingest share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.stages.sources import label_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.media.intake import Listing
    from visionloop.media.orders import Piece
    from visionloop.media.pieces import Pieces
    from visionloop.progress import Progress


def list_now(
    loop: LoopConfig,
    lake: Lake,
    version: str,
    kept: Pieces,
    *,
    order_size: int,
    inline: int | None = None,
) -> Listing:
    """List the sources of a configuration and compare them with the lake.

    Args:
        loop: The configuration.
        lake: The lake.
        version: Its version.
        kept: Takes the orders.
        order_size: Files in an order.
        inline: Up to so many files are written into no order; None for an order's size.

    Raises:
        StorageError: A source cannot be listed.
    """
    from visionloop.lake.erasing.tombstones import Tombstones
    from visionloop.media.intake import coverage, list_sources
    from visionloop.media.known import COLUMNS, Known

    batches = lake.batches("files", columns=COLUMNS, version=version)
    known = Known.read(
        batches,
        erased=Tombstones.of(lake, version=version),
        covers=coverage(loop.sources, lake.uri),
    )
    return list_sources(
        loop.sources,
        known,
        kept,
        label_files=label_files(loop),
        lake=lake.uri,
        order_size=order_size,
        inline=inline,
        files_at=lake.snapshot("files", version=version),
    )


def examine_pieces(
    loop: LoopConfig, kept: Pieces, pieces: Iterable[Piece], bar: Progress
) -> tuple[int, int]:
    """Examine the pieces that are not finished, and keep each one as it is.

    Args:
        loop: The configuration.
        kept: Takes what becomes of them.
        pieces: The pieces.
        bar: Counts files.

    Returns:
        Files that were finished before, and files that were examined.

    Raises:
        StorageError: The lake cannot be written.
    """
    from visionloop.media.sources import CONTAINER, Source, open_source

    sources: dict[int, Source] = {}
    finished = kept.finished()
    before = 0
    begun = bar.done
    for piece in pieces:
        if any(work.entry.role == CONTAINER for work in piece.work):
            bar.total = None  # nobody knows what it holds
        if piece.name in finished:
            before += piece.weight
            bar.advance(piece.weight)
            continue
        number = piece.source
        if number not in sources:
            sources[number] = open_source(loop.sources[number], label_files=label_files(loop))
        told = loop.sources[number]
        exif = told.metadata == "all"
        kept.examine(sources[number], piece, copy=told.copy_media, exif=exif, advance=bar.advance)
    return before, bar.done - begun - before
