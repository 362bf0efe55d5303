"""`visionloop init`: what a look at a folder of images says, and the configuration made of it."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.servers import storage_emulator
from visionloop.cli import main
from visionloop.cli.draft import scalar
from visionloop.cli.init import loop_name
from visionloop.config import LoopConfig, load_config
from visionloop.lake.storage import open_storage
from visionloop.schema import SCHEMA_URL, loop_schema


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of twelve images in two folders, with sidecars, a copy and two broken files."""
    random = np.random.default_rng(0)
    for number in range(12):
        kind = tmp_path / "Photos 1" / ("a: dark" if number % 2 else "light")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (70 + number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(kind / f"{number}.png")
        sidecar = {"camera": f"c{number // 4}", "shot": f"s{number}", "iso": number % 3}
        (kind / f"{number}.png.json").write_text(json.dumps(sidecar), encoding="utf-8")
    light = tmp_path / "Photos 1" / "light"
    (light / "copy.png").write_bytes((light / "0.png").read_bytes())
    (light / "cut.png").write_bytes((light / "0.png").read_bytes()[:500])
    (light / "words.png").write_text("no image", encoding="utf-8")
    (tmp_path / "Photos 1" / ".DS_Store").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["init", "--source", "Photos 1", *arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "a program reads one line"
    result: dict[str, Any] = json.loads(out)
    return result


def written(project: Path, name: str = "loop.yaml") -> LoopConfig:
    text = (project / name).read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA_URL}\n")
    jsonschema.validate(yaml.safe_load(text), loop_schema())
    return load_config(project / name)


def test_every_file_is_counted_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = init(capsys)
    assert seen["files"] == seen["candidates"] + seen["sidecars"] + seen["hidden"] == 28
    unreadable = seen["unreadable"]
    assert unreadable == {"not_an_image": 1, "truncated": 1}
    assert seen["images"] + sum(unreadable.values()) + seen["skipped"] == seen["looked_at"] == 15
    assert (seen["images"], seen["copies"]) == (13, 1)
    assert seen["shorter_sides"] == [70, 75, 81]
    assert seen["folders"] == {"a: dark": 6, "light": 7} and seen["folders_look_like_classes"]
    groups = {key["name"]: key["groups"] for key in seen["metadata"]}
    assert groups == {"camera": True, "shot": False, "iso": False}


def test_what_was_seen_stands_in_the_comments_and_what_it_suggests_beside_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(capsys)
    config = written(project)
    assert config.name == "photos-1"
    assert config.sources[0].uri == str(project / "Photos 1")
    assert config.sources[0].labels == "none", "a guess is proposed, never acted on"
    assert config.training.image_size == 64
    assert config.lake == str(project / "lake")
    lines = (project / "loop.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"\n {34}# ", " ", lines))
    assert "13 images (1 of them copies), 2 unreadable (not_an_image 1, truncated 1)" in text
    assert "# labels: folder # if these are classes: 2 folders, a: dark 6, light 7" in text
    assert "# holdout: {group_by: camera} # 3 values in 12 images" in text
    assert max(len(line) for line in lines.splitlines()[1:]) <= 100
    assert "group_by: shot" not in text
    assert not (project / "lake").exists(), "a look needs no lake"


@pytest.mark.parametrize("proposal", ["    # labels: folder", "# holdout: {group_by: camera}"])
def test_a_proposal_works_when_its_sign_is_taken_away(
    proposal: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(capsys)
    text = (project / "loop.yaml").read_text(encoding="utf-8")
    assert proposal in text
    (project / "loop.yaml").write_text(
        text.replace(proposal, proposal.replace("# ", "", 1)), encoding="utf-8"
    )
    config = written(project)
    assert (config.sources[0].labels, config.holdout.group_by) in (
        ("folder", ""),
        ("none", "camera"),
    )


def test_a_table_of_labels_nearby_is_proposed_and_taken_when_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "known.csv").write_text("file,label\nlight/0.png,day\n1.png,night\nx.png,day\n")
    (project / "prices.csv").write_text("item,price\nlamp,3\n", encoding="utf-8")
    assert main(["init", "--source", "Photos 1"]) == 0
    told = capsys.readouterr().out
    assert "labels in known.csv: 3 of 2 classes, 3 name images here" in told
    assert "prices" not in told
    assert written(project).sources[0].labels == "none"
    assert "# labels: known.csv" in (project / "loop.yaml").read_text(encoding="utf-8")

    init(capsys, "--labels", "known.csv", "--output", "second.yaml", "--name", "shades")
    config = written(project, "second.yaml")
    assert config.sources[0].labels == str(project / "known.csv")
    assert config.name == "shades"
    text = (project / "second.yaml").read_text(encoding="utf-8")
    assert "# classes: [day, night]" in text


def test_folders_are_taken_for_labels_when_asked_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(capsys, "elsewhere", "--labels", "folder")["config"].endswith("elsewhere/loop.yaml")
    config = written(project / "elsewhere")
    assert config.sources[0].labels == "folder"
    assert config.sources[0].uri == str(project / "Photos 1")
    text = (project / "elsewhere" / "loop.yaml").read_text(encoding="utf-8")
    assert 'uri: "../Photos 1"' in text and "nothing is left to ask for" in text


def test_of_a_large_source_a_part_is_looked_at_and_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = init(capsys, "--look-at", "5")
    assert (seen["candidates"], seen["looked_at"]) == (15, 5)
    assert set(seen["folders"]) == {"a: dark", "light"}, "the part is spread over the listing"
    assert "of 15 looked at" in (project / "loop.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "nowhere"], "cannot list"),
        (["--source", "empty"], "there are no files"),
        (["--source", "texts"], "there is no image among 1 files: 1 unreadable (not_an_image 1)"),
        (["--source", "Photos 1/light", "--labels", "folder"], "lie in no folders"),
        (["--source", "Photos 1", "--labels", "absent.csv"], "cannot read"),
        (["--source", "Photos 1", "--labels", "prices.csv"], "Begin the file with `file,label`"),
        (["--source", "Photos 1", "--labels", "others.csv"], "none of its 1 labels names an image"),
        (["Photos 1", "--source", "Photos 1"], "would lie among the images"),
        (["--source", "Photos 1", "--name", "Großes Lager"], "`name`"),
        (["--source", "ftp://host/photos"], "storage scheme 'ftp' is not supported"),
        ([], "--source"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(
    arguments: list[str], words: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "empty").mkdir()
    (project / "texts").mkdir()
    (project / "texts" / "a.txt").write_text("a", encoding="utf-8")
    (project / "prices.csv").write_text("item,price\nlamp,3\n", encoding="utf-8")
    (project / "others.csv").write_text("file,label\nz.png,day\n", encoding="utf-8")
    assert main(["init", *arguments]) in (1, 2)
    assert words in capsys.readouterr().err
    assert not list(project.rglob("loop.yaml"))


def test_a_configuration_that_is_there_is_never_overwritten(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "loop.yaml").write_text("lake: mine\n", encoding="utf-8")
    assert main(["init", "--source", "Photos 1"]) == 2
    assert "there is a configuration already" in capsys.readouterr().err
    assert (project / "loop.yaml").read_text(encoding="utf-8") == "lake: mine\n"


@pytest.mark.parametrize(
    "text", ["photos", "a b", "x # y", "yes", "1", "~", "a: b", "é", "- a", "gs://b/p", "[a]", "no"]
)
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    assert yaml.safe_load(f"key: {scalar(text)}  # note") == {"key": text}
    assert yaml.safe_load(f"[{scalar(text)}, x]") == [text, "x"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("gs://bucket/2026/Cam_01/", "cam-01"),
        ("/data/Größe", "gr-e"),
        ("/data/7", "loop-7"),
        ("/data/***", "loop"),
    ],
)
def test_a_loop_is_named_for_its_source(source: str, name: str) -> None:
    assert loop_name(source) == name
    LoopConfig.model_validate({"lake": "x", "name": name})


def test_a_bucket_is_looked_at_as_a_folder_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        make = urllib.request.Request(
            f"{address}/storage/v1/b?project=p",
            json.dumps({"name": "cameras"}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(make).read()
        open_storage("gs://cameras").upload(project / "Photos 1", "gs://cameras/Hall 2")
        assert main(["init", "--source", "gs://cameras/Hall 2", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["images"], seen["files"], seen["folders"]) == (13, 28, {"a: dark": 6, "light": 7})
    config = written(project)
    assert (config.name, config.sources[0].uri) == ("hall-2", "gs://cameras/Hall 2")
