"""What holds for the folders as a whole: one namespace, one place to edit, one version."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from tests.manifests.rendering import (
    MANIFESTS,
    VARIANTS,
    Document,
    named,
    names,
    of_kind,
    pod_templates,
    render,
    renderers,
    variant,
)
from visionloop import __version__
from visionloop.components.image import RELEASE
from visionloop.config import load_config

OVERLAYS = ["gke", "local"]
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_and_kubectl_render_the_same(overlay: str) -> None:
    commands = renderers()
    if len(commands) < 2:
        pytest.skip("needs kustomize and a kubectl that has one inside")
    first, second = (render(MANIFESTS / "overlays" / overlay, command) for command in commands)
    # Otherwise an apply by another version would change what a StatefulSet cannot.
    assert first == second


def install(documents: tuple[Document, ...]) -> dict[str, str]:
    """Return what was written into install.env."""
    found = [d for d in of_kind(documents, "ConfigMap") if "lake" in d["data"]]
    assert len(found) == 1
    held: dict[str, str] = found[0]["data"]
    return held


def test_the_base_names_no_namespace() -> None:
    for file in [*(MANIFESTS / "base").glob("*.yaml"), *(MANIFESTS / "components").rglob("*.yaml")]:
        for document in yaml.safe_load_all(file.read_text()):
            # A list is a JSON patch: each of its operations names a place, none an object.
            named = {} if isinstance(document, list) else document.get("metadata", {})
            assert "namespace" not in named, file


@pytest.mark.parametrize("name", VARIANTS)
def test_everything_lies_in_the_overlays_namespace(name: str) -> None:
    for document in variant(name):
        metadata = document["metadata"]
        if document["kind"] in CLUSTER_WIDE:
            assert "namespace" not in metadata
        else:
            assert metadata["namespace"] == "kubeflow", document
        for subject in document.get("subjects", []):
            assert subject["namespace"] == "kubeflow", document
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "visionloop", document


def test_another_namespace_takes_everything_with_it(tmp_path: Path) -> None:
    overlay = os.path.relpath(MANIFESTS / "overlays" / "gke", os.path.realpath(tmp_path))
    text = yaml.safe_dump({"namespace": "team-vision", "resources": [overlay]})
    (tmp_path / "kustomization.yaml").write_text(text)
    documents = tuple(render(tmp_path))
    found = {d["metadata"].get("namespace", "-") for d in documents}
    found |= {s.get("namespace", "team-vision") for d in documents for s in d.get("subjects", [])}
    assert found == {"team-vision"}


@pytest.mark.parametrize("name", VARIANTS)
def test_no_two_documents_have_one_name(name: str) -> None:
    seen = [(d["apiVersion"], d["kind"], d["metadata"]["name"]) for d in variant(name)]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("name", VARIANTS)
def test_no_secret_stands_in_the_manifests(name: str) -> None:
    assert not of_kind(variant(name), "Secret")
    for file in MANIFESTS.rglob("*"):
        if file.is_file():
            assert "secretGenerator" not in file.read_text(), file


def test_images_are_those_of_this_release() -> None:
    for _, template in pod_templates(variant("gke with everything")):
        for container in template["spec"]["containers"]:
            image = container["image"]
            assert re.fullmatch(r"[a-z0-9.-]+\.[a-z]+/[a-z0-9/-]+:[0-9][0-9a-z.-]*", image), image
            if "visionloop/visionloop" in image:
                assert image == f"{RELEASE}-cpu", "see images: in manifests/base/kustomization.yaml"
    assert RELEASE.endswith(f":{__version__}")


def test_an_image_of_ones_own_takes_the_place_of_the_releases(tmp_path: Path) -> None:
    overlay = os.path.relpath(MANIFESTS / "overlays" / "gke", os.path.realpath(tmp_path))
    image = {"name": RELEASE.partition(":")[0], "newName": "registry.example/team/visionloop"}
    text = yaml.safe_dump({"resources": [overlay], "images": [image]})
    (tmp_path / "kustomization.yaml").write_text(text)
    images = {
        container["image"]
        for _, template in pod_templates(tuple(render(tmp_path)))
        for container in template["spec"]["containers"]
        if container["image"].endswith("-cpu")
    }
    assert images == {f"registry.example/team/visionloop:{__version__}-cpu"}


def test_a_person_edits_one_file_of_the_gke_overlay() -> None:
    # loop.yaml is an example of what lies in the person's own repository.
    files = MANIFESTS.rglob("*")
    held = {f.name for f in files if f.is_file() and "YOUR_" in f.read_text()}
    assert held == {"install.env", "loop.yaml"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_example_of_a_loop_is_valid_and_has_the_overlays_lake_and_accounts(
    overlay: str,
) -> None:
    documents = variant(overlay)
    text = named(documents, "ConfigMap", "visionloop-loop-example")["data"]["loop.yaml"]
    config = load_config(text)
    assert config.lake == install(documents)["lake"]
    assert config.serving.kserve
    accounts = {config.cluster.service_account, config.serving.kserve.service_account}
    assert accounts == {"visionloop-runner", "visionloop-predictor"}
    assert accounts <= names(documents, "ServiceAccount")


def test_accounts_of_the_gke_overlay_are_googles_too() -> None:
    domain = install(variant("gke"))["google_accounts"]
    for name in ("runner", "collector", "predictor"):
        account = named(variant("gke"), "ServiceAccount", f"visionloop-{name}")["metadata"]
        assert account["annotations"] == {
            "iam.gke.io/gcp-service-account": f"visionloop-{name}@{domain}"
        }


def test_gpu_tasks_of_the_gke_example_run_on_spot_nodes() -> None:
    text = named(variant("gke"), "ConfigMap", "visionloop-loop-example")["data"]["loop.yaml"]
    cluster = load_config(text).cluster
    assert cluster.accelerator_type == "nvidia.com/gpu"
    assert cluster.node_selector["cloud.google.com/gke-spot"] == "true"
    assert {t["key"] for t in cluster.tolerations} == {
        "nvidia.com/gpu",
        "cloud.google.com/gke-spot",
    }


def test_tasks_and_collector_have_the_local_lake_at_one_path() -> None:
    documents = variant("local")
    text = named(documents, "ConfigMap", "visionloop-loop-example")["data"]["loop.yaml"]
    config = load_config(text)
    assert config.lake.startswith(f"file://{config.cluster.mount_path}/")
    assert config.cluster.claim in names(documents, "PersistentVolumeClaim")
    pod = named(documents, "StatefulSet", "visionloop-collector")["spec"]["template"]["spec"]
    volume = next(v for v in pod["volumes"] if "persistentVolumeClaim" in v)
    assert volume["persistentVolumeClaim"]["claimName"] == config.cluster.claim
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts[volume["name"]] == config.cluster.mount_path


def test_the_local_overlay_needs_no_cloud_and_no_gpu() -> None:
    text = yaml.safe_dump_all(variant("local"))
    for word in ("gs://", "gke", "nvidia", "postgres", "HorizontalPodAutoscaler"):
        assert word not in text
    assert "visionloop-lake" in names(variant("local"), "PersistentVolumeClaim")
