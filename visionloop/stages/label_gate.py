"""What `publish` asks of the labels first: they are judged, and by rule block it or set it free."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from visionloop.errors import VisionloopError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.stages.monitor_part import Look, Part


def judge_labels_first(
    loop: LoopConfig, lake: Lake, *, round_id: str = "", run_id: str = ""
) -> None:
    """Judge the labels as they are now, and do what the watch's rule about them calls for.

    A round that collected wrong labels would else publish what it learned from them, and only the
    next monitor would tell; and one that corrected them would stay blocked where no watch runs.
    What is found is written as the monitor writes it, and the next one takes it over where the
    labels are still the same. Done again, it writes nothing new. Where no rule asks for doubted
    labels, they are left to the monitor.

    Args:
        loop: The configuration.
        lake: The lake, read at its newest version.
        round_id: The round; empty for the open one.
        run_id: The run that publishes.

    Raises:
        StaleRead: Another run has judged or decided meanwhile: it has to be looked again.
        VisionloopError: They could not be judged: nothing is published before they are.
    """
    from visionloop.labeling.trust.suspect_flags import KIND
    from visionloop.monitoring.acting import act_on_labels
    from visionloop.stages.monitor_labels import JUDGING
    from visionloop.stages.watch_acts import record_act
    from visionloop.stages.watch_service import look_at_labels

    rule = loop.watch.block_publication
    if rule.max_label_suspects or KIND in rule.flags:
        _judge(loop, lake, round_id, run_id)
    version = lake.version()
    act = act_on_labels(look_at_labels(loop, lake, version), loop.watch)
    if act is not None:
        record_act(lake, act, version, stage=JUDGING, round_id=round_id, run_id=run_id)


def _judge(loop: LoopConfig, lake: Lake, round_id: str, run_id: str) -> None:
    from visionloop.selection.material import space_of_inference
    from visionloop.stages.monitor_labels import JUDGING, labels_told
    from visionloop.stages.monitor_part import Look

    with lake.run(stage=JUDGING, round_id=round_id, run_id=run_id) as run:
        before = labels_told(lake)
        space = space_of_inference(lake, run.base)
        found = _found(Look(lake, run, loop, space, datetime.now(UTC)))
        told = found.outputs["labels"]
        if told != before and (before or told["in"]):
            counts = {name: told[name] for name in ("in", "ok", "flagged", "unchecked")}
            run.commit(counts=counts, outputs=found.outputs)


def _found(look: Look) -> Part:
    """Return what the monitor would find; say of any error what it means for the publication."""
    from visionloop.failures import explain
    from visionloop.stages.monitor_labels import check_labels

    try:
        return check_labels(look)
    except VisionloopError:
        raise  # says itself what is wrong and what to do
    except Exception as error:
        why = explain(error).what
        raise VisionloopError(
            "the labels could not be judged, and nothing is published before they are: " + why,
            where=f"loop {look.lake.loop} of {look.lake.place}",
            remedy="The model in service stays, and the round goes on here when it is started "
            "again; where memory ran out, give the task more (`cluster.memory`). Without "
            "`max_label_suspects` and `label_suspect` in `watch.block_publication` labels are not "
            "judged here",
        ) from error
