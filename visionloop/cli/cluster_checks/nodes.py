"""Checks of the nodes: whether one takes a task with its selector, tolerations and resources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_GKE_POOL = "cloud.google.com/gke-nodepool"
_POOL = (
    "See whether a node pool that scales from zero fits, such as with `gcloud container node-pools "
    "list`; without one tasks stay pending"
)


@dataclass(frozen=True)
class Pod:
    """What a pod asks of its node.

    Attributes:
        resources: Amount by resource.
        selector: Labels that the node must have.
        tolerations: Kubernetes tolerations.
        field: Where they stand in ``loop.yaml``.
    """

    resources: dict[str, str]
    selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    field: str = "cluster"

    @property
    def words(self) -> str:
        """The resources, as a person reads them."""
        return ", ".join(f"{amount} {name}" for name, amount in self.resources.items())


def task_pod(question: Question) -> Pod:
    """Return what a task that may have an accelerator asks of its node.

    Args:
        question: What is to run.
    """
    assert question.config is not None
    section = question.config.cluster
    if not section.accelerator_type or not section.accelerator_count:
        return Pod({"cpu": section.cpu, "memory": section.memory})
    resources = {"cpu": section.accelerator_cpu, "memory": section.accelerator_memory}
    resources[section.accelerator_type] = str(section.accelerator_count)
    return Pod(resources, section.node_selector, section.tolerations)


def nodes(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether a node takes each kind of pod.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding a kind of pod.
    """
    if question.config is None:
        yield look("GPU nodes", lambda: _inventory(cluster))
        return
    section = question.config.cluster
    plain = Pod({"cpu": section.cpu, "memory": section.memory})
    yield look("nodes for tasks", lambda: _taken(cluster, "nodes for tasks", plain))
    if section.accelerator_type:
        pod = task_pod(question)
        yield look("GPU nodes", lambda: _taken(cluster, "GPU nodes", pod))
        training = question.config.training
        if training.runner == "trainjob" and training.trainjob.nodes > 1:
            gang, check = training.trainjob.nodes, "nodes for the TrainJob"
            yield look(check, lambda: _gang(cluster, check, pod, gang))
    kserve = question.config.serving.kserve
    if kserve is not None:
        resources = {k: str(v) for k, v in kserve.resources.requests.items()}
        if kserve.accelerator_type:
            resources[kserve.accelerator_type] = str(kserve.accelerator_count)
        at = "serving.kserve"
        served = Pod(resources, kserve.node_selector, kserve.tolerations, at)
        yield look(
            "nodes for the endpoint", lambda: _taken(cluster, "nodes for the endpoint", served)
        )


def _inventory(cluster: Cluster) -> Finding | str:
    found = cluster.list("v1", "Node")
    counts: Counter[str] = Counter()
    for node in found:
        for resource, amount in _allocatable(node).items():
            if resource.endswith("/gpu") and int(amount):
                counts[resource] += int(amount)
    if not counts:
        return Finding(
            "GPU nodes",
            "warn",
            f"none among {len(found)} nodes",
            "Leave cluster.accelerator_type empty, or add a node pool (it may scale from zero)",
        )
    return ", ".join(f"{amount} of {resource}" for resource, amount in sorted(counts.items()))


def _taken(cluster: Cluster, check: str, pod: Pod) -> Finding | str:
    found = cluster.list("v1", "Node")
    fitting = [node for node in found if not _obstacle(node, pod)]
    if fitting:
        return f"{len(fitting)} of {len(found)} nodes take {pod.words}"
    selected = [node for node in found if _has_labels(node, pod.selector)]
    if not selected:
        return _none_selected(cluster, check, pod, found)
    obstacles = Counter(_obstacle(node, pod) for node in selected)
    most = obstacles.most_common(1)[0][0]
    told = "; ".join(f"{count} {words}" for words, count in obstacles.most_common())
    matching = "match the selector" if pod.selector else "are there"
    found_here = f"no node takes {pod.words}: {len(selected)} {matching}, of which {told}"
    scaler = _autoscaler(cluster, found)
    # Without a selector a pool of other machines may still start one that fits.
    if scaler and not pod.selector and not most.startswith("have the taint"):
        return Finding(check, "warn", f"{found_here}; {scaler} may start one", _POOL)
    return Finding(check, "fail", found_here, _remedy(most, pod))


def _gang(cluster: Cluster, check: str, pod: Pod, size: int) -> Finding | str:
    """Look whether all pods of a gang fit at once; they start together or not at all."""
    from kubernetes.utils.quantity import parse_quantity

    found = cluster.list("v1", "Node")
    room = sum(
        min(
            int(parse_quantity(_allocatable(node).get(resource, "0")) / parse_quantity(amount))
            for resource, amount in pod.resources.items()
            if parse_quantity(amount)
        )
        for node in found
        if not _obstacle(node, pod)
    )
    if room >= size:
        return f"there is room for {room} pods of {pod.words}, it has {size}"
    told = f"it has {size} pods of {pod.words}, and there is room for {room}"
    if scaler := _autoscaler(cluster, found):
        return Finding(check, "warn", f"{told}; {scaler} may start more", _POOL)
    return Finding(
        check,
        "fail",
        f"{told}: it would never start",
        "Add nodes, or lower training.trainjob.nodes or cluster.accelerator_count",
    )


def _none_selected(cluster: Cluster, check: str, pod: Pod, found: list[dict[str, Any]]) -> Finding:
    if not pod.selector:
        remedy = "Add nodes, or name the cluster that has some"
        return Finding(check, "fail", "there are no nodes", remedy)
    wanted = ", ".join(f"{key}={value}" for key, value in pod.selector.items())
    others = []
    for key, value in pod.selector.items():
        present = {str(_labels(node)[key]) for node in found if key in _labels(node)}
        if present and value not in present:
            others.append(f"{key} is {' or '.join(sorted(present))} on others")
    told = f"no node has the labels {wanted}" + (f" ({'; '.join(others)})" if others else "")
    if scaler := _autoscaler(cluster, found):
        return Finding(check, "warn", f"{told}; {scaler} may start one", _POOL)
    return Finding(
        check,
        "fail",
        f"{told}, and nothing here starts nodes: tasks would stay pending",
        f"Correct {pod.field}.node_selector, or add a node pool with these labels",
    )


def _autoscaler(cluster: Cluster, found: list[dict[str, Any]]) -> str:
    """Return what may start a node; empty where nothing is known that does."""
    from visionloop.cluster import Refused

    if cluster.versions("karpenter.sh"):
        return "Karpenter"
    if any(_GKE_POOL in _labels(node) for node in found):
        return "GKE's autoscaler"
    try:
        status = cluster.get(
            "v1", "ConfigMap", "cluster-autoscaler-status", namespace="kube-system"
        )
    except Refused:
        return ""
    return "the cluster autoscaler" if status else ""


def _obstacle(node: dict[str, Any], pod: Pod) -> str:
    """Return why a node does not take a pod; empty when it does."""
    from kubernetes.utils.quantity import parse_quantity

    if not _has_labels(node, pod.selector):
        return "lack a label of the selector"
    for taint in (node.get("spec") or {}).get("taints") or []:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not any(
            _tolerates(toleration, taint) for toleration in pod.tolerations
        ):
            if _GKE_POOL in _labels(node) and taint["key"] in pod.resources:
                # GKE adds the toleration to every pod that asks for the resource.
                continue
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"have the taint {taint['key']}{value}:{taint['effect']}"
    if (node.get("spec") or {}).get("unschedulable"):
        return "are cordoned"
    for resource, amount in pod.resources.items():
        there = _allocatable(node).get(resource, "0")
        if parse_quantity(there) < parse_quantity(amount):
            return f"have {there} {resource}"
    return ""


def _remedy(obstacle: str, pod: Pod) -> str:
    if obstacle.startswith("have the taint"):
        key, _, effect = obstacle.removeprefix("have the taint ").rpartition(":")
        name, equals, value = key.partition("=")
        told = f"operator: Equal, value: {value}" if equals else "operator: Exists"
        return f"Add to {pod.field}.tolerations: {{key: {name}, {told}, effect: {effect}}}"
    if obstacle == "are cordoned":
        return "kubectl uncordon a node, or wait for another one"
    resource = obstacle.rpartition(" ")[2]
    if obstacle.startswith("have 0 ") and "/" in resource:
        return (
            f"Install the device plugin that announces {resource} on these nodes, or choose other "
            f"nodes with {pod.field}.node_selector"
        )
    return f"Ask for less {resource} in section {pod.field}, or add larger nodes"


def _labels(node: dict[str, Any]) -> dict[str, str]:
    return node["metadata"].get("labels") or {}


def _has_labels(node: dict[str, Any], selector: dict[str, str]) -> bool:
    labels = _labels(node)
    return all(labels.get(key) == value for key, value in selector.items())


def _allocatable(node: dict[str, Any]) -> dict[str, str]:
    return (node.get("status") or {}).get("allocatable") or {}


def _tolerates(toleration: dict[str, Any], taint: dict[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    key = toleration.get("key")
    if toleration.get("operator", "Equal") == "Exists":
        return not key or key == taint["key"]
    return key == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")
