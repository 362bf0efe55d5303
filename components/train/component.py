"""Train a model on everything labelled so far."""

from typing import NamedTuple

from kfp import dsl

from visionloop.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str,
    lake: str,
    lake_version: str,
    round_id: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    architecture: str = "",
    epochs: int = 0,
    runner: str = "",
) -> NamedTuple("Outputs", [("lake_version", str), ("model_id", str), ("n_labels", int)]):
    """Train and calibrate a model, and record the experiment.

    The same training set with the same parameters returns the recorded model. A training that was
    interrupted goes on from its checkpoint.

    Reads: labels, samples, files, flags, experiments, training_sets; the images, and the weights
        to start from.
    Writes: experiments, training_sets, flags; the trained model, under trained/ in the lake, and
        checkpoints, under training/ while it goes on.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        lake_version: Version of the lake that is read.
        round_id: The round that this belongs to.
        model: Folder with model.onnx, card.json, state.pt and reference.npz.
        metrics: Loss, accuracy on the validation part, temperature, seconds.
        architecture: Name of the architecture; empty takes the configuration's.
        epochs: Passes over the training set; 0 takes the configuration's.
        runner: pod trains in this task's pod, on all of its GPUs; trainjob as a Kubeflow Trainer
            TrainJob, on as many nodes as the configuration says; empty takes the configuration's.

    Returns:
        lake_version: Version of the lake after this stage; the one read if nothing was written.
        model_id: The model's id.
        n_labels: Labels trained on.
    """
    from visionloop.stages.train import train as run_stage

    return run_stage(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        architecture=architecture,
        epochs=epochs,
        runner=runner,
        model=model,
        metrics=metrics,
    )
