"""Reading pictures wherever they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.lake.storage import StorageError


def read_media(lake: Lake, uris: Iterable[str]) -> Iterator[tuple[str, bytes | StorageError]]:
    """Yield the bytes of each picture once, in the order of scheme and URI, or why there are none.

    Args:
        lake: The lake, whose own storage is used where a picture lies in it.
        uris: Where the pictures lie; empty ones are left out.
    """
    from visionloop.lake.storage import open_storage, scheme_of

    by_scheme: dict[str, list[str]] = {}
    for uri in sorted({uri for uri in uris if uri}):
        by_scheme.setdefault(scheme_of(uri), []).append(uri)
    for scheme, wanted in sorted(by_scheme.items()):
        storage = lake.storage if scheme == scheme_of(lake.uri) else open_storage(wanted[0])
        yield from storage.read_many(wanted)
