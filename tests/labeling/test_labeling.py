"""Label requests and answers: CSV files as people write them, the oracle, a round that waits."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest

from visionloop.errors import InputError
from visionloop.labeling.tables import FileNames, labels_of_files, read_label_csv
from visionloop.lake import Lake
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.request_labels import request_labels

URIS = {
    "file:///data/cat/1.png": "a" * 64,
    "file:///data/dog/1.png": "b" * 64,
    "file:///data/dog/copy%20of%201.png": "b" * 64,
    "gs://bucket/bobcat/2.png": "c" * 64,
}


def config(lake: Lake, **more: object) -> str:
    return json.dumps({"name": lake.loop, "lake": lake.uri, "classes": ["cat", "dog"], **more})


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Return a lake with three pool samples, of which two are picked, and one of the holdout."""
    opened = lake.rounds.open("run")
    with lake.run(stage="ingest", round_id=opened.round_id) as run:
        ids = [letter * 64 for letter in "abcd"]
        uris = ["/data/cat/1.png", "/data/dog/1.png", "/data/dog/2.png", "/data/cat/9.png"]
        uris = ["file://" + uri for uri in uris]
        run.append("files", pa.table({"uri": uris, "sample_id": ids, "state": ["ok"] * 4}))
        splits = ["pool", "pool", "pool", "holdout"]
        run.append("samples", pa.table({"sample_id": ids, "uri": uris, "split": splits}))
        picks = pa.table({"sample_id": ids[:2], "rank": [1, 0]})
        run.append("selections", picks)
        run.commit()
    return lake


@pytest.mark.parametrize(
    "text",
    [
        "file,label\ncat/1.png,cat\n/data/dog/1.png,dog\n",
        "label;file;note\ncat;cat/1.png;x\ndog;./dog/1.png;\n",
        "\ufeffFile,Label\r\ncat/1.png, cat \r\ndog/1.png,dog\r\n\r\n",
        f"sample_id,label\n{'A' * 64},cat\n{'b' * 64},dog\n",
    ],
)
def test_label_files_are_read_as_people_write_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    assert labels_of_files(str(path), URIS) == ({"a" * 64: "cat", "b" * 64: "dog"}, [])


def test_rows_of_unknown_samples_are_told_and_rows_without_a_label_are_not_answers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,label\ncat/1.png,\ncat/7.png,cat\ncat/2.png,cat\n")
    assert labels_of_files(str(path), URIS) == ({}, ["cat/7.png", "cat/2.png"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\n1.png,cat\n", r"'1.png' means 2 different samples \(.*line 2\)"),
        ("file,label\ncat/1.png,cat\ncat/1.png,dog\n", r"labelled 'cat' and 'dog' \(.*line 3\)"),
        ("name,class\nx,y\n", r"header is 'name,class'.*Begin the file with `file,label`"),
        ("", r"header is ''"),
    ],
)
def test_what_a_label_file_gets_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        labels_of_files(str(path), URIS)


def test_a_label_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("file,label\nx.png,Äpfel\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_label_csv(str(path))


def test_a_file_name_matches_whole_segments_only() -> None:
    names = FileNames(URIS)
    assert names.find("bobcat/2.png") == {"c" * 64}
    assert names.find("cat/2.png") == set()
    assert names.find("copy of 1.png") == {"b" * 64}
    assert names.find("gs://bucket/bobcat/2.png") == {"c" * 64}


def test_the_oracle_answers_picks_and_holdout_and_the_round_goes_on(filled: Lake) -> None:
    setting = config(filled, labeling={"provider": "oracle", "labels": "folder"})
    assert request_labels(config=setting).n_requested == 3
    collected = collect_labels(config=setting)
    assert (collected.n_labels, collected.n_missing) == (3, 0)
    assert collected.trainable_version == collected.lake_version == filled.version()
    rows = filled.read("labels").to_pylist()
    assert {row["sample_id"][0]: row["label"] for row in rows} == {
        "a": "cat",
        "b": "dog",
        "d": "cat",
    }
    assert {row["origin"] for row in rows} == {"oracle"}


def test_asking_and_collecting_again_changes_nothing(filled: Lake) -> None:
    setting = config(filled, labeling={"provider": "oracle", "labels": "folder"})
    for _ in range(2):
        request_labels(config=setting)
        collect_labels(config=setting)
    assert filled.read("label_requests").num_rows == 3
    assert filled.read("labels").num_rows == 3


def test_people_fill_the_request_file_and_the_waiting_round_goes_on(filled: Lake) -> None:
    setting = config(filled)
    request_labels(config=setting)
    waiting = collect_labels(config=setting)
    assert (waiting.trainable_version, waiting.n_missing) == ("", 3)
    assert filled.rounds.get("0000").state == "waiting"  # type: ignore[union-attr]

    path = Path(filled.uri.removeprefix("file://")) / "label_requests" / "test-0000.csv"
    rows = list(csv.DictReader(path.open()))
    assert [row["file"] for row in rows] == [
        "/data/dog/1.png",
        "/data/cat/1.png",
        "/data/cat/9.png",
    ]
    assert [row["purpose"] for row in rows] == ["training", "training", "holdout"]

    def answer(count: int) -> None:
        for row, label in list(zip(rows, ["dog", "cat", "cat"], strict=True))[:count]:
            row["label"] = label
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    answer(2)
    request_labels(config=setting)  # the resumed round asks again, and keeps what was answered
    partly = collect_labels(config=setting)
    assert (partly.trainable_version, partly.n_labels, partly.n_missing) == ("", 2, 1)
    answer(3)
    request_labels(config=setting)
    done = collect_labels(config=setting)
    assert (done.trainable_version, done.n_missing) == (filled.version(), 0)
    assert filled.rounds.get("0000").state == "running"  # type: ignore[union-attr]
    assert filled.read("labels").num_rows == 3


def test_a_class_that_the_configuration_lacks_is_refused_with_the_nearest_and_stores_nothing(
    filled: Lake, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text("file,label\ncat/1.png,cta\ndog/1.png,dog\n")
    setting = config(filled, labeling={"provider": "csv", "labels": str(answers)})
    request_labels(config=setting)
    with pytest.raises(InputError, match=r"`cta` \(did you mean `cat`\?\).*answers.csv"):
        collect_labels(config=setting)
    assert filled.read("labels").num_rows == 0


def test_the_holdout_is_asked_about_once_and_not_in_every_round(filled: Lake) -> None:
    setting = config(filled, labeling={"provider": "oracle", "labels": "folder"})
    request_labels(config=setting)
    collect_labels(config=setting)
    with filled.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done")
        run.commit()
    filled.rounds.open("next")
    with filled.run(stage="select") as run:
        run.append("selections", pa.table({"sample_id": ["c" * 64], "rank": [0]}))
        run.commit()
    assert request_labels(config=setting).n_requested == 1
    assert collect_labels(config=setting).n_labels == 1
