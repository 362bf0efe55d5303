"""What role each file of a source plays, told from names alone.

============ ====================================================================================
``media``    to be read and verified; what turns out to be no image is counted as unreadable
``sidecar``  a ``.json`` file named after another file of its folder: metadata, no media
``labels``   a file that the configuration names as a table of labels
``hidden``   what systems leave behind: names that begin with a dot, ``Thumbs.db``, ``__MACOSX/``
============ ====================================================================================

Every other file is media, whatever its extension: a ``.txt`` among photographs is reported as
``not_an_image`` rather than passed over, because a photograph may well have lost its extension.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from visionloop.lake.storage import FileInfo

_LEFT_BEHIND = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SIDECAR = ".json"


@dataclass
class Listing:
    """The files of a source by their role.

    Attributes:
        media: Files to verify, in the order of their URIs.
        sidecars: URI of the sidecar of each media URI that has one.
        n_sidecars: Sidecar files.
        n_labels: Files of labels.
        n_hidden: Files that systems left behind.
    """

    media: list[FileInfo] = field(default_factory=list)
    sidecars: dict[str, str] = field(default_factory=dict)
    n_sidecars: int = 0
    n_labels: int = 0
    n_hidden: int = 0

    @property
    def n_files(self) -> int:
        """Everything that was listed."""
        return len(self.media) + self.n_sidecars + self.n_labels + self.n_hidden


def by_role(root: str, files: Iterable[FileInfo], *, label_files: Collection[str] = ()) -> Listing:
    """Sort the files of a source by their role.

    Args:
        root: URI of the source; hidden folders count below it only.
        files: What a listing found.
        label_files: URIs of tables of labels.
    """
    found = Listing()
    rest: list[FileInfo] = []
    for info in sorted(files, key=lambda info: info.uri):
        if info.uri in label_files:
            found.n_labels += 1
        elif _is_hidden(info.uri.removeprefix(root.rstrip("/"))):
            found.n_hidden += 1
        else:
            rest.append(info)

    others = {info.uri for info in rest if not info.uri.lower().endswith(_SIDECAR)}
    stems = {_stem(uri) for uri in others}
    candidates: dict[str, str] = {}
    for info in rest:
        named = info.uri[: -len(_SIDECAR)]
        if info.uri not in others and (named in others or named in stems):
            candidates[named] = info.uri
        else:
            found.media.append(info)
    found.n_sidecars = len(candidates)
    for info in found.media:
        # The full name is the more precise one: `a.png.json` wins over `a.json`.
        for named in (info.uri, _stem(info.uri)):
            if named in candidates:
                found.sidecars[info.uri] = candidates[named]
                break
    return found


def _is_hidden(path: str) -> bool:
    return any(
        part.startswith(".") or part.lower() in _LEFT_BEHIND for part in path.split("/") if part
    )


def _stem(uri: str) -> str:
    folder, slash, name = uri.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if dot and stem else name)
