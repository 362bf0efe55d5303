"""How fast selection's kernels are; how few labels it needs is `benchmarks.active_learning`.

Every strategy of `visionloop select`, then exact k-center, typicality and near pairs, on made
embeddings, one thread each, every peer with the widest kernels of its BLAS
(`pip install visionloop[bench]`; who is not installed is left out, and said so). Seconds are the
processor's. Two-stage selection in shards is compared with the exact one. Peers that take longer
than twenty seconds run once, between runs of ours.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks._rows import arguments, report
from benchmarks._selection_presets import preset_rows
from benchmarks._selection_speed import speed_cases
from benchmarks._vectors import compute_alike, kernels


def main() -> None:
    """Run the benchmark."""
    compute_alike()
    options = arguments(__doc__, _more)
    print(kernels(), file=sys.stderr)
    cases = {
        "presets": lambda: preset_rows(quick=options.quick),
        **speed_cases(quick=options.quick),
    }
    wanted = [name for name in cases if options.only in name]
    if not wanted:
        sys.exit(f"no case has {options.only!r} in its name: {', '.join(cases)}")
    rows = [row for name in wanted for row in cases[name]()]
    report("selection", rows, as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", default="", help="the cases with this in their name, such as pairs"
    )


if __name__ == "__main__":
    main()
