"""Checks of the Kueue queue that pods with an accelerator wait in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.demands import demands
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_GROUP = "kueue.x-k8s.io"


def queues(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether the queue of `cluster.queue` exists, admits pods and is large enough.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        Findings where a queue is named.
    """
    queue = question.config.cluster.queue if question.config else ""
    if not queue:
        return
    check = f"queue {queue}"
    versions = look(check, lambda: ",".join(cluster.versions(_GROUP)))
    if versions.state != "ok":
        yield versions
        return
    if not versions.found:
        yield Finding(
            check,
            "fail",
            "Kueue is not installed: its label would be ignored",
            "Install Kueue, or leave cluster.queue empty",
        )
        return
    version = f"{_GROUP}/{versions.found.partition(',')[0]}"
    found: dict[str, Any] = {}
    local = look(check, lambda: _local(cluster, version, queue, found))
    yield local
    if found:
        behind = str(found["spec"]["clusterQueue"])
        yield look(f"cluster queue {behind}", lambda: _behind(cluster, version, behind, question))
    yield from _plain_pods(cluster)


def _local(cluster: Cluster, version: str, queue: str, kept: dict[str, Any]) -> Finding | str:
    check = f"queue {queue}"
    found = cluster.get(version, "LocalQueue", queue)
    if found is None:
        return Finding(
            check,
            "fail",
            f"there is no LocalQueue of that name in namespace {cluster.namespace}: pods would "
            "wait for ever",
            "Make it (manifests/components/kueue), or correct cluster.queue",
        )
    kept.update(found)
    return _active(check, found) or f"active, waiting: {_waiting(found)}"


def _behind(cluster: Cluster, version: str, name: str, question: Question) -> Finding | str:
    check = f"cluster queue {name}"
    found = cluster.get(version, "ClusterQueue", name)
    if found is None:
        return Finding(
            check,
            "fail",
            "does not exist",
            "Make it (manifests/quota), or correct the LocalQueue's clusterQueue",
        )
    stopped = _active(check, found)
    if stopped:
        return stopped
    from kubernetes.utils.quantity import parse_quantity

    wanted = list(demands(question))
    tight = []
    for resource in wanted[0].resources:
        quotas = [
            parse_quantity(one["nominalQuota"])
            for group in found["spec"].get("resourceGroups") or []
            for flavor in group.get("flavors") or []
            for one in flavor.get("resources") or []
            if one["name"] == resource
        ]
        if "/" in resource and not quotas:
            return Finding(
                check,
                "fail",
                f"has no quota of {resource}: pods that ask for it are never admitted",
                "Add it to the ClusterQueue's resourceGroups",
            )
        # A queue of a cohort may borrow more than its own.
        borrows = found["spec"].get("cohort") or found["spec"].get("cohortName")
        if not quotas or borrows:
            continue
        for demand in wanted:
            amount = parse_quantity(demand.resources[resource])
            # The pods of a gang get one flavor; shards are admitted each by itself.
            if max(quotas) < amount * demand.together:
                return Finding(
                    check,
                    "fail",
                    f"{demand.words} {amount * demand.together} {resource}, and no flavor has so "
                    f"many: the largest has {max(quotas)}",
                    "Raise nominalQuota, or ask for less in the section cluster or "
                    "training.trainjob.nodes",
                )
            if sum(quotas) < amount * demand.at_once:
                tight.append(f"{sum(quotas)} {resource} for {demand.at_once} shards at once")
    if tight:
        return Finding(
            check,
            "warn",
            f"has {', '.join(tight)}: some wait for others",
            "Raise nominalQuota, or lower cluster.width",
        )
    return f"active, waiting: {_waiting(found)}"


def _active(check: str, found: dict[str, Any]) -> Finding | None:
    """Return what stops a queue; None when it is active."""
    policy = (found.get("spec") or {}).get("stopPolicy", "None")
    if policy not in ("None", ""):
        return Finding(check, "fail", f"is stopped ({policy})", "Set its stopPolicy to None")
    for condition in (found.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Active" and condition.get("status") != "True":
            told = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
            return Finding(check, "fail", f"is not active: {told}", "Correct what it names")
    return None


def _waiting(found: dict[str, Any]) -> int:
    return int((found.get("status") or {}).get("pendingWorkloads") or 0)


def _plain_pods(cluster: Cluster) -> Iterator[Finding]:
    """Look whether Kueue takes care of plain pods, which is an integration that can be off."""
    import yaml

    from visionloop.cluster import Refused

    try:
        found = cluster.get("v1", "ConfigMap", "kueue-manager-config", namespace="kueue-system")
        text = "\n".join(((found or {}).get("data") or {}).values())
        settings = yaml.safe_load(text)
    except (Refused, yaml.YAMLError):
        return
    if not isinstance(settings, dict) or "integrations" not in settings:
        return
    frameworks = (settings["integrations"] or {}).get("frameworks") or []
    if "pod" not in frameworks:
        yield Finding(
            "Kueue's integration of pods",
            "fail",
            f"is off (integrations: {', '.join(frameworks)}): tasks would not wait in the queue",
            "Add `pod` to integrations.frameworks of the ConfigMap kueue-manager-config",
        )
