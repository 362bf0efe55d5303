"""A right, a Secret or an account that lacks is found before a task misses it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.cluster_checks.made import (
    NAMESPACE,
    Findings,
    thing,
)
from tests.cluster.api_server import ApiServer


def test_the_account_that_lacks_and_the_rights_that_lack_are_named(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    found = doctor("--service-account", "runner", name="loop")["service account runner"]
    assert found["state"] == "fail" and "namespace kubeflow" in found["found"]
    server.put(thing("ServiceAccount", "runner"), namespace=NAMESPACE)
    user = "system:serviceaccount:kubeflow:runner"
    server.denied |= {
        f"{user}: patch inferenceservices.serving.kserve.io", f"{user}: get pods/log",
        f"{user}: delete trainjobs.trainer.kubeflow.org",
    }  # fmt: skip
    sections = {"serving": {"kserve": {}}, "training": {"runner": "trainjob"}}
    found = doctor("--service-account", "runner", **sections)["rights of runner"]
    assert found["state"] == "fail" and "visionloop-runner" in found["remedy"]
    told = "patch inferenceservices.serving.kserve.io, delete trainjobs.trainer.kubeflow.org"
    assert told in found["found"] and "get pods/log" in found["found"]
    plain = doctor("--service-account", "runner", name="loop")["rights of runner"]
    assert plain["state"] == "ok", "what a configuration does not use needs no right"


def test_the_default_account_is_that_of_kubeflow_pipelines(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    found = doctor(many_users=True)
    assert found["service account default-editor"]["state"] == "fail"
    assert "service account named" in doctor(cluster={"service_account": "named"})


def test_a_namespace_that_refuses_the_pods_of_kubeflow_pipelines_is_found(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    label = "pod-security.kubernetes.io/enforce"
    server.put(thing("Namespace", NAMESPACE, metadata={"labels": {label: "restricted"}}))
    found = doctor()["namespace kubeflow"]
    assert found["state"] == "fail" and f"{label}=baseline" in found["remedy"]
    server.put(thing("Namespace", NAMESPACE, metadata={"labels": {label: "baseline"}}))
    assert doctor()["namespace kubeflow"]["state"] == "ok"
    assert doctor("--namespace", "nowhere")["namespace nowhere"]["state"] == "fail"


def test_the_secret_and_its_key_are_looked_at_and_never_told(
    server: ApiServer,
    doctor: Callable[..., Findings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from visionloop.cli.cluster_checks.accounts import accounts
    from visionloop.cli.cluster_checks.question import Question
    from visionloop.cluster import connect
    from visionloop.config import load_config

    def secret(**data: str) -> Any:
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        if data:
            server.put(thing("Secret", "visionloop", data=encoded), namespace=NAMESPACE)
        config = load_config("{}", overrides={"lake": "gs://b/lake"})
        question = Question(config=config, account="pipeline-runner", image="a:1")
        return list(accounts(connect(namespace=NAMESPACE), question))[-1]

    missing = secret()
    assert missing.state == "fail" and "kubectl create secret generic" in missing.remedy
    other = secret(password="p")
    assert other.state == "fail" and "keys: password" in other.found
    assert secret(catalog="").state == "fail"
    assert "no address" in secret(catalog="hunter2").found
    right = secret(catalog="postgresql://lake:hunter2@db/lake")
    assert right.state == "ok" and "hunter2" not in right.found
    server.denied.add("get secrets")
    assert secret().state == "warn"
    assert doctor(name="loop")["Secret visionloop"]["state"] == "warn"


def test_an_account_without_workload_identity_is_a_warning_where_the_lake_is_a_bucket(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    from visionloop.cli.cluster_checks.accounts import accounts
    from visionloop.cli.cluster_checks.question import Question
    from visionloop.cluster import connect
    from visionloop.config import load_config

    config = load_config("{}", overrides={"lake": "gs://b/lake"})
    question = Question(config=config, account="pipeline-runner", image="a:1")
    found = next(iter(accounts(connect(namespace=NAMESPACE), question)))
    assert found.state == "warn" and "Workload Identity" in found.remedy
    annotated = {"annotations": {"iam.gke.io/gcp-service-account": "t@p.iam.gserviceaccount.com"}}
    account = thing("ServiceAccount", "pipeline-runner", metadata=annotated)
    server.put(account, namespace=NAMESPACE)
    found = next(iter(accounts(connect(namespace=NAMESPACE), question)))
    assert found.state == "ok" and "t@p.iam" in found.found


def test_the_role_that_is_installed_gives_each_right_that_is_asked_for() -> None:
    from visionloop.cli.cluster_checks.accounts import needed
    from visionloop.cli.cluster_checks.question import Question
    from visionloop.config import load_config

    file = Path(__file__).parents[3] / "manifests" / "base" / "runner-role.yaml"
    roles = [d for d in yaml.safe_load_all(file.read_text(encoding="utf-8")) if "rules" in d]
    config = load_config(
        "{}", overrides={"lake": "gs://b/l", "serving.kserve": {}, "training.runner": "trainjob"}
    )
    rights = needed(Question(config=config, image="a:1"))
    assert len(rights) >= 8
    for right in rights:
        for verb in right.verbs:
            assert any(
                right.group in rule["apiGroups"]
                and right.resource in rule["resources"]
                and verb in rule["verbs"]
                and right.name in rule.get("resourceNames", [right.name])
                for role in roles
                for rule in role["rules"]
            ), f"{verb} {right}"
