"""Cleanlab's Datalab and Evidently, run by a Python of their own: their packages rule out ours.

``python _monitoring_peers.py WORK.npz`` reads

- ``outliers:CASE`` features, float32 [n, d];
- ``labels:CASE:y`` and ``labels:CASE:p`` given labels and out-of-sample probabilities;
- ``levels`` [l], ``numbers:CASE:reference`` [n, columns] and ``numbers:CASE:looks`` [looks, m,
  columns], the same of ``classes:CASE`` with class numbers: what arrives look by look, held against
  the reference;

and prints as JSON the versions and, of each case, what is flagged: rows, or for drift of each look
and level whether the test that Evidently takes by default finds half of the columns drifted, as a
set drifts by its preset.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from typing import Any

import numpy as np


def main(path: str) -> None:
    """Judge every case in the file."""
    warnings.simplefilter("ignore")
    held = np.load(path)
    found: dict[str, Any] = {}
    for name in held.files:
        if name == "levels":
            continue
        what, case = name.split(":")[:2]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if what == "outliers":
                found[f"outliers:{case}"] = _outliers(held[name])
            elif what == "labels" and name.endswith(":y"):
                found[f"labels:{case}"] = _labels(held[name], held[f"labels:{case}:p"])
            elif what in ("numbers", "classes") and name.endswith(":looks"):
                reference = held[f"{what}:{case}:reference"]
                levels = held["levels"].tolist()
                found[f"{what}:{case}"] = _looks(reference, held[name], levels, what == "classes")
    import cleanlab
    import evidently

    versions = {"cleanlab": cleanlab.__version__, "evidently": evidently.__version__}
    print(json.dumps({"versions": versions, "found": found}))


def _outliers(features: Any) -> list[int]:
    from cleanlab import Datalab

    lab = Datalab(data={"row": list(range(len(features)))}, verbosity=0)
    lab.find_issues(features=features, issue_types={"outlier": {}})
    return [int(i) for i in np.flatnonzero(lab.get_issues("outlier")["is_outlier_issue"])]


def _labels(given: Any, probabilities: Any) -> list[int]:
    from cleanlab import Datalab

    lab = Datalab(data={"y": given.tolist()}, label_name="y", verbosity=0)
    lab.find_issues(pred_probs=probabilities, issue_types={"label": {}})
    return [int(i) for i in np.flatnonzero(lab.get_issues("label")["is_label_issue"])]


def _looks(reference: Any, looks: Any, levels: list[float], classes: bool) -> list[list[bool]]:
    """Return whether each look drifted at each level."""
    import pandas as pd
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    kind = ColumnType.Categorical if classes else ColumnType.Numerical
    columns = reference.shape[1]
    told = []
    for look in looks:
        drifted = [0] * len(levels)
        for column in range(columns):
            before, now = pd.Series(reference[:, column]), pd.Series(look[:, column])
            if classes:
                before, now = before.astype(str), now.astype(str)
            test = get_stattest(before, now, kind, None)
            for i, level in enumerate(levels):
                drifted[i] += bool(test(before, now, kind, level).drifted)
        told.append([number >= columns / 2 for number in drifted])
    return told


if __name__ == "__main__":
    main(sys.argv[1])
