"""A round goes through another tool as files: its requests out, their answers in."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from tests.interchange.sets import png
from visionloop.cli import main
from visionloop.config import load_config
from visionloop.labeling.answers import latest_labels
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.ingest import ingest
from visionloop.stages.request_labels import request_labels

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """Return the configuration of a loop that has asked for the labels of four images."""
    for number in range(6):
        # Two of one name, which an export has to tell apart.
        place = tmp_path / "photos" / f"{number % 2}" / f"{max(number, 1)}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(16, 12, number))
    config = tmp_path / "loop.yaml"
    settings = {
        "name": "ours",
        "lake": str(tmp_path / "lake"),
        "classes": ["cat", "dog"],
        "sources": [{"uri": str(tmp_path / "photos")}],
        "holdout": {"fraction": 0.0},
    }
    config.write_text(json.dumps(settings))
    ingest(config=str(config))
    lake = opened(config)
    round_id = lake.rounds.open("run").round_id
    with lake.run(stage="select", round_id=round_id) as run:
        ids = sorted(run.read("samples")["sample_id"].to_pylist())
        run.append("selections", pa.table({"sample_id": ids[:4], "rank": [3, 2, 1, 0]}))
        run.commit()
    assert request_labels(config=str(config)).n_requested == 4
    return config


def opened(config: Path) -> Lake:
    loop = load_config(config.read_text())
    return Lake.open(loop.lake, catalog=loop.catalog, loop=loop.name)


def command(*words: object, **expected: Any) -> None:
    assert main([str(word) for word in words]) == expected.get("status", 0)


def labels_of(config: Path) -> set[tuple[str, str]]:
    rows = opened(config).read("labels").to_pylist()
    return {(row["label"], row["origin"]) for row in rows}


def answered_in_cvat(folder: Path, place: Path) -> None:
    """Write CVAT's own file of a task: without our keys."""
    text = (folder / "annotations.xml").read_text()
    text = re.sub(r' sample_id="[^"]*"', "", text)
    place.parent.mkdir(exist_ok=True)
    tag = r'\1<tag label="dog" source="manual"></tag>'
    place.write_text(re.sub(r"(<image [^>]*>)", tag, text))


# Far from the images they are found by their names, beside them by their bytes.
@pytest.mark.parametrize("name", ["back/job.xml", "task/job.xml"])
def test_a_round_goes_to_cvat_and_comes_back(
    name: str, loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task"
    command("export", task, "--format", "cvat", "--config", loop, "--round", "0000", "--json")
    made = json.loads(capsys.readouterr().out)
    assert (made["asked"], made["written"], made["what"]) == (4, 4, "requests:0000")
    assert {one["name"] for one in orjson.loads((task / "labels.json").read_bytes())} == {
        "cat",
        "dog",
    }
    assert len(list((task / "images").iterdir())) == 4
    assert collect_labels(config=str(loop)).trainable_version == ""
    # Annotations alone come back, and the lake has the images.
    answered_in_cvat(task, tmp_path / name)
    command("import", tmp_path / name, "--format", "cvat", "--config", loop, "--no-ingest")
    collected = collect_labels(config=str(loop))
    assert (collected.n_labels, collected.n_missing) == (4, 0)
    assert collected.trainable_version
    assert labels_of(loop) == {("dog", "import")}
    command("export", tmp_path / "more", "--format", "cvat", "--config", loop, "--round", "0000",
            status=2)  # fmt: skip
    assert "waits for no answer: what it asked is answered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [("0007", "7"), ("0'0", "0'0"), ('a" or round_id == "0000', 'a" or round_id == "0000')],
)
def test_a_round_that_there_is_not_is_said_whatever_is_in_its_name(
    name: str, said: str, loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("export", tmp_path / "task", "--format", "cvat", "--config", loop, "--round", name,
            status=2)  # fmt: skip
    assert f"round {said} waits for no answer: it asked nothing" in capsys.readouterr().err
    command("labels", "collect", "--config", loop, "--round", name, status=2)
    assert f"there is no round {said}" in capsys.readouterr().err


def test_a_round_goes_to_a_coco_tool_and_the_rest_stays_open(loop: Path, tmp_path: Path) -> None:
    task = tmp_path / "task"
    command("export", task, "--format", "coco", "--config", loop, "--round", "0000", "--no-splits")
    place = next((task / "annotations").glob("*.json"))
    content = json.loads(place.read_text())
    assert len(content["images"]) == 4 and not content["annotations"]
    (cat,) = [one["id"] for one in content["categories"] if one["name"] == "cat"]
    content["annotations"] = [
        {"id": number, "image_id": one["id"], "category_id": cat}
        for number, one in enumerate(content["images"][:3], 1)
    ]
    place.write_text(json.dumps(content))
    command("import", task, "--format", "coco", "--config", loop)
    collected = collect_labels(config=str(loop))
    assert (collected.n_labels, collected.n_missing) == (3, 1)
    assert collected.trainable_version == ""
    assert opened(loop).read("samples").num_rows == 6


def test_what_a_model_says_goes_along_to_be_corrected(loop: Path, tmp_path: Path) -> None:
    lake = opened(loop)
    ids = sorted(lake.read("label_requests")["sample_id"].to_pylist())
    said = [{"sample_id": one, "model_id": "m1", "label": "cat", "confidence": 0.9} for one in ids]
    with lake.run(stage="infer", round_id="0000") as run:
        rows = pa.Table.from_pylist(said, schema=arrow_schema("predictions"))
        run.append("predictions", rows)
        run.commit()
    words = ["--format", "cvat", "--config", loop, "--round", "0000", "--model", "m1"]
    command("export", tmp_path / "task", *words)
    text = (tmp_path / "task" / "annotations.xml").read_text()
    assert text.count('<tag label="cat"') == 4
    # CVAT tells what came by a file and nobody touched: it counts, and it is told.
    back = tmp_path / "back.xml"
    back.write_text(re.sub('source="manual"', 'source="file"', text, count=1))
    problems = tmp_path / "problems.csv"
    command("import", back, "--format", "cvat", "--config", loop, "--no-ingest",
            "--problems", problems)  # fmt: skip
    assert problems.read_text().count("untouched") == 1
    assert collect_labels(config=str(loop)).n_labels == 4


def change(config: Path, table: str, *rows: dict[str, Any], instead: bool = False) -> None:
    lake = opened(config)
    with lake.run(stage="test", round_id="0000") as run:
        told = pa.Table.from_pylist(list(rows), schema=arrow_schema(table))
        (run.replace if instead else run.append)(table, told, *(["round_id == '0000'"] * instead))
        run.commit()


def test_a_model_leads_nobody_by_file_and_answers_nothing_that_judges_it(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = opened(loop)
    rows = lake.read("label_requests").sort_by("sample_id").to_pylist()
    plain, holdout, audit, several = rows
    holdout["purpose"], audit["purpose"], several["answers"] = "holdout", "audit", 2
    change(loop, "label_requests", *rows, instead=True)
    said = {"model_id": "m1", "label": "cat", "confidence": 0.9}
    change(loop, "predictions", *({"sample_id": row["sample_id"], **said} for row in rows))
    words = ["--format", "cvat", "--config", loop, "--round", "0000", "--model", "m1"]
    command("export", tmp_path / "task", *words)
    text = (tmp_path / "task" / "annotations.xml").read_text()
    images = re.findall(r'<image [^>]*sample_id="(\w+)".*?(?:/>|</image>)', text, re.DOTALL)
    assert len(images) == 4 and text.count("<tag ") == 1
    # CVAT's own automatic annotation labels the others too, and nobody looks at any.
    tag = r'\1<tag label="cat" source="auto"></tag></image>'
    text = re.sub(r"(<image [^>]*[^/>])\s*/>", r"\1></image>", text)
    text = re.sub(r"(<image [^>]*>)\s*</image>", tag, text).replace('"manual"', '"file"')
    assert text.count("<tag ") == 4
    (tmp_path / "back.xml").write_text(text)
    capsys.readouterr()
    back = ["import", tmp_path / "back.xml", "--format", "cvat", "--config", loop, "--no-ingest"]
    command(*back, "--json")
    made = json.loads(capsys.readouterr().out)
    assert made["labels"] == {"new": 1, "untouched": 3}
    (row,) = opened(loop).read("labels").to_pylist()
    assert row["sample_id"] == plain["sample_id"]
    assert collect_labels(config=str(loop)).n_missing == 3
    # Once somebody has set them, they are answers.
    (tmp_path / "back.xml").write_text(re.sub('"(auto|file)"', '"manual"', text))
    command(*back)
    assert collect_labels(config=str(loop)).n_labels == 4


def test_an_import_settles_no_conflict_and_an_export_hands_none_out(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, *_, last) = opened(loop).read("label_requests").sort_by("sample_id").to_pylist()
    row = {"sample_id": first["sample_id"], "task": "classification", "origin": "conflict"}
    row |= {"annotator": "ann, bo, cy, di", "created_at": LONG_AGO, "n_annotations": 4}
    change(loop, "labels", row)
    made = tmp_path / "labels.csv"
    ids = [first["sample_id"], last["sample_id"]]
    made.write_text("image,sample_id,choice\n" + "".join(f"{one},{one},dog\n" for one in ids))
    words = ("--config", loop, "--no-ingest")
    for replacing in ([], ["--replace-imports"]):
        command("import", made, "--format", "table", *words, "--json", *replacing)
        found = json.loads(capsys.readouterr().out)["labels"]
        assert found["conflict"] == 1
        rows = opened(loop).read("labels").to_pylist()
        assert latest_labels(rows, "classification") == {ids[1]: "dog"}
    (flag,) = opened(loop).read("flags").to_pylist()
    assert flag["subject"] == ids[0] and "people disagree" in flag["evidence"]
    command("export", tmp_path / "x", "--format", "coco", "--config", loop, "--round", "0000",
            "--json")  # fmt: skip
    assert json.loads(capsys.readouterr().out)["asked"] == 2


def test_a_label_of_a_model_is_not_exported_to_come_back_as_a_persons(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = opened(loop).read("samples").sort_by("sample_id")["sample_id"].to_pylist()
    row = {"label": "cat", "task": "classification", "created_at": LONG_AGO}
    change(
        loop,
        "labels",
        {**row, "sample_id": ids[0], "origin": "model", "annotator": "model", "model_id": "m1"},
        {**row, "sample_id": ids[1], "origin": "csv", "annotator": "ann"},
    )
    fixed = {"training_set": "t", "label": "cat", "arm": "loop"}
    change(
        loop,
        "training_sets",
        {**fixed, "sample_id": ids[0], "origin": "model", "position": 0},
        {**fixed, "sample_id": ids[1], "position": 1},
    )
    for number, what in enumerate(["all", "label:cat", "training_set:t"]):
        target = tmp_path / str(number)
        command("export", target, "--format", "table", "--config", loop, "--what", what, "--json")
        assert json.loads(capsys.readouterr().out)["labels"] == 1
        command("import", target, "--format", "table", "--config", loop, "--no-ingest")
        capsys.readouterr()
    rows = opened(loop).read("labels").to_pylist()
    assert {row["sample_id"]: row["origin"] for row in rows} == {ids[0]: "model", ids[1]: "csv"}


def test_a_person_who_is_called_model_is_a_person() -> None:
    row = {"sample_id": "a", "task": "classification", "created_at": LONG_AGO, "round_id": "0001"}
    person = {**row, "label": "cat", "origin": "import", "annotator": "model", "round_id": ""}
    model = {**row, "label": "dog", "origin": "model", "annotator": "model"}
    assert latest_labels([person, model]) == {"a": "cat"}
    later = LONG_AGO + timedelta(seconds=1)
    back = {**model, "label": None, "origin": "withdrawn", "created_at": later}
    assert latest_labels([model, back]) == {} and latest_labels([person, back]) == {"a": "cat"}


def test_an_export_of_a_round_and_of_something_else_is_refused(loop: Path, tmp_path: Path) -> None:
    words = ["export", tmp_path / "x", "--format", "coco", "--config", loop, "--round", "0000"]
    command(*words, "--what", "label:cat", status=2)


def test_who_labelled_and_for_how_long_comes_in_from_label_studio(
    loop: Path, tmp_path: Path
) -> None:
    lake = opened(loop)
    ids = lake.read("samples").sort_by("sample_id")["sample_id"].to_pylist()

    def answer(label: str, **said: Any) -> dict[str, Any]:
        result = {"type": "choices", "value": {"choices": [label]}}
        return {"result": [result], "lead_time": 3.5, **said}

    tasks = [
        {
            "data": {"image": "/x", "sample_id": ids[0]},
            "annotations": [answer("cat", completed_by=7)],
        },
        {
            "data": {"image": "/x", "sample_id": ids[1]},
            "annotations": [
                answer("cat", completed_by={"email": "ann@x.org"}, updated_at="2026-01-01"),
                answer("dog", completed_by={"email": "bo@x.org"}, updated_at="2026-01-02"),
            ],
        },
        {
            "data": {"image": "/x", "sample_id": ids[2]},
            "annotations": [answer("cat", lead_time=-1, completed_by=None)],
        },
    ]  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    problems = tmp_path / "problems.csv"
    command("import", tmp_path / "export.json", "--format", "label_studio", "--config", loop,
            "--no-ingest", "--annotator", "team", "--problems", problems)  # fmt: skip
    rows = opened(loop).read("labels").sort_by("sample_id").to_pylist()
    assert [(row["label"], row["annotator"], row["seconds"]) for row in rows] == [
        ("cat", "7", 3.5), ("dog", "bo@x.org", 3.5), ("cat", "team", None),
    ]  # fmt: skip
    assert "that of ann@x.org does not count" in problems.read_text()


def test_label_studios_csv_is_a_table_and_its_short_json_is_refused(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = opened(loop).read("samples").sort_by("sample_id")["sample_id"].to_pylist()
    (tmp_path / "export.csv").write_text(
        "image,sample_id,id,choice,annotator,annotation_id,lead_time\n"
        f"/data/1.png,{ids[0]},1,cat,7,11,2.25\n"
        f'/data/2.png,{ids[1]},2,"[{{""x"": 1, ""rectanglelabels"": [""cat""]}}]",7,12,4\n'
    )
    words = ("--config", loop, "--no-ingest")
    command("import", tmp_path / "export.csv", "--format", "table", *words)
    (row,) = opened(loop).read("labels").to_pylist()
    assert (row["label"], row["annotator"], row["seconds"]) == ("cat", "7", 2.25)
    short = [{"image": "/data/1.png", "id": 1, "choice": "cat", "annotation_id": 4}]
    (tmp_path / "short.json").write_text(json.dumps(short))
    command("import", tmp_path / "short.json", "--format", "label_studio", *words, status=2)
    assert "not JSON-MIN" in capsys.readouterr().err
