"""One recurring pipeline that turns the loop by itself."""

from typing import Any

from kfp import dsl

from visionloop.components.harvest.component import harvest
from visionloop.components.watch.component import watch as watch_component
from visionloop.pipelines.placement import ACCELERATOR_CPU, ACCELERATOR_MEMORY, never_cached
from visionloop.pipelines.round import round as whole_round


@dsl.pipeline(
    name="fresh-confidences", description="Harvest what was logged, unless nothing may be written."
)
def fresh_confidences(
    config: str,
    lake: str = "",
    events: str = "",
    dry_run: bool = False,
) -> None:
    """Harvest what was logged, unless nothing may be written.

    A pipeline of its own, because a task cannot come after one that is inside a condition.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        events: URI of the logged events; empty takes the configuration's, else the lake's.
        dry_run: Harvest nothing.
    """
    with dsl.If(dry_run == False, name="may-write"):  # noqa: E712 - kfp overloads the operator
        harvested = harvest(
            config=config, lake=lake, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, events=events
        )
        never_cached(harvested)


@dsl.pipeline(name="decide", description="Decide whether a round starts, goes on, or waits.")
def decide(
    config: str,
    lake: str = "",
    n_samples: int = 0,
    dry_run: bool = False,
) -> str:
    """Decide whether a round starts, goes on, or waits.

    It has one output on purpose: under the local runner a condition on one of several named
    outputs is always false, and nothing says so.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        n_samples: Budget of the next round in samples; 0 takes the configuration's.
        dry_run: Decide and explain, write nothing.

    Returns:
        start, resume or wait; in a dry run always wait.
    """
    watched = watch_component(
        config=config,
        lake=lake,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        n_samples=n_samples,
        dry_run=dry_run,
    )
    never_cached(watched)

    output: Any = watched.outputs["action"]
    return output


@dsl.pipeline(
    name="watch",
    description="Start a round, go on with one, or wait, by the rules of the configuration.",
)
def watch(
    config: str,
    lake: str = "",
    dry_run: bool = False,
    n_samples: int = 0,
    strategy: str = "",
    architecture: str = "",
    epochs: int = 0,
    runner: str = "pod",
    events: str = "",
    shard_size: int = 0,
    accelerator_type: str = "",
    accelerator_count: int = 1,
    node_selector: dict[str, str] = {},  # noqa: B006 - kfp reads the default, nothing mutates it
    train_node_selector: dict[str, str] = {},  # noqa: B006
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    accelerator_cpu: str = ACCELERATOR_CPU,
    accelerator_memory: str = ACCELERATOR_MEMORY,
) -> None:
    """Start a round, go on with one, or wait; to be scheduled again and again.

    The round runs inside this pipeline, so that no task needs the right to submit runs. What was
    logged is harvested first: drift and falling confidence are told from it.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake: URI of the lake; empty takes the configuration's.
        dry_run: Decide and explain; harvest, write and start nothing.
        n_samples: Budget in samples; 0 takes the configuration's.
        strategy: Name of the strategy; empty takes the configuration's.
        architecture: Name of the architecture; empty takes the configuration's.
        epochs: Passes over the training set; 0 takes the configuration's.
        runner: pod trains on the accelerators of the task train; trainjob as a TrainJob on those of
            the configuration: accelerator_count is 0 then, and train_node_selector empty.
        events: URI of the logged events; empty takes the configuration's, else the lake's.
        shard_size: Samples in a shard of infer, where there are many; 0 takes the configuration's.
        accelerator_type: Resource name such as nvidia.com/gpu; empty runs on the CPU.
        accelerator_count: Accelerators for training; a shard of infer has one.
        node_selector: Labels that a node must have to run a shard of infer.
        train_node_selector: Labels that a node must have to run the task train.
        tolerations: Kubernetes tolerations of such a task.
        accelerator_cpu: Cores of such a task.
        accelerator_memory: Memory of such a task.
    """
    harvested = fresh_confidences(config=config, lake=lake, events=events, dry_run=dry_run)

    decided = decide(config=config, lake=lake, n_samples=n_samples, dry_run=dry_run)
    decided.after(harvested)

    with dsl.If(decided.output != "wait", name="called-for"):
        whole_round(
            config=config,
            lake=lake,
            n_samples=n_samples,
            strategy=strategy,
            architecture=architecture,
            epochs=epochs,
            runner=runner,
            events=events,
            shard_size=shard_size,
            accelerator_type=accelerator_type,
            accelerator_count=accelerator_count,
            node_selector=node_selector,
            train_node_selector=train_node_selector,
            tolerations=tolerations,
            accelerator_cpu=accelerator_cpu,
            accelerator_memory=accelerator_memory,
        )
