"""Embeddings that hold NaN, or belong into another space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from tests.faults.conftest import SmallLoop, doubled, failure_of
from visionloop.lake.schemas import EMBEDDINGS_PREFIX
from visionloop.stages.infer import infer
from visionloop.stages.select import select

Command = Callable[..., tuple[int, str, str]]


def plant(loop: SmallLoop, space: str, ids: list[str], vectors: np.ndarray) -> None:
    """Put vectors into a space past the check that refuses broken ones."""
    lake = loop.lake
    width = 4 * vectors.shape[1]
    flat = pa.py_buffer(np.ascontiguousarray(vectors, "<f4"))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(ids), [None, flat])
    quoted = ", ".join(f"'{name}'" for name in ids)
    with lake.run(stage="planted") as run:
        run.replace(
            EMBEDDINGS_PREFIX + space,
            pa.table({"sample_id": pa.array(ids, pa.string()), "vector": column}),
            f"sample_id in ({quoted})",
        )
        run.commit()


def test_embeddings_with_nan_are_named_refused_and_made_anew_by_the_next_inference(
    loop: SmallLoop, command: Command
) -> None:
    loop.take_in()
    (space,) = loop.lake.spaces()
    ids, sound = loop.lake.embeddings(space)
    pool = loop.lake.read("samples", where="split == 'pool'")["sample_id"].to_pylist()
    chosen = sorted(pool)[:3]
    broken = np.stack([sound[ids.index(name)] for name in chosen])
    broken[0, 0], broken[1, 5], broken[2] = np.nan, np.inf, -np.inf
    plant(loop, space, chosen, broken)

    status, _, err = command("select", "--config", loop.config, "-n", "3")
    assert status == 2
    assert "3 embeddings hold NaN or infinity" in err and all(name in err for name in chosen)
    assert space in err and "visionloop run intake" in err
    told = failure_of(lambda: select(config=loop.config))
    assert told.exit_status == 2
    assert loop.lake.read("selections").num_rows == 0

    assert infer(config=loop.config).n_embedded == 3
    again, vectors = loop.lake.embeddings(space)
    assert again == ids and np.allclose(vectors, sound, atol=1e-6)
    assert select(config=loop.config).n_selected == 8
    assert infer(config=loop.config).n_embedded == 0 and not doubled(loop.lake)


def test_vectors_with_nan_are_not_stored(loop: SmallLoop) -> None:
    loop.take_in()
    lake = loop.lake
    (space,), version = lake.spaces(), lake.version()
    ids, vectors = lake.embeddings(space)

    def store() -> None:
        with lake.run(stage="test") as run:
            run.append_embeddings(space, ["f" * 64], np.full((1, vectors.shape[1]), np.nan))
            run.commit()

    told = failure_of(store)
    assert told.exit_status == 2 and "f" * 64 in told.where and "nothing was stored" in told.remedy
    assert lake.version() == version and lake.embeddings(space)[0] == ids


def test_vectors_of_another_model_do_not_enter_a_space(loop: SmallLoop) -> None:
    loop.take_in()
    lake = loop.lake
    (space,), version = lake.spaces(), lake.version()

    def store() -> None:
        with lake.run(stage="test") as run:
            run.append_embeddings(space, ["f" * 64], np.ones((1, 7), np.float32))
            run.commit()

    told = failure_of(store)
    assert told.exit_status == 2 and "7 components" in told.what and space in told.where
    assert lake.version() == version


def test_a_space_that_the_lake_lacks_is_named_with_those_it_has(
    loop: SmallLoop, command: Command
) -> None:
    loop.take_in()
    (space,) = loop.lake.spaces()
    loop.settings["selection"]["space"] = "clip"
    status, _, err = command("select", "--config", loop.config, "-n", "3")
    assert status == 2 and "'clip'" in err and space in err


def test_another_embedding_between_rounds_is_another_space_and_nothing_mixes(
    loop: SmallLoop,
) -> None:
    loop.take_in()
    (first,) = loop.lake.spaces()
    n = len(loop.lake.embeddings(first)[0])
    loop.settings["embedding"] = {"dimensions": 8}
    infer(config=loop.config)
    (second,) = set(loop.lake.spaces()) - {first}
    assert loop.lake.embeddings(first)[1].shape[0] == n
    assert loop.lake.embeddings(second)[1].shape == (n, 8)
    select(config=loop.config)
    held = loop.lake.rounds.get("0000")
    assert held is not None and held.counts["selection"]["space"] == second
