"""An inference of an unknown image is linked by its reply's embedding, where that is sure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.serving.conftest import write_events
from tests.serving.test_harvest_stage import Loop, event, loop, request
from visionloop.lake import Lake
from visionloop.serving.embedding_links import nearest_samples
from visionloop.serving.responses import decode_response

__all__ = ["loop"]

RNG = np.random.default_rng(0)
HELD = RNG.normal(size=(50, 16)).astype(np.float32)
IDS = [f"{n:064x}" for n in range(50)]
TENSOR = json.dumps({"instances": [[[[1, 2, 3]]]]}).encode()


def reply(vector: Any, *, model: str = "model-1", p: float = 0.25) -> bytes:
    row = {"probabilities": [p, 1 - p], "embedding": np.asarray(vector).tolist()}
    return json.dumps({"predictions": [row], "model_id": model}).encode()


@pytest.fixture
def lake(loop: Loop) -> Lake:
    """The loop's lake, with the model's own space."""
    lake = Lake.open(str(loop.folder), loop="test")
    with lake.run(stage="infer") as run:
        run.append_embeddings("own", IDS, HELD)
        run.commit(outputs={"model_id": "model-1", "model_space": "own"})
    return lake


def links(loop: Loop) -> dict[str, tuple[str | None, str | None]]:
    rows = loop.rows("confidences")
    return {row["event_id"]: (row["sample_id"], row["linked_by"]) for row in rows}


def inference(event_id: str, answer: bytes, body: bytes = TENSOR) -> list[dict[str, Any]]:
    return [event("request", event_id, body), event("response", event_id, answer)]


def test_the_same_picture_is_linked_and_neighbours_are_not(loop: Loop, lake: Lake) -> None:
    near = HELD[3] * 7 + RNG.normal(0, 0.01, 16)  # of any length
    far = HELD[3] + RNG.normal(0, 0.3, 16)
    asked = request("known", seed=1)
    write_events(
        loop.events / "a.events.jsonl",
        [
            *inference("same", reply(near)),
            *inference("other", reply(far)),
            *inference("other-model", reply(near, model="model-2")),
            *inference("other-width", reply(near[:8])),
            *inference("nothing", reply(np.zeros(16))),
            *(asked, event("response", "known", reply(near))),
        ],
    )
    assert loop.harvest().n_confidences == 6
    found = links(loop)
    assert found.pop("same") == (IDS[3], "embedding")
    assert found.pop("known")[1] == "hash"
    assert set(found.values()) == {(None, None)}
    assert Lake.open(str(loop.folder), loop="test").read("harvest_events").num_rows == 12


def test_what_is_answered_before_its_request_is_linked_anew_by_what_was_sent(
    loop: Loop, lake: Lake
) -> None:
    write_events(loop.events / "a.events.jsonl", [event("response", "1", reply(HELD[3]))])
    loop.harvest()
    assert links(loop) == {"1": (IDS[3], "embedding")}
    write_events(loop.events / "b.events.jsonl", [request("1", seed=1)])
    loop.harvest()
    ((sample, by),) = links(loop).values()
    assert by == "hash"
    assert sample not in IDS


def test_a_half_that_was_kept_is_linked_when_the_other_comes(loop: Loop, lake: Lake) -> None:
    question, answer = inference("1", reply(HELD[3]))
    write_events(loop.events / "a.events.jsonl", [answer])
    loop.harvest()
    write_events(loop.events / "b.events.jsonl", [question])
    loop.harvest()
    assert links(loop) == {"1": (IDS[3], "embedding")}


def test_of_near_duplicates_in_the_lake_none_is_chosen() -> None:
    twins = np.concatenate([HELD, HELD[3:4] + 1e-4])
    found = nearest_samples(
        HELD[2:4], [([*IDS[:20]], twins[:20]), ([*IDS[20:], "twin"], twins[20:])]
    )
    assert found == [IDS[2], None]
    assert nearest_samples(HELD[:1], [(IDS[:1], HELD[:1])]) == [None]  # nothing to compare with
    assert nearest_samples(HELD[:1], []) == [None]


def test_the_nearest_two_are_those_of_all_blocks() -> None:
    blocks = [(IDS[a : a + 7], HELD[a : a + 7]) for a in range(0, 50, 7)]
    order = RNG.permutation(50)
    assert nearest_samples(HELD[order], blocks) == [IDS[n] for n in order]


@pytest.mark.parametrize(
    "embedding", [[1, 2], [[1.0, 2.0]], [["a", "b"]], [[1.0, float("inf")]], None, [[1e400, 0]]]
)
def test_an_embedding_that_is_none_costs_the_reply_nothing_else(embedding: Any) -> None:
    plain = {"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.5]}
    more = {"name": "embedding", "shape": [1, 2], "datatype": "FP32", "data": embedding}
    body = json.dumps({"outputs": [plain, more]}).encode()
    found = decode_response(body)
    assert not found.problem
    assert found.probabilities is not None
    expected = embedding in ([1, 2], [[1.0, 2.0]])
    assert (found.embeddings is not None) == expected


def test_random_picks_are_not_judged_by_guessed_samples(tmp_path: Path) -> None:
    from visionloop.monitoring.config import MonitoringConfig
    from visionloop.monitoring.deployed import Deployed
    from visionloop.monitoring.estimating import Evidence

    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    with lake.run(stage="ingest", round_id="0001") as run:
        run.append("samples", pa.table({"sample_id": IDS[:4]}))
        named = {"endpoint": ["e"] * 4, "model_id": ["m"] * 4, "label": ["a"] * 4}
        links = ["hash", None, "header", "embedding"]
        rows = {"sample_id": IDS[:4], "linked_by": links, **named}
        run.append("confidences", pa.table(rows))
        run.commit()
    with lake.run(stage="monitor", round_id="0001") as run:
        window = Deployed("0001", "e", "m", np.zeros(0), [], np.zeros(0, np.intp))
        evidence = Evidence(lake, run, "t", MonitoringConfig())
        estimate = evidence.from_random_picks(window).estimate
    assert (estimate.evidence["n_inferences"], estimate.evidence["n_linked"]) == (4, 3)
