"""What a tar holds: images, and beside them what WebDataset puts there.

Members that share a folder and a name up to its first dot belong together, wherever they stand in
the tar: ``000/cat7.jpg``, ``000/cat7.json`` (metadata), ``000/cat7.cls`` (its label) and
``000/cat7.txt`` (a caption, the metadata column ``caption``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from visionloop.lake.archive_storage import Archive
from visionloop.lake.archives import Damage, is_compressed, member_uri
from visionloop.lake.archives import Member as Stored
from visionloop.lake.storage import INSIDE, FileInfo
from visionloop.media.listing import is_hidden
from visionloop.media.sources.entries import MEDIA, Entry, Member

_SIDECAR, _LABEL, _CAPTION = "json", "cls", "txt"
_BESIDE = (_SIDECAR, _LABEL, _CAPTION)
# A label is a name or a number; a file with more in it is no label.
_LABEL_BYTES, _CAPTION_BYTES = 1024, 65_536


def tar_members(
    archive: Archive, container: Entry, skip: int, *, labels: str, sidecars: bool, copy: bool
) -> Iterator[Member]:
    """Yield the media of a tar in the order of their places, at last the damage if there is any.

    Memory holds some 300 bytes a member.

    Args:
        archive: The tar.
        container: Its entry.
        skip: Leave out so many at the beginning, without reading them.
        labels: ``source``: ``.cls`` files are labels; ``folder``: the folders' names are.
        sidecars: Whether ``.json`` and ``.txt`` files are metadata.
        copy: Whether the source is copied into the lake anyway.

    Raises:
        StorageError: The tar cannot be read now.
    """
    stored: list[Stored] = []
    damage: Damage | None = None
    for item in archive:
        if isinstance(item, Damage):
            damage = item
        elif item.reason or not is_hidden(f"/{item.name}"):
            stored.append(item)
    media, beside = _grouped(stored)
    uri = container.info.uri
    for place, item in enumerate(media):
        if place < skip:
            continue
        info = FileInfo(
            member_uri(uri, item), item.size, container.info.generation, container.info.updated
        )
        if item.reason:
            yield Member(Entry(info), None, unreadable=item.reason, detail=item.detail)
            continue
        data = archive.read(item.offset, item.size)
        if len(data) < item.size:
            yield Member(Entry(info), None, unreadable="truncated", detail="the tar has shrunk")
            continue
        entry = Entry(info, MEDIA)
        found = beside.get(_key(item.name), {})
        if sidecars and _SIDECAR in found:
            inside = found[_SIDECAR]
            beside_info = dataclasses.replace(info, uri=member_uri(uri, inside), size=inside.size)
            entry = dataclasses.replace(entry, sidecars=(beside_info,))
        if sidecars and (caption := _text(archive, found.get(_CAPTION), _CAPTION_BYTES)):
            entry = dataclasses.replace(entry, values={"caption": caption})
        label = ""
        if labels == "source":
            label = _text(archive, found.get(_LABEL), _LABEL_BYTES)
        elif labels == "folder":
            label = item.name.rpartition("/")[0].rpartition("/")[2] or container.label
        entry = dataclasses.replace(entry, label=label)
        # A compressed tar cannot be read again by ranges of bytes.
        yield Member(entry, data, keep=copy or is_compressed(uri))
    if damage is not None and len(media) >= skip:
        info = dataclasses.replace(container.info, uri=f"{uri}{INSIDE}?damaged", size=0)
        yield Member(Entry(info), None, unreadable=damage.reason, detail=damage.detail)


def _grouped(stored: list[Stored]) -> tuple[list[Stored], Mapping[str, Mapping[str, Stored]]]:
    """Return the media, and what lies beside them by key and extension.

    What could be metadata and has no image beside it is media, as in a folder: it is then counted
    as what it is.
    """
    with_image = {
        _key(item.name)
        for item in stored
        if not item.reason and _extension(item.name) not in _BESIDE
    }
    media: list[Stored] = []
    beside: dict[str, dict[str, Stored]] = {}
    for item in stored:
        extension = _extension(item.name)
        key = _key(item.name)
        if not item.reason and extension in _BESIDE and key in with_image:
            beside.setdefault(key, {}).setdefault(extension, item)
        else:
            media.append(item)
    return media, beside


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _extension(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()


def _text(archive: Archive, item: Stored | None, most: int) -> str:
    if item is None or item.size > most:
        return ""
    return archive.read(item.offset, item.size).decode("utf-8", "replace").strip().strip("\0")
