"""Places a pipeline's tasks where KFP takes no parameter: image, queue, volume, width, resources.

kfp reads these where a pipeline is defined, and a cluster's administrator decides them where it is
compiled. So they are written into the definition's own messages, the ones that kfp compiles from.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionloop.components.image import IMAGE
from visionloop.pipelines.names import settle_group_names
from visionloop.pipelines.placement import CPU, MEMORY, WIDTH

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

    from visionloop.cluster_config import ClusterConfig

# Kueue admits a pod with this label when its queue has room.
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# Tasks that hold embeddings, by their executors; kfp numbers those of one component.
SELECTING = r"exec-(plan-selection|select-shard|select)(-\d+)?"


@dataclass(frozen=True)
class Placed:
    """Where the tasks of a compiled pipeline run.

    Attributes:
        image: Image of every task; empty for the release's.
        queue: Kueue LocalQueue of the pods that may have an accelerator; empty for none. A run
            that names no accelerator waits in it too: which one a run has is its parameter, and a
            pod without the label would pass by the queue's quota.
        claim: PersistentVolumeClaim that every task mounts; empty for none.
        mount_path: Folder at which they find it.
        width: Shards at work at once.
        cpu: Cores of a task without an accelerator, its request and limit.
        memory: Its memory, request and limit.
        select_memory: That of the tasks that select; empty for `memory`.
    """

    image: str = ""
    queue: str = ""
    claim: str = ""
    mount_path: str = ""
    width: int = WIDTH
    cpu: str = CPU
    memory: str = MEMORY
    select_memory: str = ""

    @classmethod
    def of(cls, config: ClusterConfig, *, image: str = "") -> Placed:
        """Return what a configuration says; an image that is given wins over its own."""
        return cls(
            image=image or config.image,
            queue=config.queue,
            claim=config.claim,
            mount_path=config.mount_path,
            width=config.width,
            cpu=config.cpu,
            memory=config.memory,
            select_memory=config.select_memory,
        )


def place(definition: BaseComponent, placed: Placed) -> BaseComponent:
    """Return a pipeline or component whose tasks are placed; the given one stays as it is.

    Args:
        definition: The pipeline or component.
        placed: Where its tasks run.
    """
    from kfp.dsl.graph_component import GraphComponent

    definition = copy.deepcopy(definition)
    if not isinstance(definition, GraphComponent):
        # Whoever puts a component into a pipeline places it.
        definition.component_spec.implementation.container.image = placed.image or IMAGE
        return definition
    spec = definition.pipeline_spec
    settle_group_names(spec)
    accelerated = set()
    executors = spec.deployment_spec["executors"]
    for label, executor in executors.items():
        container = executor["container"]
        container["image"] = placed.image or IMAGE
        resources = container["resources"]
        if "accelerator" in resources:
            accelerated.add(label)
            continue
        selects = re.fullmatch(SELECTING, label) and placed.select_memory
        memory = placed.select_memory if selects else placed.memory
        for kind, value in (("Cpu", placed.cpu), ("Memory", memory)):
            resources[f"resource{kind}Request"] = resources[f"resource{kind}Limit"] = value
    for task in _tasks(spec):
        if task.HasField("iterator_policy"):
            task.iterator_policy.parallelism_limit = placed.width
    platform = definition.platform_spec.platforms["kubernetes"]
    for label in executors:
        wants = platform.deployment_spec.executors[label]
        _extend(wants, placed, accelerated=label in accelerated)
    return definition


def _extend(wants: Any, placed: Placed, *, accelerated: bool) -> None:
    """Add queue and volume to what a task asks of Kubernetes."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2 as messages

    # By kfp's own message, which refuses what a server would not read.
    config = json_format.ParseDict(
        json_format.MessageToDict(wants), messages.KubernetesExecutorConfig()
    )
    if placed.queue and accelerated:
        config.pod_metadata.labels[QUEUE_LABEL] = placed.queue
    if placed.claim:
        mount = config.pvc_mount.add(mount_path=placed.mount_path, constant=placed.claim)
        mount.pvc_name_parameter.runtime_value.constant.string_value = placed.claim
    wants.Clear()
    json_format.ParseDict(json_format.MessageToDict(config), wants)


def _tasks(spec: Any) -> Iterator[Any]:
    """Yield every task of a pipeline, however deep."""
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        yield from dag.tasks.values()
