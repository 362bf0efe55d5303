"""An account that Kubeflow Pipelines would not start runs with is found before it refuses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.cluster_checks.made import NAMESPACE, Findings, deployment, thing
from tests.cluster.api_server import ApiServer

CHECK = "runs as runner"


def kfp(server: ApiServer, version: str = "2.18.0", **variables: Any) -> None:
    made = deployment("ml-pipeline", f"ghcr.io/kubeflow/kfp-api-server:{version}", "api")
    env = [
        {"name": name, **(value if isinstance(value, dict) else {"value": value})}
        for name, value in variables.items()
    ]
    made["spec"]["template"]["spec"]["containers"][0]["env"] = env
    server.put(made, namespace="kubeflow")
    server.put(thing("ServiceAccount", "runner"), namespace=NAMESPACE)


@pytest.mark.parametrize(
    ("version", "listed", "state", "words"),
    [
        ("2.18.0", "runner", "ok", "listed"),
        ("2.18.0", "other, runner", "ok", "listed"),
        ("2.18.0", "other", "fail", "does not list it (other)"),
        ("2.18.0", "", "fail", "is empty"),
        ("2.18.0", None, "warn", "not set"),
        ("2.16.1", None, "ok", "any account"),
    ],
)
def test_an_account_that_the_server_does_not_list_is_found(
    server: ApiServer,
    doctor: Callable[..., Findings],
    version: str,
    listed: str | None,
    state: str,
    words: str,
) -> None:
    kfp(server, version, **({} if listed is None else {"ALLOWEDSERVICEACCOUNTS": listed}))
    found = doctor("--service-account", "runner")[CHECK]
    assert found["state"] == state and words in found["found"]
    if state != "ok":
        command = "kubectl set env deploy/ml-pipeline -n kubeflow ALLOWEDSERVICEACCOUNTS="
        assert command in found["remedy"] and found["remedy"].endswith("runner")


def test_the_servers_own_default_needs_no_leave(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    kfp(server, ALLOWEDSERVICEACCOUNTS="")
    assert doctor()["runs as pipeline-runner"]["state"] == "ok"
    kfp(server, ALLOWEDSERVICEACCOUNTS="", DEFAULTPIPELINERUNNERSERVICEACCOUNT="runner")
    assert doctor("--service-account", "runner")[CHECK]["state"] == "ok"


def test_a_list_out_of_a_config_map_is_read(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    named = {"configMapKeyRef": {"name": "pipeline-install-config", "key": "allowed"}}
    kfp(server, ALLOWEDSERVICEACCOUNTS={"valueFrom": named})
    server.put(
        thing("ConfigMap", "pipeline-install-config", data={"allowed": "runner"}),
        namespace="kubeflow",
    )
    assert doctor("--service-account", "runner")[CHECK]["state"] == "ok"
    server.denied.add("get configmaps")
    assert doctor("--service-account", "runner")[CHECK]["state"] == "warn"


def test_where_many_users_share_the_server_the_caller_has_to_be_let_use_the_account(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    kfp(server, ALLOWEDSERVICEACCOUNTS="runner")
    server.denied.add(f"{server.user}: use serviceaccounts")
    found = doctor("--service-account", "runner", many_users=True)[CHECK]
    assert found["state"] == "fail" and "may not use serviceaccounts runner" in found["found"]
    assert "--verb=use" in found["remedy"]
    assert doctor("--service-account", "runner")[CHECK]["state"] == "ok"


def test_a_server_that_may_not_be_read_cannot_be_told(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    kfp(server, ALLOWEDSERVICEACCOUNTS="other")
    server.denied.add("get deployments.apps")
    found = doctor("--service-account", "runner")[CHECK]
    assert found["state"] == "warn" and "cannot tell" in found["found"]
