"""Who reads logged replies: a harvest's way, and loops over parsers that do the whole same job.

The job: the ids (of the reply, its model and that one's version), the time and the probabilities
(float32) of each reply and their three uncertainties, every body valid JSON, every row of the width
that its shape says, finite, in [0, 1] and summing to 1.
What is done with arrays is done for a list of replies at once by all of them. The loops take the
scores one by one from `visionloop.selection.scores`, a harvest all three at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks._harvest_replies import Reply, replies
from visionloop.selection.scores import entropy, least_confidence, margin, uncertainties
from visionloop.serving.distributions import TOLERANCE
from visionloop.serving.events import parse_time
from visionloop.serving.reply_batches import decode_responses

Ids = list[tuple[str, str, str]]  # of the reply, its model and that one's version
Read = tuple[Ids, list[datetime | None], NDArray[np.float32], tuple[NDArray[Any], ...]]
Reader = Callable[[Sequence[Reply]], Read]


def _times(taken: Sequence[Reply]) -> list[datetime | None]:
    return [parse_time(when) for when, _ in taken]


def _scored(ids: Ids, taken: Sequence[Reply], rows: NDArray[np.float32]) -> Read:
    return ids, _times(taken), rows, (least_confidence(rows), margin(rows), entropy(rows))


def _checked(values: Sequence[Any]) -> NDArray[np.float32]:
    rows = np.concatenate(values).reshape(len(values), -1).astype(np.float32)
    if not (rows.min() >= 0 and rows.max() <= 1):
        raise SystemExit("a reply is no distribution")
    if (np.abs(rows.sum(axis=1, dtype=np.float64) - 1) > TOLERANCE).any():
        raise SystemExit("a reply does not sum to 1")
    return rows


def ours(taken: Sequence[Reply]) -> Read:
    """Read replies as a harvest does."""
    answers = decode_responses([body for _, body in taken], [""] * len(taken))
    rows = []
    for answer in answers:
        if answer.probabilities is None:
            raise SystemExit(f"a reply was refused: {answer.problem}")
        rows.append(answer.probabilities)
    held = np.concatenate(rows)
    ids = [(answer.v2_id, answer.model_name, answer.model_id) for answer in answers]
    return ids, _times(taken), held, tuple(uncertainties(held).values())


def by_orjson(taken: Sequence[Reply]) -> Read:
    """Read replies in a loop over orjson."""
    ids, rows = [], []
    for _, body in taken:
        value = orjson.loads(body)
        for output in value["outputs"]:
            if output["name"] == "probabilities":
                shape, data = output["shape"], output["data"]
                if len(data) != shape[0] * shape[1]:
                    raise SystemExit("a reply has another shape")
                rows.append(np.array(data))
        ids.append((value["id"], value["model_name"], value["model_version"]))
    return _scored(ids, taken, _checked(rows))


def simdjson_reader() -> Reader:
    """Return what reads replies in a loop over one parser of pysimdjson."""
    import simdjson

    parser = simdjson.Parser()

    def read(taken: Sequence[Reply]) -> Read:
        ids, rows = [], []
        for _, body in taken:
            value: Any = parser.parse(body)
            for output in value["outputs"]:
                if output["name"] == "probabilities":
                    shape = output["shape"].as_list()
                    data = np.frombuffer(output["data"].as_buffer(of_type="d"))
                    if data.size != shape[0] * shape[1]:
                        raise SystemExit("a reply has another shape")
                    rows.append(data)
                    break
            ids.append((value["id"], value["model_name"], value["model_version"]))
            del value, output  # the parser takes no other document before
        return _scored(ids, taken, _checked(rows))

    return read


_DUCKDB = """
with replies as (
    select [reply.id, reply.model_name, reply.model_version] as ids, time,
        list_filter(reply.outputs, lambda x: x.name = 'probabilities')[1] as out
    from read_json(?, format = 'newline_delimited', maximum_object_size = 1048576, columns = {
        time: 'TIMESTAMP', reply: 'STRUCT(id VARCHAR, model_name VARCHAR, model_version VARCHAR,
        outputs STRUCT(name VARCHAR, shape INT[], data JSON)[])'
    })
), rows as (
    select ids, time, out.shape as shape, out.data::FLOAT[] as p,
        list_sort(p, 'DESC')[:2] as top, len(p) as n from replies
)
select ids, time, p, (1 - top[1]) * n / (n - 1), 1 - (top[1] - top[2]),
    -list_sum(list_transform(p, lambda x: if(x > 0, x * ln(x), 0))) / ln(n),
    n = list_product(shape) and list_min(p) >= 0 and list_max(p) <= 1
        and abs(list_sum(p) - 1) <= 0.001
from rows
"""


def by_duckdb(classes: int, number: int, folder: Path) -> float:
    """Return the replies a second of processor time that DuckDB reads out of a file."""
    import duckdb

    path = folder / f"{classes}.jsonl"
    with path.open("wb") as file:
        for taken in replies(classes, number, 256):
            for when, body in taken:
                file.write(b'{"time":"%s","reply":%s}\n' % (when.encode(), body))
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        began = time.process_time()
        found = connection.sql(_DUCKDB, params=[str(path)]).to_arrow_table()
        seconds = time.process_time() - began
    path.unlink()
    right = found.column(found.num_columns - 1)
    if found.num_rows != number or not all(right.to_pylist()):
        raise SystemExit("DuckDB did not read every reply")
    return number / seconds


def main() -> None:
    """Read replies our way in this process alone: `classes number at_once seed`."""
    classes, number, at_once, seed = (int(text) for text in sys.argv[1:])
    for taken in replies(classes, min(number, 4 * at_once), at_once):
        ours(taken)
    before = peak_mib()
    seconds = 0.0
    for taken in replies(classes, number, at_once, seed):
        began = time.perf_counter()
        ours(taken)
        seconds += time.perf_counter() - began
    peak = peak_mib()
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "grown_mib": peak - before}))


def peak_mib() -> float:
    """Return the most memory that this process held; `getrusage` counts what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
