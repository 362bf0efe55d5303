"""The monitor's look at the loop itself: failed and slow stages, and what is left to select."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from visionloop.stages.artifacts import markdown_sentence, markdown_table, markdown_text
from visionloop.stages.monitor_part import Look, Part
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.monitoring.exhaustion import Left
    from visionloop.monitoring.failed_stages import Failure
    from visionloop.monitoring.slow_stages import Pace


def check_loop(look: Look) -> Part:
    """Flag stages that failed, stages that are slow, and a pool that is nearly used up.

    Args:
        look: What the monitor looks at.
    """
    from visionloop.monitoring import exhaustion, failed_stages, slow_stages
    from visionloop.monitoring.standing import write_standing
    from visionloop.monitoring.unjudged import of_paces

    thresholds = look.loop.monitoring
    failed = failed_stages.failures(look.lake, now=look.now)
    paces = slow_stages.paces(look.lake.stage_runs(), thresholds)
    left = exhaustion.what_is_left(look.run, look.loop)
    rows = [
        *failed_stages.failure_rows(failed, look.now),
        *slow_stages.slow_rows(paces, thresholds, look.now),
        *exhaustion.exhaustion_rows(left, look.loop, len(look.loop.sources), look.now),
    ]
    kinds = [failed_stages.KIND, slow_stages.KIND, exhaustion.KIND]
    new = write_standing(look.run, kinds, rows)
    metrics = {
        "n_stages_failed": float(len(failed)),
        "n_stages_slow": float(sum(pace.state == "slow" for pace in paces)),
        "n_left_to_select": float(left.n_left),
    }
    if math.isfinite(left.rounds):
        metrics["n_rounds_left"] = left.rounds
    few = of_paces(paces, thresholds.slow_stage_min_runs)
    told = {"n_pool": left.n_pool, "n_left": left.n_left, "budget": left.budget}
    return Part(new, metrics, _page(failed, paces, left), {"pool": told}, few)


def _page(failed: list[Failure], paces: list[Pace], left: Left) -> str:
    parts = ["## The loop\n"]
    for one in failed:
        # What went wrong may name a file of anybody's.
        told = [
            markdown_sentence(f"{text.rstrip('.')}.") for text in (one.what, one.remedy) if text
        ]
        parts.append(
            f"**{markdown_text(one.stage)} failed** {counted(one.times, 'time')} since it last "
            f"succeeded, last on {one.when:%Y-%m-%d %H:%M} UTC: {' '.join(told)}\n"
        )
    slow = [pace for pace in paces if pace.state == "slow"]
    if slow:
        header = ["slow stage", "seconds", "expected", "amount of work", "earlier runs"]
        rows = [
            (p.stage, f"{p.seconds:.0f}", f"{p.expected:.0f}", p.units or "not counted", p.n_runs)
            for p in slow
        ]
        parts.append(markdown_table(header, rows) + "\n")
    judged = sum(pace.state != "too few to say" for pace in paces)
    if not slow and judged:
        stages = counted(judged, "stage with enough runs is", "stages with enough runs are")
        parts.append(f"None of the {stages} slower than usual.\n")
    elif not slow:
        parts.append("No stage has run often enough to tell whether it is slow.\n")
    of = counted(left.n_pool, "sample of the pool", "samples of the pool")
    lasts = "" if math.isinf(left.rounds) else f", enough for {left.rounds:.1f} rounds"
    parts.append(f"Of {of} {left.n_left:,} can still be selected{lasts}.")
    return "\n".join(parts) + "\n"
