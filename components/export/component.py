"""Make the bundle that is served, checked against the trained model."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    model_id: str,
    model: dsl.Input[dsl.Model],
    exported: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Outputs", [("lake_version", str), ("model_uri", str)]):
    """Verify the ONNX graph against PyTorch's recorded outputs and write the serving bundle.

    Reads: experiments.
    Writes: experiments; the serving bundle, under models/ in the lake.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        model_id: The trained model's id.
        model: The trained model's folder.
        exported: ONNX model with the model card in its metadata.
        metrics: Largest difference from PyTorch, and the size in bytes.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        model_uri: URI of the serving bundle.
    """
    from visionloop.stages.export import export as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        model_id=model_id,
        model=model,
        exported=exported,
        metrics=metrics,
    )
