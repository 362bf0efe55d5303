"""Measure a model on the frozen holdout and decide whether it may serve."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    model_id: str,
    model: dsl.Input[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    slice_1: dsl.Output[dsl.ClassificationMetrics],
    slice_2: dsl.Output[dsl.ClassificationMetrics],
    slice_3: dsl.Output[dsl.ClassificationMetrics],
    slice_4: dsl.Output[dsl.ClassificationMetrics],
    slice_5: dsl.Output[dsl.ClassificationMetrics],
    slice_6: dsl.Output[dsl.ClassificationMetrics],
    page: dsl.Output[dsl.Markdown],
) -> NamedTuple("Outputs", [("lake_version", str), ("passed", bool), ("accuracy", float)]):
    """Evaluate a model overall and by metadata slice, and apply the gates.

    Reads: samples, labels, metadata, experiments, flags, decisions; the images of the holdout.
    Writes: experiments, decisions, predictions, flags, rounds.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        model_id: The trained model's id.
        model: The trained model's folder.
        metrics: Accuracy overall and by slice, as fractions of 1.
        confusion: Confusion matrix on the holdout.
        slice_1: That of the slice that the model is worst at; empty where there is none.
        slice_2: That of the second worst slice; empty where there is none.
        slice_3: That of the third worst slice; empty where there is none.
        slice_4: That of the fourth worst slice; empty where there is none.
        slice_5: That of the fifth worst slice; empty where there is none.
        slice_6: That of the sixth worst slice; empty where there is none.
        page: Slices, gates, and the comparison with the model in service.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        passed: Whether every gate was passed.
        accuracy: Accuracy on the holdout, as a fraction of 1.
    """
    from visionloop.stages.evaluate import evaluate as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        model_id=model_id,
        model=model,
        metrics=metrics,
        confusion=confusion,
        slice_1=slice_1,
        slice_2=slice_2,
        slice_3=slice_3,
        slice_4=slice_4,
        slice_5=slice_5,
        slice_6=slice_6,
        page=page,
    )
