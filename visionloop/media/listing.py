"""What role each file of a source plays, told from names alone.

============ ====================================================================================
``media``    to be read and verified; what turns out to be no image is counted as unreadable
``sidecar``  a ``.json``, ``.yaml`` or ``.yml`` file named after another file of its folder
``labels``   a file that the configuration names as a table of labels
``hidden``   what systems leave behind: names that begin with a dot, ``Thumbs.db``, ``__MACOSX/``;
             and the lake, where it lies in its own source
============ ====================================================================================

Every other file is media, whatever its extension: a ``.txt`` among photographs is reported as
``not_an_image`` rather than passed over, because a photograph may well have lost its extension.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from visionloop.lake.storage import FileInfo
from visionloop.media.sources.entries import HIDDEN, LABELS, MEDIA, SIDECAR, Entry

# Endings of metadata files that are named after an image, the most telling one first.
SIDECARS = (".json", ".yaml", ".yml")
# By their names no images: notes, tables, and what editors of photographs leave beside them.
_NO_IMAGES: tuple[str, ...] = (
    *(".txt", ".md", ".csv", ".tsv", ".jsonl", ".parquet", ".xmp", ".xml", ".log", ".ini", ".html"),
    *(".pdf", ".xlsx", ".docx", ".db", ".py", ".sh", ".toml", ".lst", *SIDECARS),
)
_LEFT_BEHIND = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
# Files that wait for one that may still get a sidecar; beyond it the others go before that one.
_HELD = 1000


def with_roles(
    root: str, files: Iterable[FileInfo], *, label_files: Collection[str] = (), hidden: str = ""
) -> Iterator[Entry]:
    """Tell the role of each file of a source while it is listed.

    A file and its sidecar share the beginning of their names, up to a dot: all that begins so
    stands together in the listing, and a file is held back until that part is over. So memory holds
    some files, not a folder.

    Args:
        root: URI of the source; hidden folders count below it only.
        files: The files, in the order of their URIs.
        label_files: URIs of tables of labels.
        hidden: What a folder's URIs begin with that is passed by, too; empty for none.

    Yields:
        Each file once, media with their sidecars. In the order of the URIs, but for a file that
        over a thousand others stand between whose names begin with its own.
    """
    window = _Window()
    above = root.rstrip("/")
    for info in files:
        yield from window.closed_before(info.uri)
        if info.uri in label_files:
            window.pass_by(Entry(info, LABELS))
        elif (hidden and info.uri.startswith(hidden)) or is_hidden(info.uri.removeprefix(above)):
            window.pass_by(Entry(info, HIDDEN))
        else:
            window.add(info)
    yield from window.closed_before("")


@dataclass(slots=True)
class _Held:
    """A file that is held back.

    Attributes:
        info: The file.
        block: What all names begin with that may still concern it; empty when none may.
        names: What it is a sidecar of, if that is there; empty for other files.
        is_sidecar: Whether that is there.
        sidecars: Its own sidecars, each with its rank.
        entry: What to yield for a file whose role is known already.
    """

    info: FileInfo
    block: str
    names: str = ""
    is_sidecar: bool = False
    sidecars: list[tuple[int, FileInfo]] = field(default_factory=list)
    entry: Entry | None = None

    def as_entry(self) -> Entry:
        if self.entry is not None:
            return self.entry
        if self.is_sidecar:
            return Entry(self.info, SIDECAR)
        beside = sorted(self.sidecars, key=lambda pair: (pair[0], pair[1].uri))
        return Entry(self.info, MEDIA, tuple(info for _, info in beside))


class _Window:
    """The files of a listing whose role is not settled, in their order."""

    def __init__(self) -> None:
        self._held: list[_Held] = []
        # Blocks lie inside each other like folders: the innermost one closes first.
        self._open: list[_Held] = []

    def closed_before(self, uri: str) -> Iterator[Entry]:
        """Yield what is settled now that a URI comes next; an empty one ends the listing."""
        while self._open and not self._may_concern(self._open[-1].block, uri):
            self._open.pop().block = ""
        if not self._open:
            ready, self._held = self._held, []
        elif len(self._held) > _HELD:
            ready = [held for held in self._held if not held.block]
            self._held = [held for held in self._held if held.block]
        else:
            return
        for held in ready:
            yield held.as_entry()

    def pass_by(self, entry: Entry) -> None:
        self._held.append(_Held(entry.info, "", entry=entry))

    def add(self, info: FileInfo) -> None:
        ending = next((end for end in SIDECARS if info.uri.lower().endswith(end)), "")
        names = info.uri[: -len(ending)] if ending else ""
        new = _Held(info, (names or _stem(info.uri)) + ".", names)
        for held in self._open:
            if bool(names) != bool(held.names):
                sidecar, image = (new, held) if names else (held, new)
                _match(sidecar, image)
        self._held.append(new)
        self._open.append(new)

    @staticmethod
    def _may_concern(block: str, uri: str) -> bool:
        return bool(uri) and (uri < block or uri.startswith(block))


def _match(sidecar: _Held, image: _Held) -> None:
    # The full name is the more precise one: `a.png.json` comes before `a.json`.
    if sidecar.names == image.info.uri:
        rank = 0
    elif sidecar.names == _stem(image.info.uri):
        rank = len(SIDECARS)
    else:
        return
    ending = sidecar.info.uri[len(sidecar.names) :].lower()
    image.sidecars.append((rank + SIDECARS.index(ending), sidecar.info))
    sidecar.is_sidecar = True


def is_no_image(uri: str, reason: str) -> bool:
    """Return whether a file that is unreadable for some reason never meant to be an image."""
    name = uri.rpartition("/")[2].lower()
    named = name.endswith(_NO_IMAGES) or name in ("readme", "license", "makefile")
    return named and reason in ("not_an_image", "unsupported", "empty")


def is_hidden(path: str) -> bool:
    """Return whether a path below a source is one that systems leave behind."""
    return any(
        part.startswith(".") or part.lower() in _LEFT_BEHIND for part in path.split("/") if part
    )


def _stem(uri: str) -> str:
    folder, slash, name = uri.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if dot and stem else name)
