"""Checks of the versions of Kubernetes and Kubeflow Pipelines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding, attempt

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

# The oldest that Kubeflow's distribution still brings.
_OLDEST_PIPELINES = (2, 16)


def kubernetes(namespace: str) -> str:
    """Return the version of Kubernetes and where tasks run.

    Args:
        namespace: Namespace of the tasks; empty: that of kubectl's context.
    """
    from visionloop.cli.cluster_checks.question import Question
    from visionloop.cluster import connect

    reached = connect(namespace=namespace, patience=Question().patience)
    version = reached.server_version()
    # The version is told to anybody; whoever signed in may ask what they may do.
    reached.can("get", "pods")
    return f"version {version}, namespace {reached.namespace}"


def pipelines(host: str) -> tuple[Finding, bool | None]:
    """Look whether Kubeflow Pipelines answers.

    Args:
        host: Address of its API; empty finds one as kfp does.

    Returns:
        The finding, and whether many users share the server; None when it does not answer.
    """
    shared: list[bool] = []

    def ask() -> str:
        from visionloop.submission import Server

        shared.append(Server.connect(host).many_users)
        return f"answers, {'for many users' if shared[0] else 'for one user'}"

    found = attempt("Kubeflow Pipelines", ask)
    return found, shared[0] if shared else None


def pipelines_version(cluster: Cluster) -> Iterator[Finding]:
    """Look at the version of Kubeflow Pipelines, where its Deployment can be read.

    Args:
        cluster: The cluster.

    Yields:
        One finding, or none where nothing can be told.
    """
    version = image_version(cluster, "ml-pipeline", ("kubeflow", cluster.namespace))
    if version and numbers(version) and numbers(version) < _OLDEST_PIPELINES:
        yield Finding(
            "Kubeflow Pipelines' version",
            "warn",
            version,
            "Use 2.16 or newer: older ones are not tested, and lack what the pipelines are "
            "compiled to",
        )
    elif version:
        yield Finding("Kubeflow Pipelines' version", "ok", version)


def image_version(cluster: Cluster, deployment: str, namespaces: tuple[str, ...]) -> str:
    """Return the tag of a Deployment's image; empty where it is not there or may not be read.

    Args:
        cluster: The cluster.
        deployment: Its name.
        namespaces: Where it is looked for, in this order.

    Returns:
        For example ``v0.20.0``.
    """
    from visionloop.cluster import Forbidden

    for namespace in dict.fromkeys(namespaces):
        try:
            found = cluster.get("apps/v1", "Deployment", deployment, namespace=namespace)
        except Forbidden:
            continue
        containers = found["spec"]["template"]["spec"]["containers"] if found else []
        for container in sorted(containers, key=lambda one: one["name"] != "manager"):
            return tag_of(str(container["image"]))
    return ""


def tag_of(image: str) -> str:
    """Return the tag of an image; empty when it has none.

    Args:
        image: For example ``registry:5000/kfp:2.17.0@sha256:…``.
    """
    name = image.partition("@")[0]
    return name.rpartition(":")[2] if ":" in name.rpartition("/")[2] else ""


def numbers(version: str) -> tuple[int, ...]:
    """Return major and minor of a version; empty when it has none, as ``latest``.

    Args:
        version: For example ``v0.20.0``.

    Returns:
        For example ``(0, 20)``.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else ()
