"""Classes that labels have and the configuration lacks; classes that are added between rounds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import pytest

from tests.faults.conftest import SmallLoop, doubled, failure_of
from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.evaluate import evaluate
from visionloop.stages.infer import infer
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor
from visionloop.stages.report import report
from visionloop.stages.request_labels import request_labels
from visionloop.stages.select import select
from visionloop.stages.train import train

Command = Callable[..., tuple[int, str, str]]


def relabel(loop: SmallLoop, every: dict[str, str]) -> None:
    """Give samples other true labels."""
    path = loop.folder / "truth.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["sample_id", "label"])
        writer.writeheader()
        for row in rows:
            label = every.get(row["sample_id"], every.get(row["label"], row["label"]))
            writer.writerow({"sample_id": row["sample_id"], "label": label})


def test_imported_labels_of_an_unknown_class_store_nothing(
    loop: SmallLoop, command: Command
) -> None:
    relabel(loop, {"seven": "seven", "7": "sevn"})
    loop.settings["classes"] = [*"012345689", "seven"]
    loop.settings["sources"][0]["labels"] = str(loop.folder / "truth.csv")
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2
    assert "`sevn` (did you mean `seven`?)" in err and "truth.csv" in err
    assert "nothing was stored" in err
    assert loop.lake.read("files").num_rows == 0
    relabel(loop, {"sevn": "seven"})
    done = ingest(config=loop.config)
    assert done.n_new == loop.lake.read("labels").num_rows > 0


def test_answers_of_an_unknown_class_store_nothing_and_the_round_goes_on_when_it_is_named(
    loop: SmallLoop,
) -> None:
    loop.take_in()
    select(config=loop.config)
    request_labels(config=loop.config)
    relabel(loop, {str(digit): "a digit" for digit in range(5)})
    told = failure_of(lambda: collect_labels(config=loop.config))
    assert told.exit_status == 2
    assert "`a digit`" in told.what and "truth.csv" in told.where and "at its end" in told.remedy
    assert loop.lake.read("labels").num_rows == 0
    loop.settings["classes"].append("a digit")
    done = collect_labels(config=loop.config)
    assert done.trainable_version and done.n_missing == 0
    assert loop.lake.read("labels").num_rows == done.n_labels and not doubled(loop.lake)


@pytest.mark.parametrize("configured", [True, False])
def test_a_class_that_is_added_between_rounds_is_learned_and_the_old_model_still_counts(
    loop: SmallLoop, configured: bool
) -> None:
    """Named at the end of `classes:`, or, where classes were learned, all of them named."""
    three = {str(digit): "abc"[digit % 3] for digit in range(10)}
    relabel(loop, three)
    loop.settings["classes"] = ["a", "b", "c"] if configured else []
    loop.take_in()
    loop.label()
    old = loop.publish()

    # Half of what is not labelled yet turns out to be of a fourth class.
    labelled = set(loop.lake.read("labels")["sample_id"].to_pylist())
    fresh = sorted(set(loop.lake.read("samples")["sample_id"].to_pylist()) - labelled)
    relabel(loop, dict.fromkeys(fresh, "d"))
    loop.take_in()
    if configured:
        loop.settings["classes"].append("d")
    monitor(config=loop.config)
    predictions = loop.lake.read("predictions", where=f"model_id == '{old}'").to_pylist()
    assert predictions and {len(row["probabilities"]) for row in predictions} == {3}
    if not configured:
        n_before = loop.lake.read("labels").num_rows
        told = failure_of(loop.label)
        assert told.exit_status == 2 and "`d`" in told.what and "`classes:`" in told.remedy
        assert loop.lake.read("labels").num_rows == n_before
        loop.settings["classes"] = ["a", "b", "c", "d"]
    loop.label()
    model_id, uri = loop.candidate()
    rows = {row["model_id"]: row for row in loop.lake.read("experiments").to_pylist()}
    assert rows[old]["classes"] == ["a", "b", "c"]
    assert rows[model_id]["classes"] == ["a", "b", "c", "d"]
    assert json.loads(rows[model_id]["confusion"])["classes"] == ["a", "b", "c", "d"]

    from visionloop.stages.publish import publish

    publish(config=loop.config, model_id=model_id, model_uri=uri, passed=True)
    assert loop.take_in() == "0002"
    newest = loop.lake.read("predictions", where=f"model_id == '{model_id}'").to_pylist()
    assert {len(row["probabilities"]) for row in newest} == {4}
    monitor(config=loop.config)
    select(config=loop.config)
    report(config=loop.config)
    assert not doubled(loop.lake)


def test_a_class_that_is_taken_away_while_labels_have_it_is_told(loop: SmallLoop) -> None:
    loop.take_in()
    loop.label()
    loop.settings["classes"] = [str(digit) for digit in range(3)]
    told = failure_of(lambda: train(config=loop.config))
    assert told.exit_status == 2 and "configuration's classes" in told.what
    assert loop.lake.read("experiments").num_rows == 0


def test_classes_in_another_order_change_no_prediction_of_the_model_in_service(
    loop: SmallLoop,
) -> None:
    loop.take_in()
    loop.label()
    loop.publish()
    loop.take_in()
    before = {r["sample_id"]: r["label"] for r in loop.lake.read("predictions").to_pylist()}
    loop.settings["classes"].reverse()
    assert infer(config=loop.config).n_predicted == 0
    select(config=loop.config)
    loop.label()
    model_id = train(config=loop.config).model_id
    evaluate(config=loop.config, model_id=model_id)
    after = {r["sample_id"]: r["label"] for r in loop.lake.read("predictions").to_pylist()}
    assert after == before
