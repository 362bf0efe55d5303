"""Which injected anomalies are found, beside Datalab, CleanVision, Evidently and plain tests.

Anomalies are put into real pictures and into streams, so that it is known which they are; precision
and recall of each kind are told for us and for each peer on the same data, all with their defaults:

- **pictures**: spoilt photographs and copies, beside CleanVision;
- **outliers**: what does not belong, in embeddings of a network and of pixels, beside Cleanlab's
  Datalab and scikit-learn's local outlier factor; and how many sound samples are flagged;
- **labels**: wrong labels, beside Datalab on the same out-of-sample probabilities;
- **metadata**: clocks and places that cannot be, beside an isolation forest over the same columns;
- **silence**: a camera that stops among cameras that do not, beside a fixed time-out, and whole
  lives of cameras that do not stop, beside twice the longest gap so far;
- **drift**: false alarms in streams without drift that are looked at again and again, and how much
  of a drift is found and when: by default, and at the same level over all looks; beside Evidently's
  default tests, alibi-detect's, and plain tests by SciPy and NumPy, a kernel test among them.

Datalab and Evidently need versions of packages that ours rule out; they run by a Python of their
own: ``--peers PYTHON``, where ``pip install "cleanlab[datalab]" evidently "pandas<3"`` was done. So
does alibi-detect: ``--alibi PYTHON``, where ``pip install alibi-detect`` was done. Without them
their rows are left out, and it is said. ``--large`` measures instead what the search for outliers
costs among 100,000 and 1,000,000 embeddings, beside the local outlier factor and FAISS.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from benchmarks._monitoring_found import label_rows, metadata_rows, outlier_rows
from benchmarks._monitoring_peers_run import peers_of
from benchmarks._monitoring_streams import drift_rows
from benchmarks._outliers_large import large_rows
from benchmarks._picture_flags import flag_rows
from benchmarks._rows import Row, arguments, report
from benchmarks._silent_cameras import silence_rows
from benchmarks._vectors import compute_alike

PARTS = {
    "pictures": lambda peers, quick: flag_rows(quick=quick),
    "outliers": outlier_rows,
    "labels": label_rows,
    "metadata": lambda peers, quick: metadata_rows(quick=quick),
    "silence": lambda peers, quick: silence_rows(quick=quick),
    "drift": drift_rows,
}


def main() -> None:
    """Run the benchmark."""
    compute_alike()
    options = arguments(__doc__, _options)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about steps and small classes
        if options.large:
            rows = large_rows(options.quick)
        else:
            peers = peers_of(options.peers, options.alibi)
            for name, part in PARTS.items():
                if options.part in ("", name):
                    print(f"{name} …", file=sys.stderr, flush=True)
                    rows += part(peers, options.quick)
    report("monitoring", rows, as_json=options.json)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--large", action="store_true", help="what outliers of 1,000,000 embeddings cost, alone"
    )
    parser.add_argument("--part", choices=["", *PARTS], default="", help="one part alone")
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="that has Datalab and Evidently"
    )
    parser.add_argument("--alibi", default="", metavar="PYTHON", help="that has alibi-detect")


if __name__ == "__main__":
    main()
