"""Every pod of ours passes the pod security standard *restricted*, and a bit more."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.manifests.rendering import VARIANTS, pod_templates, variant

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
# Serves nobody, and does what tasks do by hand: it has no probes, and the runner's token.
CLIENT = "Deployment visionloop-client"
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
}  # fmt: skip


def violations(spec: dict[str, Any]) -> Iterator[str]:
    """Yield what *restricted* has against a pod."""
    pod = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is on"
    for volume in spec.get("volumes", []):
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    for sysctl in pod.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    every = [*spec["containers"], *spec.get("initContainers", [])]
    for container in every:
        own = container.get("securityContext", {})
        name = container["name"]
        if own.get("privileged"):
            yield f"{name} is privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may escalate its privileges"
        if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
            yield f"{name} may run as root"
        if own.get("runAsUser", pod.get("runAsUser")) == 0:
            yield f"{name} runs as root"
        profile = own.get("seccompProfile", pod.get("seccompProfile", {}))
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name} has no seccomp profile"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []):
            yield f"{name} keeps capabilities"
        if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name} adds capabilities"
        if own.get("procMount", "Default") != "Default":
            yield f"{name} unmasks /proc"
        for port in container.get("ports", []):
            if port.get("hostPort"):
                yield f"{name} takes a port of the node"


@pytest.mark.parametrize("name", VARIANTS)
def test_every_pod_is_restricted(name: str) -> None:
    seen = 0
    for title, template in pod_templates(variant(name)):
        seen += 1
        assert not list(violations(template["spec"])), title
    assert seen >= 2


@pytest.mark.parametrize("name", VARIANTS)
def test_every_container_writes_to_its_volumes_only_and_says_what_it_needs(name: str) -> None:
    for title, template in pod_templates(variant(name)):
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, title
            for amount in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][amount]), title
            # A library may always want a temporary file.
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, title
            assert isinstance(
                container["securityContext"].get("runAsUser")
                or template["spec"]["securityContext"]["runAsUser"],
                int,
            ), title


@pytest.mark.parametrize("name", VARIANTS)
def test_every_container_is_probed(name: str) -> None:
    for title, template in pod_templates(variant(name)):
        if title == CLIENT:
            continue
        for container in template["spec"]["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= set(container), title
            if not title.startswith("ServingRuntime"):  # Knative takes no other port for it
                assert "startupProbe" in container, title


@pytest.mark.parametrize("name", VARIANTS)
def test_no_pod_of_ours_but_the_client_carries_a_token_for_the_kubernetes_api(name: str) -> None:
    for title, template in pod_templates(variant(name)):
        if not title.startswith("ServingRuntime"):
            assert template["spec"]["automountServiceAccountToken"] is (title == CLIENT), title


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["hostNetwork"], True, "hostNetwork is on"),
        (["volumes"], [{"name": "disk", "hostPath": {"path": "/"}}], "volume disk is a hostPath"),
        (["securityContext", "runAsNonRoot"], False, "collector may run as root"),
        (["securityContext", "seccompProfile"], {}, "collector has no seccomp profile"),
        (["containers", 0, "securityContext", "capabilities"], {}, "collector keeps capabilities"),
        (
            ["containers", 0, "securityContext", "allowPrivilegeEscalation"],
            True,
            "collector may escalate its privileges",
        ),
    ],
)
def test_a_violation_would_be_found(path: list[Any], value: Any, complaint: str) -> None:
    spec = copy.deepcopy(dict(pod_templates(variant("gke")))["StatefulSet visionloop-collector"])
    at: Any = spec["spec"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert list(violations(spec["spec"])) == [complaint]
