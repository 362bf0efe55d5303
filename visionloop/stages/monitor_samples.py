"""The monitor's look at samples: what came in that has no check yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visionloop.stages.artifacts import markdown_table
from visionloop.stages.monitor_part import Look, Part

if TYPE_CHECKING:
    from visionloop.monitoring.samples import Checked


def check_new_samples(look: Look) -> tuple[Checked, Part]:
    """Check every file that has no check yet, once.

    Args:
        look: What the monitor looks at.

    Returns:
        The states of the files, and what was found.
    """
    from visionloop.monitoring.pixels import read_greys, read_pixels
    from visionloop.monitoring.samples import check_samples
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
    run.append("checks", checked.checks)
    run.append("flags", checked.flags)
    metrics = {"n_in": checked.n_in, **{f"n_{state}": n for state, n in checked.states.items()}}
    return checked, Part(
        checked.flags.to_pylist(),
        {name: float(value) for name, value in metrics.items()},
        _page(checked),
        {"kinds": checked.kinds},
    )


def _page(checked: Checked) -> str:
    states: list[tuple[Any, ...]] = [(state, n) for state, n in checked.states.items()]
    return (
        "## Files\n\n" + markdown_table(["state", "files"], [*states, ("in", checked.n_in)]) + "\n"
    )
