"""NannyML's CBPE, run by a Python of its own: it holds back pandas and others that we do not.

``python _nannyml.py WORK.npz`` reads ``holdout_<i>``, ``truth_<i>`` and ``window_<j>_<i>``, and
prints its version and the estimated accuracy of each window as JSON.
"""

import json
import os
import sys
import warnings
from typing import Any

import numpy as np


def main(path: str) -> None:
    """Estimate the accuracy of every window in the file."""
    warnings.simplefilter("ignore")
    # It would tell its makers of every call.
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    import nannyml
    import pandas

    held = np.load(path)

    def frame(p: Any) -> Any:
        columns = {f"p{k}": p[:, k].astype(float) for k in range(p.shape[1])}
        said = [str(k) for k in p.argmax(axis=1)]
        return pandas.DataFrame(columns | {"said": said})

    found = {}
    for name in held.files:
        if not name.startswith("holdout_"):
            continue
        number = name.removeprefix("holdout_")
        reference = frame(held[name])
        reference["truth"] = [str(k) for k in held[f"truth_{number}"]]
        windows = [n for n in held.files if n.startswith("window_") and n.endswith(f"_{number}")]
        size = len(held[windows[0]])
        estimator = nannyml.CBPE(
            problem_type="classification_multiclass",
            y_pred_proba={str(k): f"p{k}" for k in range(held[name].shape[1])},
            y_pred="said",
            y_true="truth",
            metrics=["accuracy"],
            chunk_size=size,
        )
        estimator.fit(reference)
        for window in windows:
            result = estimator.estimate(frame(held[window])).filter(period="analysis").to_df()
            found[window] = float(result[("accuracy", "value")].iloc[0])
    print(json.dumps({"version": nannyml.__version__, "found": found}))


if __name__ == "__main__":
    main(sys.argv[1])
