"""Checks of the namespace's quotas: whether they leave room for a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.demands import Demand, demands
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

# Tasks make no claim, but a collector that grows or a database that is installed does.
_CLAIMS = ("requests.storage", "persistentvolumeclaims")


def quotas(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether the quotas of the namespace leave room for a task.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding.
    """
    if question.config is not None:
        yield look("quota", lambda: _quotas(cluster, question))


def _quotas(cluster: Cluster, question: Question) -> Finding | str:
    from kubernetes.utils.quantity import parse_quantity

    wanted = [(demand, _need(demand)) for demand in demands(question)]
    found = cluster.list("v1", "ResourceQuota")
    full, tight = [], []
    for quota in found:
        # What is scoped to some pods only (a priority class, for example) may not concern ours.
        spec = quota.get("spec") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        status = quota.get("status") or {}
        hard, used = status.get("hard") or spec.get("hard") or {}, status.get("used") or {}
        for resource in hard:
            limit, taken = hard[resource], used.get(resource, "0")
            left = parse_quantity(limit) - parse_quantity(taken)
            name = f"{quota['metadata']['name']}: {resource}"
            for demand, need in wanted:
                if resource not in need:
                    continue
                amount = parse_quantity(need[resource])
                # Digits as the person wrote them, where there is one pod.
                told = need[resource] if demand.together == 1 else amount * demand.together
                if amount * demand.together > parse_quantity(limit):
                    full.append(f"{name} allows {limit}, {demand.words} {told}")
                    break
                if amount * demand.together > left:
                    full.append(f"{name} is used up, {taken} of {limit}, and {demand.words} {told}")
                    break
                if resource.startswith("requests.") and left < amount * demand.at_once:
                    tight.append(f"{name} has {left} left, {demand.at_once} shards at once")
        for resource in _CLAIMS:
            if resource in hard and parse_quantity(used.get(resource, "0")) >= parse_quantity(
                hard[resource]
            ):
                name = f"{quota['metadata']['name']}: {resource}"
                tight.append(f"{name} is used up, {used[resource]} of {hard[resource]}")
    if full:
        return Finding(
            "quota",
            "fail",
            "; ".join(full),
            "Raise the quota, delete what takes it up, or ask for less in the section cluster",
        )
    if tight:
        return Finding(
            "quota",
            "warn",
            "; ".join(tight),
            "Raise the quota, or lower cluster.width: shards that it refuses are tried again; no "
            "further volume can be made while that of storage is used up",
        )
    return f"{len(found)} quotas leave room" if found else "none is set"


def _need(demand: Demand) -> dict[str, str]:
    """What a pod counts for, by every name that a quota may give it."""
    found = {"pods": "1", "count/pods": "1"}
    for resource, amount in demand.resources.items():
        found[f"requests.{resource}"] = amount
        if resource in ("cpu", "memory"):
            found |= {resource: amount, f"limits.{resource}": amount}
    return found
