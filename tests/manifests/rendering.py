"""Renders the manifests with kustomize itself, and finds things in what came out."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
# Where .ci/run puts kustomize when the machine has none.
TOOLS = ROOT / ".venv" / "tools"
# An overlay as it lies there, and with each of the components that it leaves to the person.
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "gke": ("gke", []),
    "gke with everything": (
        "gke",
        [
            "label-studio", "label-media", "submitter", "kueue", "collector-token", "monitoring",
            "monitoring-operator",
        ],
    ),
    "local": ("local", []),
    "local with everything": (
        "local",
        ["postgres", "label-studio", "label-media", "monitoring", "monitoring-operator"],
    ),
}  # fmt: skip


def renderers() -> list[list[str]]:
    """Return the commands that render a folder: kustomize, and the one inside kubectl."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(TOOLS)])
    found = []
    if kustomize := shutil.which("kustomize", path=path):
        found.append([kustomize, "build"])
    kubectl = shutil.which("kubectl")
    if kubectl and _works([kubectl, "kustomize", "--help"]):
        found.append([kubectl, "kustomize"])
    return found


def render(folder: Path, command: list[str] | None = None) -> list[Document]:
    """Render a folder; the test is skipped where nothing here can.

    Args:
        folder: Has a kustomization.yaml.
        command: One of `renderers`; by default the first.

    Returns:
        The documents.
    """
    commands = [command] if command else renderers()
    if not commands:
        pytest.skip("neither kustomize nor kubectl is installed here")
    answer = subprocess.run(
        [*commands[0], str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    assert not answer.stderr, f"kustomize warns: {answer.stderr}"
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


@functools.cache
def variant(name: str) -> tuple[Document, ...]:
    """Return the documents of one of `VARIANTS`."""
    overlay, components = VARIANTS[name]
    folder = MANIFESTS / "overlays" / overlay
    if not components:
        return tuple(render(folder))
    # Kustomize takes relative paths only.
    with tempfile.TemporaryDirectory() as wrapper:
        real = os.path.realpath(wrapper)
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "kubeflow",
            "resources": [os.path.relpath(folder, real)],
            "components": [
                os.path.relpath(MANIFESTS / "components" / name, real) for name in components
            ],
        }
        (Path(real) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return tuple(render(Path(real)))


def of_kind(documents: tuple[Document, ...], *kinds: str) -> list[Document]:
    """Return the documents of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def names(documents: tuple[Document, ...], kind: str) -> set[str]:
    """Return the names of a kind's documents."""
    return {document["metadata"]["name"] for document in of_kind(documents, kind)}


def named(documents: tuple[Document, ...], kind: str, name: str) -> Document:
    """Return one document."""
    return next(d for d in of_kind(documents, kind) if d["metadata"]["name"] == name)


def pod_templates(documents: tuple[Document, ...]) -> Iterator[tuple[str, Document]]:
    """Yield the name and the pod template of each workload, a ServingRuntime's included."""
    for document in documents:
        if "template" in document.get("spec", {}):
            yield _title(document), document["spec"]["template"]
        elif document["kind"] == "ServingRuntime":
            yield _title(document), {"metadata": {}, "spec": document["spec"]}


def matches(selector: Document | None, labels: dict[str, str]) -> bool:
    """Return whether a label selector selects; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels", {})
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for rule in selector.get("matchExpressions", []):
        there, value = rule["key"] in labels, labels.get(rule["key"])
        fits = {
            "Exists": there,
            "DoesNotExist": not there,
            "In": value in rule.get("values", []),
            "NotIn": value not in rule.get("values", []),
        }
        if not fits[rule["operator"]]:
            return False
    return True


def _title(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
