"""Checks of KServe: its definitions, its version, and how a model would be rolled out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look
from visionloop.cli.cluster_checks.versions import image_version, numbers

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_CRD = "inferenceservices.serving.kserve.io"
_VERSION = "v1beta1"
# The oldest that Kubeflow's distribution still brings.
_OLDEST = (0, 16)


def kserve(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether models can be published.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        One finding a check.
    """
    wanted = bool(question.config and question.config.serving.kserve)
    if question.config is not None and not wanted:
        return
    installed = look("KServe", lambda: _installed(cluster, wanted))
    yield installed
    if wanted and installed.state != "fail":
        yield look("rollout", lambda: _rollout(cluster, question))
        yield from _triton(cluster, question)


def _installed(cluster: Cluster, wanted: bool) -> Finding | str:
    served = cluster.versions("serving.kserve.io")
    if not served:
        return Finding(
            "KServe",
            "fail" if wanted else "warn",
            "not installed: models cannot be published on this cluster",
            "Install KServe 0.16 or newer"
            + (", or leave serving.kserve out of loop.yaml" if wanted else ""),
        )
    if _VERSION not in served:
        return _wrong(f"serves {', '.join(served)} and not {_VERSION}")
    definition = cluster.crd(_CRD)
    if definition is None:
        return _wrong(f"the definition {_CRD} is missing")
    versions = {version["name"]: version for version in definition["spec"]["versions"]}
    if not versions.get(_VERSION, {}).get("served"):
        return _wrong(f"InferenceService is served as {', '.join(versions)} and not {_VERSION}")
    if not versions[_VERSION].get("storage"):
        kept = next((name for name, one in versions.items() if one.get("storage")), "nothing")
        return _wrong(f"InferenceServices are stored as {kept} and not {_VERSION}")
    version = image_version(
        cluster, "kserve-controller-manager", ("kserve", "kubeflow", "opendatahub")
    )
    if not version:
        return "its definitions are right; the version of its controller is not readable"
    if numbers(version) and numbers(version) < _OLDEST:
        remedy = "Use 0.16 or newer: older ones are not tested"
        return Finding("KServe", "warn", f"version {version}", remedy)
    return f"version {version}"


def _triton(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look for the runtime that the configuration names, where it is not our own predictor."""
    assert question.config is not None and question.config.serving.kserve is not None
    settings = question.config.serving.kserve
    if settings.runtime != "triton":
        return
    name, home = settings.triton_runtime, settings.namespace or cluster.namespace
    check = f"runtime {name}"

    def ask() -> Finding | str:
        version = "serving.kserve.io/v1alpha1"
        for kind in ("ServingRuntime", "ClusterServingRuntime"):
            if cluster.get(version, kind, name, namespace=home) is not None:
                return kind
        return Finding(
            check,
            "fail",
            f"there is no ServingRuntime of namespace {home} and no ClusterServingRuntime",
            "Install KServe's runtimes, or correct serving.kserve.triton_runtime",
        )

    yield look(check, ask)


def _wrong(found: str) -> Finding:
    return Finding(
        "KServe",
        "fail",
        f"wrong version of its definitions: {found}",
        "Install the definitions and the controller of KServe 0.16 or newer, of one release",
    )


def _rollout(cluster: Cluster, question: Question) -> Finding | str:
    from visionloop.serving.inference_service.endpoint import Endpoint
    from visionloop.serving.inference_service.modes import find_mode

    config = question.config
    assert config is not None and config.serving.kserve is not None
    settings = config.serving.kserve
    endpoint = Endpoint(
        name=config.serving.endpoint or config.name.replace("_", "-"),
        namespace=settings.namespace or cluster.namespace,
        loop=config.name,
        settings=settings,
        claim=config.cluster.claim,
        mount_path=config.cluster.mount_path,
    )
    return f"{find_mode(cluster, endpoint).value}, as {endpoint.where}"
