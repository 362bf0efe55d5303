"""Label requests and answers: CSV files as people write them, the oracle, a round that waits."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.labeling.answers import latest_labels
from visionloop.labeling.csv_file import CsvProvider
from visionloop.labeling.tables import FileNames, labels_of_files, read_label_csv
from visionloop.lake import Lake
from visionloop.monitoring.report.load import load_report
from visionloop.selection.config import SelectionConfig
from visionloop.selection.material import read_material
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.request_labels import request_labels

URIS = {
    "file:///data/cat/1.png": "a" * 64,
    "file:///data/dog/1.png": "b" * 64,
    "file:///data/dog/copy%20of%201.png": "b" * 64,
    "gs://bucket/bobcat/2.png": "c" * 64,
}


class Page:
    """An artifact of a task."""

    def __init__(self, path: Path) -> None:
        self.path = self.uri = str(path)
        self.metadata: dict[str, object] = {}


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
        'file\tlabel\tnote\ncat/1.png\tcat\t"a, b"\ndog/1.png\tdog\t\t\n',
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
        ('file,label,why\na.png,"cat,dull,\nb.png,"dog",x\n', r"cannot be read: .*line 2\)"),
        ('file,label\na.png,cat\nb.png,"dog\n', r"cannot be read: .*line 3\).*between quotes"),
        ("file,label\na.png,cat\nb,1.png,dog\n", r"other fields than the header \(.*line 3\)"),
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
        "/data/cat/9.png",
        "/data/cat/1.png",
    ]
    assert list(rows[0]) == ["sample_id", "file", "label", "reason"]
    said = path.read_text()  # what an answer is used for must not bias whoever gives it
    assert not any(word in said for word in ("purpose", "training", "holdout"))
    assert all(row["reason"] for row in rows)

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


def test_what_was_answered_since_somebody_looked_is_not_taken_back(
    filled: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_labels(config=config(filled))
    path = Path(filled.uri.removeprefix("file://")) / "label_requests" / "test-0000.csv"
    provider = CsvProvider(load_config(config(filled)), filled)
    looked = provider.collect
    ids = [row["sample_id"] for row in csv.DictReader(path.open())]

    def then_somebody_answers(*given: Any) -> Any:
        found = looked(*given)
        lines = path.read_text().splitlines()
        lines[1] = lines[1].replace(".png,,", ".png,dog,")
        path.write_text("\n".join(lines) + "\n")
        return found

    monkeypatch.setattr(provider, "collect", then_somebody_answers)
    assert provider.recall("0000", dict.fromkeys(ids, "")) == ids[1:]
    assert [(row["sample_id"], row["label"]) for row in csv.DictReader(path.open())] == [
        (ids[0], "dog")
    ]


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


def label_one(lake: Lake) -> None:
    """Give the third sample of the pool a label, so that there is something to train on."""
    with lake.run(stage="ingest") as run:
        row = {"sample_id": "c" * 64, "label": "dog", "task": "classification", "origin": "import"}
        row["created_at"] = datetime.now(UTC)  # type: ignore[assignment]
        run.append("labels", pa.Table.from_pylist([row]))
        run.commit()


def oracle_csv(lake: Lake, tmp_path: Path, text: str) -> str:
    path = tmp_path / "truth.csv"
    path.write_text(text)
    return config(lake, labeling={"provider": "oracle", "labels": str(path)})


def test_a_sample_that_the_oracle_does_not_know_is_skipped_at_once_and_told(
    filled: Lake, tmp_path: Path
) -> None:
    label_one(filled)
    setting = oracle_csv(filled, tmp_path, "file,label\ncat/1.png,cat\ndog/1.png,-\n")
    assert request_labels(config=setting).n_requested == 3
    page = Page(tmp_path / "page.md")
    done = collect_labels(config=setting, page=page)
    assert (done.n_labels, done.n_skipped, done.n_missing) == (1, 2, 0)
    assert done.trainable_version == filled.version()
    text = Path(page.path).read_text()
    assert "2 skipped" in text and "the oracle does not know them" in text
    rows = {row["sample_id"][0]: row for row in filled.read("labels").to_pylist()}
    assert rows["b"]["label"] is None and rows["b"]["origin"] == "skipped"
    again = collect_labels(config=setting)
    assert again[2:] == done[2:] and filled.read("labels").num_rows == 4


def test_an_oracle_that_knows_no_sample_at_all_skips_none(filled: Lake, tmp_path: Path) -> None:
    setting = oracle_csv(filled, tmp_path, "file,label\nelsewhere/7.png,cat\n")
    request_labels(config=setting)
    with pytest.raises(InputError, match="knows the label of no sample"):
        collect_labels(config=setting)
    assert filled.read("labels").num_rows == 0


def test_people_skip_what_cannot_be_labelled_and_it_is_never_asked_for_or_picked_again(
    filled: Lake, tmp_path: Path
) -> None:
    label_one(filled)
    answers = tmp_path / "answers.csv"
    answers.write_text("file,label\ncat/1.png,cat\ndog/1.png,SKIP\ncat/9.png,-\nno/such.png,cat\n")
    setting = config(filled, labeling={"provider": "csv", "labels": str(answers)})
    request_labels(config=setting)
    page = Page(tmp_path / "page.md")
    done = collect_labels(config=setting, page=page)
    assert (done.n_labels, done.n_skipped, done.n_missing) == (1, 2, 0) and done.trainable_version
    text = Path(page.path).read_text()
    assert "| training | 2 | 1 | 1 | 0 |" in text and "| holdout | 1 | 0 | 1 | 0 |" in text
    assert "were not used: **1** (`no/such.png`)" in text
    runs = [row for row in filled.stage_runs().to_pylist() if row["stage"] == "collect_labels"]
    counts = json.loads(runs[0]["counts"])
    assert counts["in"] == counts["ok"] + counts["skipped"] + counts["missing"] == 3
    assert counts["unknown_rows"] == 1
    assert latest_labels(filled.read("labels").to_pylist()) == {
        "a" * 64: "cat",
        "c" * 64: "dog",
    }

    material = read_material(filled, SelectionConfig(strategy="random"))
    assert "b" * 64 in material.taken and material.labelled.sample_ids == ("a" * 64, "c" * 64)
    report = load_report(filled)
    assert report.n_labels == 2
    with filled.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done")
        run.commit()
    filled.rounds.open("next")
    assert request_labels(config=setting).n_requested == 0


def test_a_round_whose_picks_were_all_skipped_ends_and_the_next_one_can_open(
    filled: Lake, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text("file,label\ncat/1.png,-\ndog/1.png,-\ncat/9.png,cat\n")
    setting = config(filled, labeling={"provider": "csv", "labels": str(answers)})
    request_labels(config=setting)
    page = Page(tmp_path / "page.md")
    done = collect_labels(config=setting, page=page)
    assert (done.trainable_version, done.n_labels, done.n_skipped, done.n_missing) == ("", 1, 2, 0)
    held = filled.rounds.get("0000")
    assert held is not None and (held.state, held.outcome) == ("done", "kept")
    assert "the round ends here" in Path(page.path).read_text()
    assert filled.rounds.open("next").round_id == "0001"


def test_a_class_called_skip_is_a_label(filled: Lake, tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text("file,label\ncat/1.png,skip\ndog/1.png,dog\ncat/9.png,-\n")
    setting = config(filled, labeling={"provider": "csv", "labels": str(answers)})
    setting = json.dumps(json.loads(setting) | {"classes": ["skip", "dog"]})
    request_labels(config=setting)
    done = collect_labels(config=setting)
    assert (done.n_labels, done.n_skipped) == (2, 1)
