"""Roles of a source's files: told from names, and every file has exactly one."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from visionloop.lake.storage import FileInfo
from visionloop.media.listing import Listing, by_role

ROOT = "gs://bucket/in"


def listing(*names: str, labels: tuple[str, ...] = ()) -> Listing:
    files = [FileInfo(f"{ROOT}/{name}", 1, "1", datetime.now(UTC)) for name in names]
    return by_role(ROOT, files, label_files={f"{ROOT}/{name}" for name in labels})


def media(found: Listing) -> list[str]:
    return [info.uri.removeprefix(ROOT + "/") for info in found.media]


def test_a_sidecar_is_named_after_its_image_with_or_without_the_extension() -> None:
    found = listing("a.png", "a.png.json", "sub/b.jpg", "sub/b.json", "c.tar.gz", "c.tar.json")
    assert media(found) == ["a.png", "c.tar.gz", "sub/b.jpg"]
    assert {k.removeprefix(ROOT): v.removeprefix(ROOT) for k, v in found.sidecars.items()} == {
        "/a.png": "/a.png.json",
        "/sub/b.jpg": "/sub/b.json",
        "/c.tar.gz": "/c.tar.json",
    }
    assert found.n_sidecars == 3


def test_the_more_precise_of_two_sidecars_wins() -> None:
    found = listing("a.png", "a.json", "a.png.json")
    assert found.sidecars == {f"{ROOT}/a.png": f"{ROOT}/a.png.json"}
    assert found.n_sidecars == 2 and len(found.media) == 1


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
    assert (found.n_labels, found.n_hidden) == (1, 4)


def test_a_source_inside_a_hidden_folder_is_not_hidden() -> None:
    root = "file:///home/me/.cache/photos"
    files = [FileInfo(f"{root}/a.png", 1, "1", datetime.now(UTC))]
    assert len(by_role(root, files).media) == 1


names = st.lists(
    st.sampled_from(["a", "a.png", "a.png.json", "a.json", "b/a.json", ".a", "b/c.csv", "A.JSON"]),
    unique=True,
)


@given(names)
def test_every_file_has_one_role(given_names: list[str]) -> None:
    found = listing(*given_names, labels=("b/c.csv",))
    assert found.n_files == len(given_names)
    assert set(found.sidecars) <= {info.uri for info in found.media}
