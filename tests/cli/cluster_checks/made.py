"""What a cluster holds in the tests of its checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Findings = dict[str, dict[str, str]]
NAMESPACE = "kubeflow"
CONTROLLER = "kserve-controller-manager"
SELECTOR = {"pool": "gpu"}
GPU = {"accelerator_type": "nvidia.com/gpu", "node_selector": SELECTOR}


def thing(kind: str, name: str, version: str = "v1", **body: Any) -> dict[str, Any]:
    metadata = {"name": name} | body.pop("metadata", {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def deployment(name: str, image: str, container: str = "manager") -> dict[str, Any]:
    spec = {"template": {"spec": {"containers": [{"name": container, "image": image}]}}}
    return thing("Deployment", name, "apps/v1", spec=spec)


def node(
    name: str, gpus: int = 0, labels: dict[str, str] | None = None, taints: Sequence[str] = ()
) -> dict[str, Any]:
    allocatable = {"cpu": "7910m", "memory": "28Gi"}
    allocatable |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
    tainted = [
        dict(zip(("key", "value", "effect"), taint.split(":"), strict=True)) for taint in taints
    ]
    return thing(
        "Node", name, metadata={"labels": labels or {}}, spec={"taints": tainted},
        status={"allocatable": allocatable},
    )  # fmt: skip


def inference_services(versions: dict[str, tuple[bool, bool]]) -> dict[str, Any]:
    """The definition with these versions: served or not, stored or not."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "inferenceservices.serving.kserve.io"},
        "spec": {
            "group": "serving.kserve.io",
            "scope": "Namespaced",
            "names": {"plural": "inferenceservices", "kind": "InferenceService"},
            "versions": [
                {"name": name, "served": served, "storage": stored, "schema": {}}
                for name, (served, stored) in versions.items()
            ],
        },
    }


def lake_claim(*modes: str, phase: str = "Bound") -> dict[str, Any]:
    return thing(
        "PersistentVolumeClaim", "lake", spec={"accessModes": list(modes)}, status={"phase": phase}
    )
