"""The page that evaluate leaves for a person."""

from __future__ import annotations

import json
from typing import Any

from visionloop.inference.images import Loaded
from visionloop.monitoring.intervals import wilson
from visionloop.stages.artifacts import markdown_table, markdown_text
from visionloop.training.evaluation import Measured
from visionloop.training.gate import Verdict
from visionloop.words import counted


def evaluation_page(
    measured: list[Measured],
    before: Measured | None,
    verdict: Verdict,
    unreadable: list[Loaded[Any]],
) -> str:
    """Return the evaluation as Markdown.

    Args:
        measured: The candidate first, then what it is compared with.
        before: The one of them that is in service.
        verdict: The gate's.
        unreadable: Holdout samples that could not be read.
    """
    own = measured[0]
    decision = "Passed" if verdict.passed else "Rejected"
    lines = ["# Evaluation", "", f"**{decision}**: {verdict.reason}.", ""]
    if unreadable:
        lines += [f"{len(unreadable)} holdout samples could not be read and are not counted.", ""]
    if own.evaluation is None:
        return "\n".join(lines)
    rows = []
    for one in measured:
        if one.evaluation is None:
            continue
        kind = "candidate" if one is own else "in service" if one is before else "random arm"
        e = one.evaluation
        interval = f"{e.low:.3f} to {e.high:.3f}"
        trained = json.loads(one.row["metrics"] or "{}").get("training", {})
        automatic = trained.get("n_automatic", 0)
        labels = f"{one.row['n_labels']}" + (f" and {automatic} automatic" if automatic else "")
        model = f"`{one.row['model_id']}`"
        rows.append(
            [
                kind,
                model,
                labels,
                f"{e.accuracy:.3f}",
                interval,
                f"{e.macro_f1:.3f}",
                f"{e.calibration.value:.3f} ({e.calibration.low:.3f} to {e.calibration.high:.3f})",
                f"{e.brier.value:.3f} ({e.brier.low:.3f} to {e.brier.high:.3f})",
            ]
        )
    header = ["", "model", "labels", "accuracy", "95% interval", "macro F1", "calibration error",
              "Brier score"]  # fmt: skip
    lines += [f"On {own.evaluation.n} holdout samples:", "", markdown_table(header, rows), ""]
    per_class = [
        [
            markdown_text(row["class"]),
            row["n"],
            row["predicted"],
            _rate(own.evaluation.confusion[i][i], row["predicted"]),
            _rate(own.evaluation.confusion[i][i], row["n"]),
            f"{row['f1']:.3f}" if row["n"] + row["predicted"] else "none",
        ]
        for i, row in enumerate(own.evaluation.per_class)
    ]
    header = [
        "class", "samples", "answers", "precision (95% interval)", "recall (95% interval)", "F1",
    ]  # fmt: skip
    lines += ["## By class", "", markdown_table(header, per_class), ""]
    if own.slices:
        lines += ["## By metadata", "", *_slices(own.slices), ""]
    return "\n".join(lines)


def _rate(hits: int, n: int) -> str:
    """Return a rate with its Wilson interval; of nothing there is none."""
    rate = wilson(hits, n)
    return f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})" if n else "none"


def _slices(slices: list[dict[str, Any]]) -> list[str]:
    """Return what is worse than the rest first, then all slices."""
    told = []
    worse = sorted((s for s in slices if s["worse"]), key=lambda s: float(s["p"]))
    for s in worse:
        told.append(
            f"- **{markdown_text(s['column'])} {markdown_text(s['value'])}** is worse than the "
            f"rest: {s['accuracy']:.3f} ({s['low']:.3f} to {s['high']:.3f}) of {s['n']} samples "
            f"(p {s['p']:.2g}, corrected for all slices)."
        )
    if all(s["worse"] is None for s in slices):
        told.append("Whether a slice is worse than the rest cannot be told of so few samples.")
    elif not worse:
        told.append("No slice is worse than the rest by more than chance would make it.")
    small = sum(s["worse"] is None for s in slices)
    if small:
        told += ["", f"Too few samples to say: {counted(small, 'slice')} of {len(slices)}."]
    told += ["", f"The intervals of all {len(slices)} slices hold together at 95%.", ""]
    rows = [
        [
            markdown_text(s["column"]),
            markdown_text(s["value"]),
            s["n"],
            f"{s['accuracy']:.3f}",
            f"{s['low']:.3f} to {s['high']:.3f}",
            "too few to say" if s["worse"] is None else "worse" if s["worse"] else "",
        ]
        for s in slices
    ]
    header = ["column", "value", "samples", "accuracy", "95% interval", "beside the rest"]
    return [*told, markdown_table(header, rows)]
