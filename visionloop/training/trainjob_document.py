"""The TrainJob that trains a plan, as Kubernetes takes it (Kubeflow Trainer 2.2 and 2.3)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.training.own_pod import Surroundings
from visionloop.training.plan import PLAN_FILE, Plan

if TYPE_CHECKING:
    from visionloop.config import LoopConfig

API_VERSION = "trainer.kubeflow.org/v1alpha1"
KIND = "TrainJob"
GROUP, RESOURCE = "trainer.kubeflow.org", "trainjobs"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PLAN_ANNOTATION = "visionloop.dev/plan"
# The runtimes of Kubeflow Trainer call both the job of the training pods and its container so.
NODE = "node"
# NCCL hands gradients over through shared memory, of which a pod has 64 MiB by default.
_SHARED_MEMORY = "4Gi"


def job_name(plan: Plan) -> str:
    """Return the name of a plan's TrainJob: the same for each try, another for another lake."""
    lake = hashlib.sha256(plan.folder.encode()).hexdigest()[:8]
    return f"train-{plan.model_id}-{lake}"


def train_job(plan: Plan, loop: LoopConfig, given: Surroundings) -> dict[str, Any]:
    """Return the TrainJob of a plan.

    Args:
        plan: What to train; it was saved.
        loop: The configuration: its sections `cluster` and `training`.
        given: What the pods take over.

    Raises:
        InputError: The lake is a folder that the pods would not find.
    """
    if plan.folder.startswith("file://") and not given.mounts:
        raise InputError(
            "the pods of a TrainJob cannot reach a lake that is a folder of this machine",
            where="lake, training.runner",
            remedy="Use a bucket, or name a volume under cluster.volume that holds the lake",
        )
    cluster, training = loop.cluster, plan.parameters
    resources: dict[str, str] = {"cpu": cluster.accelerator_cpu}
    resources["memory"] = cluster.accelerator_memory
    accelerated = bool(cluster.accelerator_type and cluster.accelerator_count)
    if accelerated:
        resources[cluster.accelerator_type] = str(cluster.accelerator_count)
    processes = training.processes or (cluster.accelerator_count if accelerated else 1)
    labels = {
        "app.kubernetes.io/name": "visionloop-train",
        "app.kubernetes.io/managed-by": "visionloop",
        "visionloop.dev/model-id": plan.model_id,
    }
    if cluster.queue:
        labels[QUEUE_LABEL] = cluster.queue
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": job_name(plan),
            "labels": labels,
            "annotations": {PLAN_ANNOTATION: plan.path(PLAN_FILE)},
        },
        "spec": {
            "runtimeRef": {
                "apiGroup": GROUP,
                "kind": training.trainjob.runtime_kind,
                "name": training.trainjob.runtime,
            },
            "trainer": {
                "image": given.image,
                "command": ["python", "-m", "visionloop.training.launch"],
                "args": [plan.path(PLAN_FILE)],
                "numNodes": training.trainjob.nodes,
                "numProcPerNode": processes,
                "resourcesPerNode": {"requests": resources, "limits": resources},
                # The variables of this container are the trainer's to set: a patch may not.
                **({"env": given.env} if given.env else {}),
            },
            "runtimePatches": [
                {
                    "manager": "visionloop.dev/train",
                    "trainingRuntimeSpec": _patch(_pod(loop, given, accelerated=accelerated)),
                }
            ],
        },
    }


def _patch(pod: dict[str, Any]) -> dict[str, Any]:
    job = {"spec": {"template": {"spec": pod}}}
    return {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": job}]}}}


def _pod(loop: LoopConfig, given: Surroundings, *, accelerated: bool) -> dict[str, Any]:
    """Return what a pod has beyond what its runtime says; pod security *restricted* takes it."""
    memory = {"medium": "Memory", "sizeLimit": _SHARED_MEMORY}
    shared = {"name": "shared-memory", "emptyDir": memory}
    pod: dict[str, Any] = {
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [*given.volumes, shared],
        "containers": [
            {
                "name": NODE,
                "volumeMounts": [*given.mounts, {"name": shared["name"], "mountPath": "/dev/shm"}],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    if given.service_account:
        pod["serviceAccountName"] = given.service_account
    if given.pull_secrets:
        pod["imagePullSecrets"] = given.pull_secrets
    if accelerated and loop.cluster.node_selector:
        pod["nodeSelector"] = dict(loop.cluster.node_selector)
    if accelerated and loop.cluster.tolerations:
        pod["tolerations"] = [dict(one) for one in loop.cluster.tolerations]
    return pod
