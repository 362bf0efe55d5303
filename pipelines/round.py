"""One turn of the whole loop."""

from kfp import dsl

from visionloop.components.harvest.component import harvest
from visionloop.components.report.component import report
from visionloop.pipelines.intake import intake_part
from visionloop.pipelines.placement import ACCELERATOR_CPU, ACCELERATOR_MEMORY, never_cached
from visionloop.pipelines.select_and_label import select_and_label_part
from visionloop.pipelines.train_and_publish import train_and_publish_part


@dsl.pipeline(
    name="round",
    description="One turn of the loop: intake, harvest, select, label, train, publish, report.",
)
def round(
    config: str,
    lake: str = "",
    n_samples: int = 0,
    strategy: str = "",
    architecture: str = "",
    epochs: int = 0,
    runner: str = "pod",
    events: str = "",
    take_over: bool = False,
    shard_size: int = 0,
    accelerator_type: str = "",
    accelerator_count: int = 1,
    node_selector: dict[str, str] = {},  # noqa: B006 - kfp reads the default, nothing mutates it
    train_node_selector: dict[str, str] = {},  # noqa: B006
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    accelerator_cpu: str = ACCELERATOR_CPU,
    accelerator_memory: str = ACCELERATOR_MEMORY,
) -> None:
    """One turn of the loop, opened or resumed; the report is written however the turn ends.

    A round whose labels are not finished succeeds and waits: started again, it goes on from there.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        n_samples: Budget in samples; 0 takes the configuration's.
        strategy: Name of the strategy; empty takes the configuration's.
        architecture: Name of the architecture; empty takes the configuration's.
        epochs: Passes over the training set; 0 takes the configuration's.
        runner: pod trains on the accelerators of the task train; trainjob as a TrainJob on those of
            the configuration: accelerator_count is 0 then, and train_node_selector empty.
        events: URI of the logged events; empty takes the configuration's, else the lake's.
        take_over: Take an open round from a run that no longer lives.
        shard_size: Samples in a shard of infer, where there are many; 0 takes the configuration's.
        accelerator_type: Resource name such as nvidia.com/gpu; empty runs on the CPU.
        accelerator_count: Accelerators for training; a shard of infer has one.
        node_selector: Labels that a node must have to run a shard of infer.
        train_node_selector: Labels that a node must have to run the task train.
        tolerations: Kubernetes tolerations of such a task.
        accelerator_cpu: Cores of such a task.
        accelerator_memory: Memory of such a task.
    """
    reported = report(config=config, lake=lake, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    never_cached(reported)

    with dsl.ExitHandler(reported, name="turn"):
        taken_in = intake_part(
            config=config,
            lake=lake,
            open_round=True,
            take_over=take_over,
            shard_size=shard_size,
            accelerator_type=accelerator_type,
            node_selector=node_selector,
            tolerations=tolerations,
            accelerator_cpu=accelerator_cpu,
            accelerator_memory=accelerator_memory,
        )
        harvested = harvest(
            config=config,
            lake=lake,
            round_id=taken_in.outputs["round_id"],
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            events=events,
        )
        harvested.after(taken_in)
        never_cached(harvested)

        labelled = select_and_label_part(
            config=config,
            lake=lake,
            lake_version=harvested.outputs["lake_version"],
            round_id=taken_in.outputs["round_id"],
            n_samples=n_samples,
            strategy=strategy,
        )
        with dsl.If(labelled.output != "", name="labels-finished"):
            train_and_publish_part(
                config=config,
                lake=lake,
                lake_version=labelled.output,
                round_id=taken_in.outputs["round_id"],
                architecture=architecture,
                epochs=epochs,
                runner=runner,
                accelerator_type=accelerator_type,
                accelerator_count=accelerator_count,
                train_node_selector=train_node_selector,
                tolerations=tolerations,
                accelerator_cpu=accelerator_cpu,
                accelerator_memory=accelerator_memory,
            )
