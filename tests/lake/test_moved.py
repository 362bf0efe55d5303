"""A lake whose catalog names the files of another place is refused: it was copied or moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from visionloop.cli import main
from visionloop.errors import InputError
from visionloop.lake import Lake


def filled(root: Path) -> Path:
    write(root, "a")
    return root


def write(root: Path, uri: str) -> None:
    with Lake.open(str(root), loop="test").run(stage="ingest") as run:
        run.append("files", pa.table({"uri": [uri], "state": ["ok"]}))
        run.commit()


def uris(root: Path) -> list[str]:
    return sorted(Lake.open(str(root), loop="test").read("files")["uri"].to_pylist())


def content(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_copy_neither_reads_nor_writes_the_lake_it_was_made_from(tmp_path: Path) -> None:
    original = filled(tmp_path / "my lake%20")
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    before = content(original)
    with pytest.raises(InputError, match="copied or moved") as refused:
        write(copy, "b")
    assert str(original) in str(refused.value)
    assert "visionloop lake backup" in refused.value.remedy
    with pytest.raises(InputError, match="copied or moved"):
        uris(copy)
    assert content(original) == before
    write(original, "c")
    assert uris(original) == ["a", "c"]


def test_a_check_of_a_copy_does_not_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(filled(tmp_path / "lake"), tmp_path / "copy")
    assert main(["lake", "check", "--lake", str(copy), "--loop", "test"]) == 2
    assert "copied or moved" in capsys.readouterr().err


def test_a_moved_lake_is_refused_until_its_former_place_leads_to_it(tmp_path: Path) -> None:
    place, moved = filled(tmp_path / "lake"), tmp_path / "elsewhere"
    place.rename(moved)
    with pytest.raises(InputError, match="copied or moved"):
        uris(moved)
    place.symlink_to(moved)
    write(moved, "b")
    assert uris(moved) == uris(place) == ["a", "b"]
