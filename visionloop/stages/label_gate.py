"""What `publish` asks of the labels first: they are judged, and may block it by rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


def judge_labels_first(
    loop: LoopConfig, lake: Lake, *, round_id: str = "", run_id: str = ""
) -> None:
    """Judge the labels as they are now, and block publication where the watch's rule says so.

    A round that collected wrong labels would else publish what it learned from them, and only the
    next monitor would tell. What is found is written as the monitor writes it, and the next one
    takes it over where the labels are still the same. Done again, it writes nothing new. Where no
    rule asks for doubted labels, they are left to the monitor.

    Args:
        loop: The configuration.
        lake: The lake, read at its newest version.
        round_id: The round; empty for the open one.
        run_id: The run that publishes.

    Raises:
        StaleRead: Another run has decided meanwhile: it has to be looked again.
    """
    from visionloop.labeling.trust.suspect_flags import KIND
    from visionloop.monitoring.acting import blocks
    from visionloop.selection.material import space_of_inference
    from visionloop.stages.monitor_labels import JUDGING, check_labels, labels_told
    from visionloop.stages.monitor_part import Look
    from visionloop.stages.watch_acts import record_act
    from visionloop.stages.watch_service import look_at_labels

    rule = loop.watch.block_publication
    if not rule.max_label_suspects and KIND not in rule.flags:
        return
    with lake.run(stage=JUDGING, round_id=round_id, run_id=run_id) as run:
        before = labels_told(lake)
        space = space_of_inference(lake, run.base)
        found = check_labels(Look(lake, run, loop, space, datetime.now(UTC)))
        told = found.outputs["labels"]
        if told != before and (before or told["in"]):
            run.commit(counts={"in": told["in"]}, outputs=found.outputs)
    version = lake.version()
    act = blocks(look_at_labels(loop, lake, version), loop.watch)
    if act is not None:
        record_act(lake, act, version, stage=JUDGING, round_id=round_id, run_id=run_id)
