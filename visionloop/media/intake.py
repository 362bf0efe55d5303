"""What the sources hold that the lake does not know yet, file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.lake.storage import FileInfo, normalise, open_storage
from visionloop.media.listing import Listing, by_role
from visionloop.media.reading import OK, SKIPPED, UNREADABLE, Examined, examine

if TYPE_CHECKING:
    from visionloop.config import SourceConfig
    from visionloop.lake import Lake
    from visionloop.media.inspect import Inspection

NEW, DUPLICATE, KNOWN = "new", "duplicate", "known"
OUTCOMES = (KNOWN, NEW, DUPLICATE, UNREADABLE, SKIPPED)

# Sample id, or "" for an unreadable file, of each URI and generation.
Known = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Found:
    """One new file of one source, and what became of it.

    Attributes:
        source: The source that it was found at.
        uri: Where its bytes lie for the lake: where it was found, or its copy in the lake.
        examined: What its bytes are.
        outcome: ``new`` (a sample that the lake did not have), ``duplicate`` (the bytes of a sample
            found before), ``unreadable``, or ``skipped``.
        reason: Why it is unreadable or skipped, in one word.
    """

    source: SourceConfig
    uri: str
    examined: Examined
    outcome: str
    reason: str


@dataclass
class SourceFiles:
    """A source's files, sorted by role, and those of them that are new."""

    source: SourceConfig
    root: str
    listing: Listing
    media: list[FileInfo]
    fresh: list[FileInfo]


@dataclass
class Intake:
    """Everything that one ingest found.

    Attributes:
        found: New files, in the order of their sources and URIs.
        per_source: Counts of outcomes of each source.
        beside: Counts of files that are no media: sidecars, labels, hidden ones.
    """

    found: list[Found] = field(default_factory=list)
    per_source: dict[str, Counter[str]] = field(default_factory=dict)
    beside: Counter[str] = field(default_factory=Counter)

    @property
    def outcomes(self) -> Counter[str]:
        """Number of media files with each outcome, known ones included."""
        return sum(self.per_source.values(), Counter())

    def of(self, *outcomes: str) -> list[Found]:
        """Return the new files with one of some outcomes."""
        return [item for item in self.found if item.outcome in outcomes]


def list_sources(
    sources: Sequence[SourceConfig], known: Known, label_files: Iterable[str] = ()
) -> list[SourceFiles]:
    """List every source; a file that two sources reach belongs to the first.

    Args:
        sources: The sources of the configuration.
        known: What the lake has.
        label_files: URIs of tables of labels, which are no media.

    Returns:
        What each source holds, in the order of the sources.

    Raises:
        StorageError: A source cannot be listed.
    """
    no_media = {normalise(uri) for uri in label_files}
    seen: set[str] = set()
    listed = []
    for source in sources:
        root = normalise(source.uri)
        listing = by_role(root, open_storage(root).list(root), label_files=no_media)
        media = [info for info in listing.media if info.uri not in seen]
        seen.update(info.uri for info in media)
        fresh = [info for info in media if (info.uri, info.generation) not in known]
        listed.append(SourceFiles(source, root, listing, media, fresh))
    return listed


def take_in(
    lake: Lake,
    sources: Sequence[SourceFiles],
    known: Known,
    held: Iterable[str],
    *,
    advance: Callable[[], None] = lambda: None,
) -> Intake:
    """Read and inspect the new files of all sources.

    Which of several files with the same bytes is the sample, and which are its copies, is decided
    by the order of sources and URIs, so that reading by several threads changes nothing.

    Args:
        lake: Receives the bytes of sources that ask for copies.
        sources: What `list_sources` found.
        known: What the lake has.
        held: Ids of the samples that the lake has.
        advance: Called after each file.
    """
    intake = Intake()
    samples = set(held)
    at_uri: dict[str, set[str]] = {}
    for (uri, _), sample_id in known.items():
        at_uri.setdefault(uri, set()).add(sample_id)
    for files in sources:
        counts = Counter({KNOWN: len(files.media) - len(files.fresh)})
        intake.per_source[files.root] = counts
        intake.beside.update(
            sidecars=files.listing.n_sidecars,
            labels=files.listing.n_labels,
            hidden=files.listing.n_hidden,
        )
        for examined in _examined(lake, files):
            uri, sample_id = examined.info.uri, examined.sample_id
            outcome, reason = examined.state, examined.reason
            if outcome == OK and sample_id in at_uri.get(uri, ()):
                # A new generation of the same bytes at the same place is no second copy.
                outcome, reason = SKIPPED, "same_bytes"
            elif outcome == OK:
                outcome = DUPLICATE if sample_id in samples else NEW
                samples.add(sample_id)
            if examined.inspection is not None and files.source.copy_media:
                uri = _copy_uri(lake, examined.inspection)
            intake.found.append(Found(files.source, uri, examined, outcome, reason))
            counts[outcome] += 1
            advance()
    return intake


def _examined(lake: Lake, files: SourceFiles) -> Iterator[Examined]:
    def keep(found: Inspection, data: bytes) -> None:
        uri = _copy_uri(lake, found)
        if not lake.storage.exists(uri):
            lake.storage.write(uri, data)

    return examine(
        open_storage(files.root),
        files.fresh,
        files.listing.sidecars if files.source.metadata == "sidecar" else {},
        keep=keep if files.source.copy_media else None,
    )


def _copy_uri(lake: Lake, found: Inspection) -> str:
    """Return where a copied image lies: by its id, so that copying it twice does no harm."""
    return lake.path("media", found.sample_id[:2], f"{found.sample_id}.{found.format.lower()}")
