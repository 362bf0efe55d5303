"""Embed every sample and predict it with the model in service."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def infer(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    n_shards: int,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> NamedTuple(
    "Outputs",
    [
        ("lake_version", str),
        ("model_id", str),
        ("space", str),
        ("n_embedded", int),
        ("n_predicted", int),
    ],
):
    """Embed and predict the samples that lack either, and commit it all at once.

    What infer_shard tasks have finished is taken from their files, the rest is worked on here, a
    few samples at most where shards were listed.
    Without a trained model (a cold start) only the embedding is computed.

    Reads: samples, embeddings, predictions, experiments, flags; the images, the model in
        service, the embedding's weights, the files of the shards.
    Writes: embeddings, predictions, flags; what the embedding was fitted to.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        n_shards: Number of shards that ingest has listed; 0 where this does all of it.
        metrics: Counts, and images per second.
        page: Which model and which embedding were used, and the predicted classes.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        model_id: The model that predicted; empty on a cold start.
        space: Name of the embedding space.
        n_embedded: Samples newly embedded.
        n_predicted: Samples newly predicted.
    """
    from visionloop.stages.infer import infer as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        n_shards=n_shards,
        metrics=metrics,
        page=page,
    )
