"""alibi-detect's KSDrift and ChiSquareDrift, by a Python of their own: they want an older NumPy.

``python _alibi.py WORK.npz`` reads ``levels`` [l] and, of each case, ``numbers:CASE:reference``
[n, columns] and ``numbers:CASE:looks`` [looks, m, columns], the same of ``classes:CASE`` with class
numbers; it prints as JSON its version and, of each case and look, whether there is drift at each
level. Several columns share the level by Bonferroni's correction, as it does by default.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np


def main(path: str) -> None:
    """Judge every case in the file."""
    warnings.simplefilter("ignore")
    import alibi_detect
    from alibi_detect.cd import ChiSquareDrift, KSDrift

    held = np.load(path)
    found: dict[str, Any] = {}
    for name in held.files:
        if not name.endswith(":looks"):
            continue
        what, case = name.split(":")[:2]
        reference = held[f"{what}:{case}:reference"]
        test = ChiSquareDrift if what == "classes" else KSDrift
        judges = []
        for level in held["levels"].tolist():
            more = {}
            if what == "classes":
                more["categories_per_feature"] = {
                    0: int(max(reference.max(), held[name].max())) + 1
                }
            judges.append(test(reference, p_val=level, **more))
        found[f"{what}:{case}"] = [
            [bool(judge.predict(look)["data"]["is_drift"]) for judge in judges]
            for look in held[name]
        ]
    print(json.dumps({"versions": {"alibi-detect": alibi_detect.__version__}, "found": found}))


if __name__ == "__main__":
    main(sys.argv[1])
