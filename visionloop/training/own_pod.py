"""What the pods of a job take over from the pod that asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from visionloop import environment
from visionloop.errors import InputError, VisionloopError

if TYPE_CHECKING:
    from visionloop.cluster import Cluster
    from visionloop.config import LoopConfig

# Kubeflow Pipelines runs a task's code in the container of this name.
_CONTAINER = "main"
# What a task is given to reach its data by. The rest (projected tokens, scratch folders) is Argo's
# and Kubernetes' own.
_GIVEN = ("persistentVolumeClaim", "secret", "configMap")
_VARIABLES = ("VISIONLOOP_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
# What one task was told of itself is not for another.
_NOT_HANDED_ON = ("VISIONLOOP_PROGRESS_FILE", "VISIONLOOP_ERROR_FILE", "VISIONLOOP_RUNNER_PID")


@dataclass(frozen=True)
class Surroundings:
    """What a pod needs to do the work of the task that asks for it.

    Attributes:
        image: Its image.
        service_account: Its service account; empty for the namespace's default.
        pull_secrets: Kubernetes' ``imagePullSecrets``.
        env: Kubernetes' ``env``: plain values of ours, and references to Secrets.
        volumes: Kubernetes' ``volumes``.
        mounts: Kubernetes' ``volumeMounts``.
    """

    image: str
    service_account: str = ""
    pull_secrets: list[dict[str, Any]] = field(default_factory=list)
    env: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)


def surroundings(loop: LoopConfig, cluster: Cluster) -> Surroundings:
    """Return what the pod of this task has, or what the configuration says where it is in none.

    Args:
        loop: The configuration.
        cluster: The cluster that the pod runs in.

    Raises:
        InputError: Nothing names an image.
        VisionloopError: This pod's own description cannot be read.
    """
    name = environment.pod_name()
    found = _of_pod(name, cluster) if name else _configured(loop)
    image = loop.training.trainjob.image or found.image or loop.cluster.image
    if not image:
        raise InputError(
            "nothing says which image the TrainJob's pods run",
            where="training.trainjob.image",
            remedy="Name it, or run the pipeline on a cluster, where the task's own image is taken",
        )
    return Surroundings(
        image,
        found.service_account,
        found.pull_secrets,
        found.env,
        found.volumes,
        found.mounts,
    )


def _configured(loop: LoopConfig) -> Surroundings:
    volumes, mounts = [], []
    if loop.cluster.claim:
        claim = {"claimName": loop.cluster.claim}
        volumes.append({"name": "lake", "persistentVolumeClaim": claim})
        mounts.append({"name": "lake", "mountPath": loop.cluster.mount_path})
    account = loop.cluster.service_account
    return Surroundings("", account, volumes=volumes, mounts=mounts)


def _of_pod(name: str, cluster: Cluster) -> Surroundings:
    pod = cluster.get("v1", "Pod", name)
    containers = (pod or {}).get("spec", {}).get("containers", [])
    held = [container for container in containers if container["name"] == _CONTAINER]
    if pod is None or not held:
        raise VisionloopError(
            f"the pod of this task, {name}, cannot be found, or has no container {_CONTAINER}",
            where=f"namespace {cluster.namespace}",
            remedy="Run the pipeline again; outside of Kubeflow Pipelines leave KFP_POD_NAME unset",
        )
    spec, container = pod["spec"], held[0]
    volumes = [
        volume for volume in spec.get("volumes") or [] if any(kind in volume for kind in _GIVEN)
    ]
    names = {volume["name"] for volume in volumes}
    mounts = [mount for mount in container.get("volumeMounts") or [] if mount["name"] in names]
    used = {mount["name"] for mount in mounts}
    return Surroundings(
        container["image"],
        spec.get("serviceAccountName", ""),
        spec.get("imagePullSecrets") or [],
        [one for one in container.get("env") or [] if _is_handed_on(one)],
        [volume for volume in volumes if volume["name"] in used],
        mounts,
    )


def _is_handed_on(variable: dict[str, Any]) -> bool:
    source = variable.get("valueFrom") or {}
    if "secretKeyRef" in source or "configMapKeyRef" in source:
        return True
    ours = variable["name"].startswith(_VARIABLES) and variable["name"] not in _NOT_HANDED_ON
    return ours and "value" in variable
