"""Roles of a source's files: told from names, and every file has exactly one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from visionloop.lake.storage import FileInfo
from visionloop.media import listing as listing_module
from visionloop.media.listing import with_roles
from visionloop.media.sources import HIDDEN, LABELS, MEDIA, SIDECAR

ROOT = "gs://bucket/in"


def infos(root: str, names: tuple[str, ...] | list[str]) -> list[FileInfo]:
    return [FileInfo(f"{root}/{name}", 1, "1", datetime.now(UTC)) for name in sorted(names)]


class Listed:
    """What was told of some names."""

    def __init__(self, *names: str, labels: tuple[str, ...] = (), root: str = ROOT) -> None:
        tables = {f"{root}/{name}" for name in labels}
        self.entries = list(with_roles(root, infos(root, names), label_files=tables))
        self.media = [self._name(e.info) for e in self.entries if e.role == MEDIA]
        self.sidecars = {
            self._name(e.info): [self._name(info) for info in e.sidecars]
            for e in self.entries
            if e.sidecars
        }

    def count(self, role: str) -> int:
        return sum(entry.role == role for entry in self.entries)

    @staticmethod
    def _name(info: FileInfo) -> str:
        return info.uri.removeprefix(ROOT + "/")


listing = Listed


def media(found: Listed) -> list[str]:
    return found.media


def test_a_sidecar_is_named_after_its_image_with_or_without_the_extension() -> None:
    found = listing("a.png", "a.png.json", "sub/b.jpg", "sub/b.json", "c.tar.gz", "c.tar.json")
    assert media(found) == ["a.png", "c.tar.gz", "sub/b.jpg"]
    assert found.sidecars == {
        "a.png": ["a.png.json"],
        "sub/b.jpg": ["sub/b.json"],
        "c.tar.gz": ["c.tar.json"],
    }
    assert found.count(SIDECAR) == 3


def test_the_more_precise_of_two_sidecars_wins() -> None:
    found = listing("a.png", "a.json", "a.png.json")
    assert found.sidecars == {"a.png": ["a.png.json", "a.json"]}
    assert found.count(SIDECAR) == 2 and len(found.media) == 1


def test_json_beside_no_image_and_other_files_are_media_to_be_verified() -> None:
    found = listing("photo", "notes.txt", "orphan.json", "sub/a.json", "a.png", "film.mp4")
    assert media(found) == ["a.png", "film.mp4", "notes.txt", "orphan.json", "photo", "sub/a.json"]


def test_tables_of_labels_and_what_systems_leave_behind_are_no_media() -> None:
    found = listing(
        "labels.csv",
        "other.csv",
        ".DS_Store",
        "a/.ipynb_checkpoints/x.png",
        "__MACOSX/._x.png",
        "Thumbs.db",
        "a/ok.png",
        labels=("labels.csv",),
    )
    assert media(found) == ["a/ok.png", "other.csv"]
    assert (found.count(LABELS), found.count(HIDDEN)) == (1, 4)


def test_a_source_inside_a_hidden_folder_is_not_hidden() -> None:
    root = "file:///home/me/.cache/photos"
    assert Listed("a.png", root=root).count(MEDIA) == 1


NAMES = [
    "a", "a.png", "a.png.json", "a.json", "a-1.png", "a-1.json", "a.b.png", "a.b.json", "b/a.json",
    ".a", "b/c.csv", "A.JSON", "a.b", "a.b.png.json", "a b", "a b.json", "ab.json", "ab",
]  # fmt: skip
names = st.lists(st.sampled_from(NAMES), unique=True)


def told_at_once(given_names: list[str]) -> dict[str, list[str]]:
    """Roles by looking at all names, as they are defined: sidecars of each medium."""
    seen = [n for n in given_names if not n.startswith(".") and n != "b/c.csv"]

    def is_json(name: str) -> bool:
        return name.lower().endswith(".json")

    def stem(name: str) -> str:
        folder, slash, last = name.rpartition("/")
        return folder + slash + (last.rpartition(".")[0] or last)

    others = [n for n in seen if not is_json(n)]
    sidecars = {n for n in seen if is_json(n) and {n[:-5]} & {*others, *map(stem, others)}}
    found = {}
    for name in set(seen) - sidecars:
        wanted = [] if is_json(name) else [*dict.fromkeys([name, stem(name)])]
        found[name] = [s for base in wanted for s in sorted(sidecars) if s[:-5] == base]
    return found


@given(names, st.sampled_from([0, 1, 1000]))
def test_roles_told_while_listing_are_those_told_from_all_names(
    given_names: list[str], held: int
) -> None:
    before, listing_module._HELD = listing_module._HELD, held
    try:
        found = listing(*given_names, labels=("b/c.csv",))
    finally:
        listing_module._HELD = before
    assert len(found.entries) == len(given_names) == len({e.info.uri for e in found.entries})
    expected = told_at_once(given_names)
    assert sorted(found.media) == sorted(expected)
    assert found.sidecars == {name: beside for name, beside in expected.items() if beside}
    if held:
        assert held < 1000 or found.media == sorted(found.media)


def test_a_long_listing_is_told_while_it_comes() -> None:
    def files() -> Iterator[FileInfo]:
        for number in range(20_000):
            taken.append(number)
            yield from infos(ROOT, [f"{number:06d}.jpg", f"{number:06d}.json"])

    taken: list[int] = []
    most = 0
    for told, entry in enumerate(with_roles(ROOT, files())):
        most = max(most, 2 * len(taken) - told)
        assert entry.role in (MEDIA, SIDECAR)
    assert most < 10
