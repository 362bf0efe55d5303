"""Automatic labels are trained on, seen to be so, and counted as nobody's work."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from tests.training.small_loop import SmallLoop
from visionloop.lake.checking import check
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.report.load import load_report
from visionloop.stages.evaluate import evaluate
from visionloop.stages.train import train


@pytest.fixture
def loop(tmp_path: Path) -> SmallLoop:
    """Return a loop with 30 labels of people, and 20 of a model, one of them in the holdout."""
    made = SmallLoop(tmp_path)
    pool, holdout = made.split("pool"), made.split("holdout")
    made.label(pool[:30] + holdout[1:])
    now = datetime.now(UTC)
    rows = [
        {"sample_id": one, "task": "classification", "label": made.truth[one], "origin": "model",
         "annotator": "model", "model_id": "m0", "quality": 0.99, "created_at": now}
        for one in [*pool[30:49], holdout[0]]
    ]  # fmt: skip
    with made.lake.run(stage="request_labels", round_id="0000") as run:
        run.append("labels", pa.Table.from_pylist(rows, schema=arrow_schema("labels")))
        run.commit()
    return made


def test_a_training_set_tells_which_labels_are_automatic_and_counts_peoples(
    loop: SmallLoop,
) -> None:
    bundle, metrics = loop.artifact("model"), loop.artifact("metrics")
    trained = train(config=loop.config, round_id="0000", model=bundle, metrics=metrics)
    assert trained.n_labels == metrics.logged["n_labels"] == 30
    assert metrics.logged["n_automatic"] == 19
    rows = loop.lake.read("training_sets").to_pylist()
    assert Counter(row["origin"] for row in rows) == {None: 30, "model": 19}
    assert loop.experiment(trained.model_id)["n_labels"] == 30
    page = loop.artifact("page.md")
    evaluate(
        config=loop.config, round_id="0000", model_id=trained.model_id, model=bundle, page=page
    )
    text = Path(page.path).read_text()
    assert "| 30 and 19 automatic |" in text
    # A model is not judged by what a model said.
    assert f"On {len(loop.split('holdout')) - 1} holdout samples" in text
    assert load_report(loop.lake).n_labels == 30
    (found,) = [one for one in check(loop.lake) if one.check == "experiments: labels add up"]
    assert found.checked == 1 and not found.broken


def test_no_more_than_the_stated_share_is_trained_on(loop: SmallLoop) -> None:
    config = loop.changed("labeling", auto_labels={"max_share": 0.25})
    assert train(config=config, round_id="0000").n_labels == 30
    rows = loop.lake.read("training_sets").to_pylist()
    assert Counter(row["origin"] for row in rows) == {None: 30, "model": 10}
