"""A look at a folder or bucket prefix before there is a lake: what is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.lake.storage import FileInfo, join, name_of, normalise, open_storage
from visionloop.media.listing import with_roles
from visionloop.media.reading import OK, SKIPPED, UNREADABLE, Examined, examine
from visionloop.media.sources import HIDDEN, MEDIA, SIDECAR, Entry, open_source
from visionloop.source_config import SourceConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TABLE = ".csv"
# A key groups samples when it has at least two values, and on average so many samples a value.
_SAMPLES_A_GROUP = 2.0
# Folders are taken for classes when there are at least two of them, and images a folder enough.
_IMAGES_A_CLASS = 3.0


@dataclass(frozen=True)
class Key:
    """A metadata key of the sidecars.

    Attributes:
        name: Its column in the lake.
        type: ``bool``, ``number``, ``time`` or ``text``.
        images: Images that have it.
        values: Distinct values.
    """

    name: str
    type: str
    images: int
    values: int

    @property
    def groups(self) -> bool:
        """Whether it may name what samples have in common: a camera, a patient, a video."""
        return (
            self.type == "text"
            and self.values >= 2
            and self.images >= _SAMPLES_A_GROUP * self.values
        )


@dataclass(frozen=True)
class Survey:
    """What lies in a source.

    Every file is a candidate for an image, a table, a sidecar or hidden; of the candidates
    ``looked_at`` were opened, evenly spread over the listing, and each of these is an image,
    unreadable or skipped.

    Attributes:
        uri: The source.
        files: Files that were listed.
        candidates: Files that are to be images.
        looked_at: Candidates that were opened.
        images: Of these: readable images.
        copies: Of the images: those whose bytes another one has.
        unreadable: Of these: files that are no complete image, by reason.
        skipped: Of these: files that could not be read from the storage.
        sidecars: Metadata files.
        tables: URIs of CSV files, in the source.
        hidden: Files that systems left behind.
        sides: Shorter side of each image, in pixels, ascending.
        folders: Readable images by the name of their folder, of those below the source itself.
        keys: Metadata keys, the most frequent first.
        uris: Sample id by URI of each readable image.
    """

    uri: str
    files: int
    candidates: int
    looked_at: int
    images: int
    copies: int
    unreadable: dict[str, int]
    skipped: int
    sidecars: int
    tables: tuple[str, ...]
    hidden: int
    sides: tuple[int, ...]
    folders: dict[str, int]
    keys: tuple[Key, ...]
    uris: dict[str, str] = field(repr=False)

    @property
    def median_side(self) -> int:
        """The median of the shorter sides, 0 where there is no image."""
        return self.sides[len(self.sides) // 2] if self.sides else 0

    @property
    def looks_like_classes(self) -> bool:
        """Whether the folders' names may be labels: at least two, with some images each."""
        in_folders = sum(self.folders.values())
        return (
            len(self.folders) >= 2
            and in_folders == self.images
            and in_folders >= _IMAGES_A_CLASS * len(self.folders)
        )

    @property
    def image_size(self) -> int:
        """A side to train a first model at: 64 pixels where a typical image has them, else 32.

        Larger sides cost their square in time; what they bring is seen on the holdout.
        """
        return 64 if self.median_side >= 64 else 32


def survey(uri: str, *, look_at: int = 2_000, seen: Callable[[int], None] | None = None) -> Survey:
    """Look at a source without a lake; nothing is written.

    Args:
        uri: Folder or bucket prefix.
        look_at: Open no more than so many files: each one is decoded.
        seen: Called with 1 for each file that was opened.

    Raises:
        InputError: There is no file.
        StorageError: The source cannot be listed.
    """
    root = normalise(uri)
    # Every table beside the images may hold labels: none of them is an image.
    files = list(open_storage(root).list(root))
    if not files:
        raise InputError(
            "there are no files",
            where=uri,
            remedy="Name the folder or bucket prefix that the images lie under, with --source",
        )
    tables = tuple(info.uri for info in files if info.uri.lower().endswith(TABLE))
    source = open_source(SourceConfig(uri=root), label_files=tables)
    roles: dict[str, list[Entry]] = {role: [] for role in (MEDIA, SIDECAR, HIDDEN)}
    for entry in with_roles(root, files, label_files=tables):
        roles.setdefault(entry.role, []).append(entry)
    chosen = _spread(roles[MEDIA], look_at)
    found: list[Examined] = []
    for examined in examine(source, chosen):
        found.append(examined)
        if seen:
            seen(1)
    images = [one for one in found if one.state == OK and one.inspection]
    return Survey(
        uri=root,
        files=len(files),
        candidates=len(roles[MEDIA]),
        looked_at=len(found),
        images=len(images),
        copies=len(images) - len({one.sample_id for one in images}),
        unreadable=dict(sorted(Counter(o.reason for o in found if o.state == UNREADABLE).items())),
        skipped=sum(one.state == SKIPPED for one in found),
        sidecars=len(roles[SIDECAR]),
        tables=tables,
        hidden=len(roles[HIDDEN]),
        sides=tuple(
            sorted(min(o.inspection.width, o.inspection.height) for o in images if o.inspection)
        ),
        folders=dict(sorted(Counter(_folders(root, (one.entry.info for one in images))).items())),
        keys=_keys(images),
        uris={one.entry.info.uri: one.sample_id for one in images},
    )


def tables_beside(uri: str) -> list[str]:
    """Return the CSV files that lie directly beside a local source, in its parent folder."""
    root = normalise(uri)
    if not root.startswith("file://"):
        return []
    from visionloop.lake.storage import local_path

    try:
        beside = sorted(local_path(root).parent.iterdir())
    except OSError:
        return []
    return [normalise(path) for path in beside if path.suffix.lower() == TABLE and path.is_file()]


def _spread(media: list[Entry], most: int) -> list[Entry]:
    """Return at most so many, evenly spread: the first ones may be all of one camera or class."""
    if len(media) <= most:
        return media
    return [media[number * len(media) // most] for number in range(most)]


def _folders(root: str, files: Iterable[FileInfo]) -> Iterable[str]:
    top = join(root)
    for info in files:
        parent = info.uri.rpartition("/")[0]
        if parent != top:
            yield name_of(parent)


def _keys(images: list[Examined]) -> tuple[Key, ...]:
    values: dict[str, Counter[str]] = {}
    types: dict[str, set[str]] = {}
    for one in images:
        for name, value in (one.sidecar.values if one.sidecar else {}).items():
            values.setdefault(name, Counter())[value.text] += 1
            types.setdefault(name, set()).add(value.type)
    keys = [
        Key(
            name,
            next(iter(types[name])) if len(types[name]) == 1 else "text",
            sum(counts.values()),
            len(counts),
        )
        for name, counts in values.items()
    ]
    return tuple(sorted(keys, key=lambda key: (-key.images, key.name)))
