"""Put a model that passed its gates into service."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    model_id: str,
    model_uri: str,
    passed: bool,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
    run_id: str = "",
) -> NamedTuple("Outputs", [("lake_version", str), ("published", bool), ("in_service", str)]):
    """Bring the model into service if it passed, and leave the endpoint alone if not.

    With `serving.kserve` it is rolled out to an InferenceService: it must become ready and answer a
    known image as its file does, then it is tried on part of the traffic, and promoted or rolled
    back. Without it the pointer moves. A task that was killed goes on where it was.

    Where the watch's rules ask for doubted labels, these are judged first, and may block it or lift
    what they had blocked. Where they cannot be judged, it fails, and goes on when it is run again.

    Reads: experiments, decisions, flags, labels, annotations, samples, embeddings, predictions,
        training_sets, stage_runs; the endpoint's pointer, the endpoint where its URL is configured;
        with an InferenceService its pods, confidences and what harvest reads.
    Writes: experiments, decisions, flags, rounds; the endpoint's pointer, under serving/ in the
        lake, and the record of a rollout, under leases/; the InferenceService, and what harvest
        writes.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        model_id: The trained model's id.
        model_uri: URI of the serving bundle.
        passed: Whether every gate was passed.
        metrics: Whether it was published, and what a canary measured.
        page: What serves now, and why.
        run_id: The run, written on every row; empty outside a pipeline.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        published: Whether this model serves now.
        in_service: Id of the model that serves now; empty if none.
    """
    from visionloop.stages.publish import publish as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        model_id=model_id,
        model_uri=model_uri,
        passed=passed,
        run_id=run_id,
        metrics=metrics,
        page=page,
    )
