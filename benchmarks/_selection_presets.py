"""How long each strategy of `visionloop select` takes, guards, reasons and radius included.

The peer is LightlyStudio's core with what it has for the same purpose: diversity, weights by
uncertainty, typicality, and their product. It does the bare selection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._rows import Row
from benchmarks._selection_speed import installed, timed
from benchmarks._vectors import Floats, clustered

CLASSES = 10
# The peer's strategies that answer the same question.
PEERS = {
    "diversity": ("diversity",),
    "uncertainty": ("weights",),
    "badge": ("weights", "diversity"),
    "typicality": ("typicality", "diversity"),
    "probcover": ("typicality", "diversity"),
    "auto": ("typicality", "weights", "diversity"),
}


def preset_rows(*, quick: bool) -> list[Row]:
    """Measure every preset on one pool, one thread."""
    n, d, k = (10_000, 64, 200) if quick else (50_000, 128, 500)
    if not (peer := installed("lightly-mundig")):
        return []
    x = clustered(n, d)
    rng = np.random.Generator(np.random.PCG64(5))
    probabilities = rng.dirichlet(np.full(CLASSES, 0.3), size=n).astype(np.float32)
    best = np.sort(probabilities, axis=1)
    margin = 1.0 - (best[:, -1] - best[:, -2])
    typicality, of_typicality = timed(lambda: _typicality(x))
    rows = []
    for name, strategies in PEERS.items():
        ours = timed(_selecting(name, x, probabilities, k))[1]
        theirs = timed(_peer(x, {"weights": margin, "typicality": typicality}, strategies, k))[1]
        theirs += of_typicality if "typicality" in strategies else 0.0
        case = f"select {name}, clustered {n:,} x {d}, k={k:,}, 50 labelled"
        rows.append(Row(case, ours, f"{peer}, {' and '.join(strategies)}", theirs, "s"))
    return rows


def _selecting(name: str, x: Floats, probabilities: Floats, k: int) -> Callable[[], Any]:
    """Return the selection, of `auto` in the middle of its schedule: all its objectives count."""
    from visionloop.selection.config import SelectionConfig
    from visionloop.selection.engine import select
    from visionloop.selection.pool import Pool, Reference

    rng = np.random.Generator(np.random.PCG64(6))
    ids = [f"{i:08d}" for i in range(len(x))]
    prints = [rng.bytes(32) for _ in ids]
    classes = [str(i) for i in range(CLASSES)]
    pool = Pool.build(
        ids,
        embeddings={"e": x},
        probabilities=probabilities,
        classes=classes,
        fingerprints=prints,
    )
    some = slice(0, 5 * CLASSES)
    labelled = Reference.build(
        ids[some], embeddings={"e": x[some]}, fingerprints=prints[some], labels=5 * classes
    )
    config = SelectionConfig.model_validate({"strategy": name})
    return lambda: select(pool, config, k, labelled=labelled)


def _typicality(x: Floats) -> Any:
    import lightly_mundig

    found = lightly_mundig.Typicality(x).calculate_typicality(20)
    return np.asarray(found, dtype=np.float32)


def _peer(
    x: Floats, weights: dict[str, Any], strategies: tuple[str, ...], k: int
) -> Callable[[], Any]:
    import lightly_mundig

    def run() -> Any:
        selection = lightly_mundig.Selection()
        for strategy in strategies:
            if strategy == "diversity":
                selection.add_diversifying_strategy(x, 1.0)
            else:
                selection.add_weighting_strategy(weights[strategy], 1.0)
        return selection.run_selection([], len(x), k)

    return run
