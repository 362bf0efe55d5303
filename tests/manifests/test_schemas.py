"""Every document is what the API server would take, unknown fields refused."""

from __future__ import annotations

import copy
from pathlib import Path

import kubernetes_validate
import pytest

from tests.cluster.schemas import invalid, read_crds, schema_of, untyped
from tests.manifests.rendering import MANIFESTS, VARIANTS, Document, render, variant

# The newest that the schemas know, and the oldest that is asked for in docs/cluster.md.
KUBERNETES = ["1.37.0", "1.31.0"]
KSERVE = ["kserve-v0.16.0", "kserve-v0.20.0"]


# Of the Prometheus Operator: see test_monitoring.py.
OPERATORS = "monitoring.coreos.com"


def custom(document: Document) -> bool:
    return document["apiVersion"].split("/")[0] in ("serving.kserve.io", "kueue.x-k8s.io")


def operators(document: Document) -> bool:
    return bool(document["apiVersion"].split("/")[0] == OPERATORS)


def problems(document: Document, crds: Path) -> list[str]:
    """Return what a CustomResourceDefinition has against a document."""
    group, version = document["apiVersion"].split("/")
    crd = next(
        crd
        for crd in read_crds(crds)
        if crd["spec"]["group"] == group and crd["spec"]["names"]["kind"] == document["kind"]
    )
    schema = schema_of(crd, version)
    wrong = untyped(document, schema)
    return wrong + [f"{cause['field']}: {cause['message']}" for cause in invalid(document, schema)]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", VARIANTS)
def test_each_document_validates_strictly_against_kubernetes(name: str, version: str) -> None:
    checked = [one for one in variant(name) if not custom(one) and not operators(one)]
    assert len(checked) > 15
    for document in checked:
        assert kubernetes_validate.validate(document, version, strict=True) == version[:4]


@pytest.mark.parametrize("kserve", KSERVE)
@pytest.mark.parametrize("name", VARIANTS)
def test_each_custom_resource_validates_strictly_against_its_definition(
    name: str, kserve: str, shared: Path
) -> None:
    checked = [document for document in variant(name) if custom(document)]
    assert checked
    for document in checked:
        kueue = document["apiVersion"].startswith("kueue")
        found = problems(document, shared / "crds" / ("kueue-v0.19.2" if kueue else kserve))
        assert not found, (document["metadata"]["name"], found)


def test_the_example_of_a_quota_validates_and_lies_in_no_namespace(shared: Path) -> None:
    documents = render(MANIFESTS / "quota" / "gke")
    assert {document["kind"] for document in documents} == {"ResourceFlavor", "ClusterQueue"}
    for document in documents:
        assert not problems(document, shared / "crds" / "kueue-v0.19.2")
        assert "namespace" not in document["metadata"]


def test_an_unknown_field_would_be_refused(shared: Path) -> None:
    collector = copy.deepcopy(next(d for d in variant("local") if d["kind"] == "StatefulSet"))
    collector["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePulPolicy"):
        kubernetes_validate.validate(collector, KUBERNETES[0], strict=True)
    runtime = copy.deepcopy(next(d for d in variant("local") if d["kind"] == "ServingRuntime"))
    runtime["spec"]["containers"][0]["imagePulPolicy"] = "Always"
    assert problems(runtime, shared / "crds" / KSERVE[0]) == [
        ".spec.containers[0].imagePulPolicy: field not declared in schema"
    ]
