"""The monitor's look at samples: what came in that has no check yet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table
from visionloop.stages.monitor_part import Look, Part
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.monitoring.outliers import Outliers
    from visionloop.monitoring.samples import Checked
    from visionloop.monitoring.unjudged import Unjudged


def check_new_samples(look: Look) -> tuple[Checked, Part]:
    """Check every file that has no check yet, once.

    Args:
        look: What the monitor looks at.

    Returns:
        The states of the files, and what was found.
    """
    from visionloop.monitoring.pixels import read_greys, read_pixels
    from visionloop.monitoring.samples import check_samples
    from visionloop.monitoring.unjudged import with_earlier
    from visionloop.progress import progress

    run, lake = look.run, look.lake
    with progress("monitor", unit="files") as bar:
        checked = check_samples(
            run.read("files"),
            run.read("samples"),
            run.read("metadata"),
            run.read("checks", columns=["subject", "generation"]),
            look.loop.monitoring,
            now=look.now,
            read_greys=lambda places: read_greys(lake, places, run.base),
            read_pixels=lambda uris: read_pixels(lake, uris),
            read_vectors=lambda: lake.embedding_blocks(look.space, version=run.base),
        )
        bar.advance(checked.n_in)
        bar.note(f"{checked.states['flagged']} flagged")
    not_judged = with_earlier(checked.not_judged, _not_judged_before(look))
    run.append("checks", checked.checks)
    run.append("flags", checked.flags)
    metrics = {"n_in": checked.n_in, **{f"n_{state}": n for state, n in checked.states.items()}}
    return checked, Part(
        checked.flags.to_pylist(),
        {name: float(value) for name, value in metrics.items()},
        _page(checked, look.space),
        {"kinds": checked.kinds, "outliers": outliers_told(checked.outliers, look.space)},
        not_judged,
    )


def _not_judged_before(look: Look) -> tuple[Unjudged, ...]:
    """Return what pictures were not judged for that came in before: they are looked at once."""
    from visionloop.monitoring.unjudged import OF_PICTURES, OUTLIER, SEMANTIC, read_unjudged

    thresholds, switched_off = look.loop.monitoring, set()
    if not thresholds.outlier_share:
        switched_off.add(OUTLIER)
    if not thresholds.semantic_duplicate_share:
        switched_off.add(SEMANTIC)
    runs = look.lake.stage_runs(where="stage == 'monitor'").sort_by("sequence")
    outputs = json.loads(runs["outputs"][-1].as_py() or "{}") if runs.num_rows else {}
    held = read_unjudged(outputs.get("not_judged") or ())
    asked = OF_PICTURES - switched_off
    return tuple(one for one in held if asked.issuperset(one.kinds))


def outliers_told(outliers: Outliers, space: str) -> dict[str, Any]:
    """Return what pages tell of the search for outliers.

    Args:
        outliers: How the new samples were judged.
        space: The embedding space.

    Returns:
        How many samples were judged, had no embedding, and lie far out; of the limit; and a
        sentence.
    """
    n = len(outliers.found)
    if outliers.why_not:
        told = f"Outliers: too little to say, {outliers.why_not}."
    else:
        told = (
            f"Outliers: {n:,} of {counted(outliers.n_judged, 'new sample')} "
            f"{'lies' if n == 1 else 'lie'} more than {outliers.limit:.2f} times as far from the "
            f"others as usual, among {outliers.n_reference:,}."
        )
    if outliers.n_without:
        told += f" Not judged, without an embedding: {outliers.n_without:,}."
    if space.startswith("pixels_") and outliers.n_judged:
        told += (
            " With the pixel descriptor, which sees shape, edges and colour, a picture of another "
            "thing is found where one camera sees alike things, and hardly among varied "
            "photographs: name weights (`embedding.weights`) for these."
        )
    return {
        "judged": outliers.n_judged,
        "without_embedding": outliers.n_without,
        "found": n,
        "reference": outliers.n_reference,
        "limit": outliers.limit,
        "told": told,
    }


def _page(checked: Checked, space: str) -> str:
    states: list[tuple[Any, ...]] = [
        (state.replace("_", " "), n) for state, n in checked.states.items()
    ]
    table = markdown_table(["state", "files"], [*states, ("in", checked.n_in)])
    told = outliers_told(checked.outliers, space)["told"] if checked.n_in else ""
    return f"## Files\n\n{table}\n" + (f"\n{told}\n" if told else "")
