"""The second half of a round: train, evaluate, export, publish."""

from kfp import dsl

from visionloop.components.evaluate.component import evaluate
from visionloop.components.export.component import export
from visionloop.components.publish.component import publish
from visionloop.components.train.component import train
from visionloop.pipelines.closing import by_itself
from visionloop.pipelines.placement import (
    ACCELERATOR_CPU,
    ACCELERATOR_MEMORY,
    cached_by_version,
    never_cached,
    on_accelerator,
)


@dsl.pipeline(
    name="train-and-publish",
    description="Train, evaluate, export, and publish what passes its gates.",
)
def train_and_publish_part(
    config: str,
    lake_version: str,
    round_id: str,
    lake: str = "",
    architecture: str = "",
    epochs: int = 0,
    runner: str = "pod",
    accelerator_type: str = "",
    accelerator_count: int = 1,
    train_node_selector: dict[str, str] = {},  # noqa: B006 - kfp reads the default, nothing mutates it
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    accelerator_cpu: str = ACCELERATOR_CPU,
    accelerator_memory: str = ACCELERATOR_MEMORY,
) -> None:
    """Train a model, evaluate it, export it, and publish it if it passes its gates.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake_version: Version of the lake to train on.
        round_id: The round.
        lake: URI of the lake; empty takes the configuration's.
        architecture: Name of the architecture; empty takes the configuration's.
        epochs: Passes over the training set; 0 takes the configuration's.
        runner: pod trains on the accelerators of the task train; trainjob as a TrainJob on those of
            the configuration: accelerator_count is 0 then, and train_node_selector empty.
        accelerator_type: Resource name such as nvidia.com/gpu; empty runs on the CPU.
        accelerator_count: Accelerators for training.
        train_node_selector: Labels that a node must have to run the task train.
        tolerations: Kubernetes tolerations of such a task.
        accelerator_cpu: Cores of such a task.
        accelerator_memory: Memory of such a task.
    """
    trained = train(
        config=config,
        lake=lake,
        lake_version=lake_version,
        round_id=round_id,
        architecture=architecture,
        epochs=epochs,
        runner=runner,
    )
    cached_by_version(trained)
    on_accelerator(
        trained,
        accelerator_type=accelerator_type,
        accelerator_count=accelerator_count,
        node_selector=train_node_selector,
        tolerations=tolerations,
        cpu=accelerator_cpu,
        memory=accelerator_memory,
    )

    evaluated = evaluate(
        config=config,
        lake=lake,
        lake_version=trained.outputs["lake_version"],
        round_id=round_id,
        model_id=trained.outputs["model_id"],
        model=trained.outputs["model"],
    )
    cached_by_version(evaluated)

    exported = export(
        config=config,
        lake=lake,
        lake_version=evaluated.outputs["lake_version"],
        round_id=round_id,
        model_id=trained.outputs["model_id"],
        model=trained.outputs["model"],
    )
    cached_by_version(exported)

    published = publish(
        config=config,
        lake=lake,
        lake_version=exported.outputs["lake_version"],
        round_id=round_id,
        model_id=trained.outputs["model_id"],
        model_uri=exported.outputs["model_uri"],
        passed=evaluated.outputs["passed"],
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    never_cached(published)


train_and_publish = by_itself(train_and_publish_part)
