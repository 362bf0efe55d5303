"""Replies as KServe's runtimes, our predictor and others write them: streamed, never all at once.

The numbers come from a pool of distributions, so that making replies is quicker than reading them;
ids and times are new for each reply.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson

Reply = tuple[str, bytes]  # ce-time, and the body

_POOL = 256
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _forms(classes: int, model: str) -> list[tuple[bytes, bytes, bytes, list[bytes]]]:
    """Return what stands before the id, between it and the numbers, and behind, and the numbers."""
    values = np.random.default_rng(classes).dirichlet(np.full(classes, 0.3), _POOL)
    values = values.astype(np.float32)
    shape = f"[1, {classes}]"
    spaced = (
        b'{"model_name": "clf", "id": "',
        f'", "model_version": "{model}", "outputs": [{{"name": "probabilities", "shape": {shape}, '
        '"datatype": "FP32", "data": ['.encode(),
        b"]}]}",
        [json.dumps(row.tolist())[1:-1].encode() for row in values],
    )
    compact = (
        b'{"id":"',
        f'","model_name":"clf","model_version":"{model}","outputs":[{{"name":"probabilities",'
        f'"shape":[1,{classes}],"datatype":"FP32","data":['.encode(),
        b'],"parameters":null}],"parameters":{}}',
        [orjson.dumps(row.tolist())[1:-1] for row in values],
    )
    ours = (
        f'{{"model_name":"clf","model_version":"{model}","id":"'.encode(),
        f'","outputs":[{{"name":"probabilities","shape":[1,{classes}],"datatype":"FP32",'
        '"data":['.encode(),
        b']},{"name":"label","shape":[1],"datatype":"BYTES","data":["class 7"]}]}',
        [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for row in values],
    )
    rounded = (*spaced[:3], [b", ".join(b"%.8e" % value for value in row) for row in values])
    return [spaced, compact, ours, rounded]


def replies(classes: int, number: int, at_once: int, seed: int = 0) -> Iterator[list[Reply]]:
    """Yield replies in lists, each as one endpoint writes them.

    Args:
        classes: Numbers in each.
        number: How many in all.
        at_once: How many in a list.
        seed: Whatever is drawn is drawn from it.
    """
    rng = random.Random(seed)
    forms = _forms(classes, "model-7f3a")
    for start in range(0, number, at_once):
        found = []
        before, between, behind, numbers = forms[rng.getrandbits(2)]
        for index in range(start, min(start + at_once, number)):
            name = b"%032x" % rng.getrandbits(128)
            body = b"".join((before, name, between, numbers[rng.getrandbits(8)], behind))
            time = _BEGIN + timedelta(microseconds=1237 * index)
            found.append((time.isoformat().replace("+00:00", "Z"), body))
        yield found
