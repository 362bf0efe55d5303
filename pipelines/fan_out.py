"""What is too much for one task: a task for each shard of it."""

from typing import List  # noqa: UP035 - kfp knows the type List[str]

from kfp import dsl

from visionloop.components.infer_shard.component import infer_shard
from visionloop.components.ingest_shard.component import ingest_shard
from visionloop.components.select_shard.component import select_shard
from visionloop.pipelines.placement import (
    ACCELERATOR_CPU,
    ACCELERATOR_MEMORY,
    WIDTH,
    again_when_killed,
    never_cached,
    on_accelerator,
)


@dsl.pipeline(name="ingest-shards", description="Examine the shards that list_files has listed.")
def ingest_shards(
    config: str,
    round_id: str,
    shards: List[str],  # noqa: UP006
    n_shards: int,
    lake: str = "",
) -> None:
    """Examine the files of each shard, and commit nothing; see `infer_shards`.

    Args:
        config: Text of loop.yaml, or the URI of one.
        round_id: The round; empty for the current one.
        shards: Names of the shards.
        n_shards: Their number; over none no pod is started.
        lake: URI of the lake; empty takes the configuration's.
    """
    with (
        dsl.If(n_shards > 0, name="many-files"),
        dsl.ParallelFor(shards, name="each-list", parallelism=WIDTH) as shard,
    ):
        examined = ingest_shard(config=config, lake=lake, round_id=round_id, shard=shard)
        # Files, as those of `infer_shards`.
        never_cached(examined)
        again_when_killed(examined)


@dsl.pipeline(
    name="infer-shards", description="Embed and predict the shards that an intake has listed."
)
def infer_shards(
    config: str,
    lake_version: str,
    round_id: str,
    shards: List[str],  # noqa: UP006
    n_shards: int,
    lake: str = "",
    accelerator_type: str = "",
    node_selector: dict[str, str] = {},  # noqa: B006 - kfp reads the default, nothing mutates it
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    accelerator_cpu: str = ACCELERATOR_CPU,
    accelerator_memory: str = ACCELERATOR_MEMORY,
) -> None:
    """Embed and predict the shards, one accelerator each, and commit nothing.

    A pipeline of its own: a task cannot come after one that is inside a condition, and under the
    local runner a loop over one of several named outputs fails, one over a parameter does not.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake_version: Version of the lake at which the shards were listed.
        round_id: The round.
        shards: Names of the shards.
        n_shards: Their number; over none no pod is started.
        lake: URI of the lake; empty takes the configuration's.
        accelerator_type: Resource name such as nvidia.com/gpu; empty runs on the CPU.
        node_selector: Labels that a node must have to run such a task.
        tolerations: Kubernetes tolerations of such a task.
        accelerator_cpu: Cores of such a task.
        accelerator_memory: Memory of such a task.
    """
    with (
        dsl.If(n_shards > 0, name="many-samples"),
        # How many run at once is no parameter in KFP: `compile --width` sets it.
        dsl.ParallelFor(shards, name="each-shard", parallelism=WIDTH) as shard,
    ):
        inferred = infer_shard(
            config=config,
            lake=lake,
            lake_version=lake_version,
            round_id=round_id,
            shard=shard,
        )
        # What it makes are files, which a vacuum or another run may have taken since: a task that
        # was skipped for its cache would leave nothing. Where they are there, a repeat is cheap.
        never_cached(inferred)
        on_accelerator(
            inferred,
            accelerator_type=accelerator_type,
            accelerator_count=1,
            node_selector=node_selector,
            tolerations=tolerations,
            cpu=accelerator_cpu,
            memory=accelerator_memory,
        )


@dsl.pipeline(
    name="select-shards",
    description="Propose candidates from the shards that plan_selection has listed.",
)
def select_shards(
    config: str,
    lake_version: str,
    round_id: str,
    plan: str,
    shards: List[str],  # noqa: UP006
    n_shards: int,
    lake: str = "",
) -> None:
    """Propose the candidates of each shard, and commit nothing; see `infer_shards`.

    Args:
        config: Text of loop.yaml, or the URI of one.
        lake_version: Version of the lake at which the shards were listed.
        round_id: The round.
        plan: Name of the plan.
        shards: Names of the shards.
        n_shards: Their number; over none no pod is started.
        lake: URI of the lake; empty takes the configuration's.
    """
    with (
        dsl.If(n_shards > 0, name="many-embeddings"),
        dsl.ParallelFor(shards, name="each-part", parallelism=WIDTH) as shard,
    ):
        proposed = select_shard(
            config=config,
            lake=lake,
            lake_version=lake_version,
            round_id=round_id,
            plan=plan,
            shard=shard,
        )
        never_cached(proposed)  # what it makes are files, as above
        again_when_killed(proposed)
