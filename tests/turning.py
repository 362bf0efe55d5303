"""A turn of a loop, stage by stage in one process."""

from __future__ import annotations

from typing import Any

from visionloop.stages.collect_labels import collect_labels
from visionloop.stages.evaluate import evaluate
from visionloop.stages.export import export
from visionloop.stages.harvest import harvest
from visionloop.stages.infer import infer
from visionloop.stages.monitor import monitor
from visionloop.stages.publish import publish
from visionloop.stages.request_labels import request_labels
from visionloop.stages.select import select
from visionloop.stages.train import train


def turn(config: str, round_id: str, model: Any, *, harvests: bool = False) -> None:
    """Run the stages of a round behind its ingest, up to the publication.

    Args:
        config: Text of a loop.yaml.
        round_id: The round.
        model: Artifact that gets the trained model.
        harvests: Harvest, too: there are events.
    """
    at = {"config": config, "round_id": round_id}
    infer(**at)
    monitor(**at)
    if harvests:
        harvest(**at)
    select(**at)
    request_labels(**at)
    collect_labels(**at)
    trained = train(**at, model=model)
    judged = evaluate(**at, model_id=trained.model_id, model=model)
    exported = export(**at, model_id=trained.model_id, model=model)
    publish(**at, model_id=trained.model_id, model_uri=exported.model_uri, passed=judged.passed)
