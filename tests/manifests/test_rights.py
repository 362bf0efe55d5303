"""What accounts may do: as little as the steps need, and each right says which step needs it."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.rendering import (
    MANIFESTS,
    VARIANTS,
    Document,
    named,
    of_kind,
    render,
    variant,
)
from visionloop.cli.cluster_checks.accounts import needed
from visionloop.cli.cluster_checks.question import Question
from visionloop.config import load_config

# Secrets that may be read through the API, each by name: everything else is mounted by reference.
READABLE_SECRETS = {"mlpipeline-minio-artifact"}
# What Argo's executor and agent, and KFP's driver and launcher do in a run's pods, beside what the
# doctor asks for.
KFP = {
    ("list", "argoproj.io", "workflowtasksets", ""),
    ("watch", "argoproj.io", "workflowtasksets", ""),
    ("patch", "argoproj.io", "workflowtasksets/status", ""),
    ("get", "", "secrets", "mlpipeline-minio-artifact"),
}


def rules(documents: tuple[Document, ...], account: str) -> list[dict[str, Any]]:
    """Return the rules that hold for an account."""
    found: list[dict[str, Any]] = []
    for binding in of_kind(documents, "RoleBinding", "ClusterRoleBinding"):
        if account in {subject["name"] for subject in binding["subjects"]}:
            role = binding["roleRef"]
            found += named(documents, role["kind"], role["name"])["rules"]
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_no_role_has_a_wildcard_or_hands_out_rights(name: str) -> None:
    roles = of_kind(variant(name), "Role", "ClusterRole")
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["apiGroups"] + rule["resources"]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert not {"pods/exec", "pods/attach", "serviceaccounts/token"} & set(
                rule["resources"]
            )
            assert "rbac.authorization.k8s.io" not in rule["apiGroups"]


@pytest.mark.parametrize("name", VARIANTS)
def test_secrets_are_read_by_name_only(name: str) -> None:
    for role in of_kind(variant(name), "Role", "ClusterRole"):
        for rule in role["rules"]:
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["get"]
                assert set(rule["resourceNames"]) <= READABLE_SECRETS


@pytest.mark.parametrize("name", VARIANTS)
def test_no_right_holds_for_the_whole_cluster(name: str) -> None:
    assert of_kind(variant(name), "ClusterRole", "ClusterRoleBinding") == []


def test_installations_in_two_namespaces_have_no_object_in_common(tmp_path: Path) -> None:
    # Objects of no namespace have a fixed name: the second installation would take the first's.
    seen = []
    for namespace in ("team-a", "team-b"):
        folder = tmp_path / namespace
        folder.mkdir()
        overlay = os.path.relpath(MANIFESTS / "overlays" / "gke", os.path.realpath(folder))
        told = {"namespace": namespace, "resources": [overlay]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
        seen.append(
            {
                (d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"])
                for d in render(folder)
            }
        )
    assert len(seen[0]) == len(seen[1]) > 10
    assert not seen[0] & seen[1]


@pytest.mark.parametrize("name", VARIANTS)
def test_only_who_runs_and_who_submits_has_rights(name: str) -> None:
    documents = variant(name)
    for account in of_kind(documents, "ServiceAccount"):
        who = account["metadata"]["name"].removeprefix("visionloop-")
        assert bool(rules(documents, f"visionloop-{who}")) == (who in ("runner", "submitter"))
        # KFP's pods get the runner's: the others have none to be stolen.
        assert account.get("automountServiceAccountToken", True) == (who == "runner")


def test_who_submits_may_start_runs_and_read_logs() -> None:
    documents = variant("gke with everything")
    held = {
        (verb, group, resource, *rule.get("resourceNames", []))
        for rule in rules(documents, "visionloop-submitter")
        for verb, group, resource in product(rule["verbs"], rule["apiGroups"], rule["resources"])
    }
    assert {right for right in held if right[1] != "pipelines.kubeflow.org"} == {
        ("use", "", "serviceaccounts", "visionloop-runner"),
        ("get", "", "pods"),
        ("list", "", "pods"),
        ("get", "", "pods/log"),
    }
    assert ("create", "pipelines.kubeflow.org", "runs") in held
    assert ("delete", "pipelines.kubeflow.org", "runs") not in held


def test_the_runner_has_each_right_that_the_doctor_asks_for_and_none_beyond_kfps() -> None:
    settings = {"name": "x", "lake": "/lake", "serving": {"kserve": {}}}
    config = load_config(json.dumps(settings | {"training": {"runner": "trainjob"}}))
    asked = {
        (verb, right.group, right.resource, right.name)
        for right in needed(Question(config=config))
        for verb in right.verbs
    }
    held = {
        (verb, group, resource, name)
        for rule in rules(variant("gke"), "visionloop-runner")
        for verb, group, resource, name in product(
            rule["verbs"], rule["apiGroups"], rule["resources"], rule.get("resourceNames", [""])
        )
    }
    assert asked <= held
    assert held - asked == KFP


def test_every_rule_says_what_needs_it() -> None:
    told = 0
    for file in (
        MANIFESTS / "base" / "runner-role.yaml",
        MANIFESTS / "components" / "kfp-object-store" / "role.yaml",
        MANIFESTS / "components" / "submitter" / "submitter.yaml",
    ):
        lines = file.read_text().splitlines()
        for before, line in pairwise(lines):
            if line.startswith("  - apiGroups:"):
                assert re.match(r"  # (KFP|publish|train|submit|schedule).*[:,] \S", before), (
                    file,
                    before,
                    line,
                )
                told += 1
    roles = of_kind(variant("gke with everything"), "Role", "ClusterRole")
    assert told == sum(len(role["rules"]) for role in roles)
