"""The section `cluster` of `loop.yaml`: where tasks run on a cluster."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from visionloop.value_forms import (
    AcceleratorType,
    Cpu,
    Image,
    Label,
    Memory,
    Name,
    Toleration,
    Volume,
)

# Where a volume is mounted that names no path of its own.
MOUNT_PATH = "/mnt/visionloop"


class ClusterConfig(BaseModel):
    """Where tasks run on a cluster.

    What a pipeline parameter can carry is one, with the value here as its default; a queue, a
    volume, an image and the width of a fan-out are fixed when a pipeline is compiled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: Label = Field("", description="namespace of the runs, on a server that many share")
    service_account: Name = Field(
        "", description="Kubernetes service account of every task; empty: the server's default"
    )
    image: Image = Field("", description="image of every task; empty: the release's")
    queue: Label = Field(
        "",
        description="Kueue LocalQueue that admits the pods that may have an accelerator, also in a "
        "run that names none: they then wait in it for cores and memory; empty: no queue",
    )
    volume: Volume = Field(
        "",
        description="PersistentVolumeClaim that every task mounts, as `claim` or "
        "`claim:/mount/path` (/mnt/visionloop where it is left out): a lake below that path is "
        "the same one for all of them",
    )
    accelerator_type: AcceleratorType = Field(
        "", description="for example nvidia.com/gpu; empty: no GPU"
    )
    accelerator_count: int = Field(1, ge=0, description="accelerators a task")
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="labels of the GPU node pool"
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, description="tolerations of the GPU node pool's taints"
    )
    cpu: Cpu = Field("1", description="cores of a task: its request and its limit")
    memory: Memory = Field("4Gi", description="memory of a task: its request and its limit")
    accelerator_cpu: Cpu = Field("2", description="cores of a task that may have an accelerator")
    accelerator_memory: Memory = Field(
        "8Gi", description="memory of a task that may have an accelerator"
    )
    shard_size: int = Field(
        20_000,
        ge=1,
        description="samples that one task embeds and predicts where `infer` is spread over shards",
    )
    inline_samples: int = Field(
        5_000,
        ge=0,
        description="up to so many samples are embedded and predicted by the task that commits "
        "them, without an accelerator: no node is started for a handful of images",
    )
    select_shard_size: int = Field(
        500_000,
        ge=1,
        description="embeddings that one task selects from; a pool of more is selected from in "
        "shards of so many (scale.md)",
    )
    select_whole: int = Field(
        500_000,
        ge=1,
        description="embeddings that one task may hold where the objectives need all of them at "
        "once; of a larger pool a uniform sample of so many is selected from (scale.md)",
    )
    select_memory: Memory = Field(
        "",
        description="memory of the tasks that select (plan_selection, select_shard, select): their "
        "request and limit; empty: as `memory`",
    )
    width: int = Field(4, ge=1, description="shards at work at once")

    @property
    def claim(self) -> str:
        """Name of the PersistentVolumeClaim, empty where there is none."""
        return self.volume.partition(":")[0]

    @property
    def mount_path(self) -> str:
        """Folder at which every task finds the volume, empty where there is none."""
        return (self.volume.partition(":")[2] or MOUNT_PATH) if self.volume else ""
