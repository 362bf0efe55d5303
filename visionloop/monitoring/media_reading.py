"""Reading pictures wherever they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.lake.storage import StorageError


def read_media(lake: Lake, uris: Iterable[str]) -> Iterator[tuple[str, bytes | StorageError]]:
    """Yield the bytes of each picture once, in the order of storage and URI, or why not.

    Args:
        lake: The lake, whose own storage is used where a picture lies in it.
        uris: Where the pictures lie; empty ones are left out.
    """
    from visionloop.lake.storage import open_storage, storage_of

    by_storage: dict[str, list[str]] = {}
    for uri in sorted({uri for uri in uris if uri}):
        by_storage.setdefault(storage_of(uri), []).append(uri)
    for name, wanted in sorted(by_storage.items()):
        storage = lake.storage if name == storage_of(lake.uri) else open_storage(wanted[0])
        yield from storage.read_many(wanted)
