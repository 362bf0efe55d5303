"""How fast selection's kernels are; how few labels it needs is `benchmarks.active_learning`.

Every strategy of `visionloop select`, then exact k-center, typicality and near pairs, on made
embeddings, one thread each, every peer with the widest kernels of its BLAS
(`pip install visionloop[bench]`; who is not installed is left out, and said so). Seconds are the
processor's. Two-stage selection in shards is compared with the exact one. Peers that take longer
than twenty seconds run once, between runs of ours.
"""

from __future__ import annotations

import sys

from benchmarks._rows import arguments, report
from benchmarks._selection_presets import preset_rows
from benchmarks._selection_speed import speed_rows
from benchmarks._vectors import compute_alike, kernels


def main() -> None:
    """Run the benchmark."""
    compute_alike()
    options = arguments(__doc__)
    print(kernels(), file=sys.stderr)
    rows = preset_rows(quick=options.quick) + speed_rows(quick=options.quick)
    report("selection", rows, as_json=options.json)


if __name__ == "__main__":
    main()
