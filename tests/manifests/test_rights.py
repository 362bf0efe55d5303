"""What accounts may do: as little as the steps need, and each right says which step needs it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from tests.manifests.rendering import MANIFESTS, VARIANTS, Document, named, of_kind, variant

# Secrets that may be read through the API, each by name: everything else is mounted by reference.
READABLE_SECRETS = {"mlpipeline-minio-artifact"}


def rules(documents: tuple[Document, ...], account: str) -> list[dict[str, Any]]:
    """Return the rules that hold for an account."""
    found: list[dict[str, Any]] = []
    for binding in of_kind(documents, "RoleBinding", "ClusterRoleBinding"):
        if account in {subject["name"] for subject in binding["subjects"]}:
            role = binding["roleRef"]
            found += named(documents, role["kind"], role["name"])["rules"]
    return found


def may(
    documents: tuple[Document, ...], account: str, verb: str, what: str, name: str = ""
) -> bool:
    """Return whether an account may do something to ``group/resource``."""
    group, _, resource = what.partition(":")
    return any(
        verb in rule["verbs"]
        and group in rule["apiGroups"]
        and resource in rule["resources"]
        and ("resourceNames" not in rule or name in rule["resourceNames"])
        for rule in rules(documents, account)
    )


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
def test_what_holds_for_the_whole_cluster_is_to_read_two_definitions(name: str) -> None:
    for role in of_kind(variant(name), "ClusterRole"):
        for rule in role["rules"]:
            assert rule["resources"] == ["customresourcedefinitions"]
            assert rule["verbs"] == ["get"]
            assert len(rule["resourceNames"]) == 2


@pytest.mark.parametrize("name", VARIANTS)
def test_only_the_runner_has_rights(name: str) -> None:
    documents = variant(name)
    for account in of_kind(documents, "ServiceAccount"):
        is_runner = account["metadata"]["name"] == "visionloop-runner"
        assert bool(rules(documents, account["metadata"]["name"])) == is_runner
        # Its token is KFP's to mount: the others have none to be stolen.
        assert account.get("automountServiceAccountToken", True) == is_runner


@pytest.mark.parametrize(
    ("step", "verb", "what", "name"),
    [
        ("a task's result", "create", "argoproj.io:workflowtaskresults", ""),
        ("a task's result", "patch", "argoproj.io:workflowtaskresults", ""),
        ("the pipeline root", "get", ":configmaps", "kfp-launcher"),
        ("KFP's own store", "get", ":secrets", "mlpipeline-minio-artifact"),
        # A server-side apply of something new needs both.
        ("publish", "create", "serving.kserve.io:inferenceservices", ""),
        ("publish", "patch", "serving.kserve.io:inferenceservices", ""),
        ("publish", "watch", "serving.kserve.io:inferenceservices", ""),
        (
            "publish",
            "get",
            "apiextensions.k8s.io:customresourcedefinitions",
            "inferenceservices.serving.kserve.io",
        ),
        ("publish: reasons", "watch", ":pods", ""),
        ("publish: reasons", "get", ":pods/log", ""),
        ("publish: reasons", "list", ":events", ""),
        ("publish: metrics", "get", ":pods/proxy", ""),
        ("publish: smoke inference", "create", ":pods/proxy", ""),
        ("train", "create", "trainer.kubeflow.org:trainjobs", ""),
        ("train: cancelled", "delete", "trainer.kubeflow.org:trainjobs", ""),
    ],
)
def test_the_runner_may_do_what_its_steps_need(step: str, verb: str, what: str, name: str) -> None:
    for overlay in ("gke", "local"):
        assert may(variant(overlay), "visionloop-runner", verb, what, name), step


@pytest.mark.parametrize(
    ("verb", "what", "name"),
    [
        ("get", ":secrets", "visionloop"),
        ("get", ":configmaps", "anything"),
        ("create", ":pods", ""),
        ("delete", "serving.kserve.io:inferenceservices", ""),
        ("create", "argoproj.io:workflows", ""),
        ("list", ":nodes", ""),
    ],
)
def test_the_runner_may_not_do_more(verb: str, what: str, name: str) -> None:
    assert not may(variant("gke with everything"), "visionloop-runner", verb, what, name)


def test_every_rule_says_what_needs_it() -> None:
    told = 0
    for file in (
        MANIFESTS / "base" / "runner-role.yaml",
        MANIFESTS / "components" / "kfp-object-store" / "role.yaml",
    ):
        lines = file.read_text().splitlines()
        for before, line in pairwise(lines):
            if line.startswith("  - apiGroups:"):
                assert re.match(r"  # (KFP|publish|train).*[:,] \S", before), (file, before, line)
                told += 1
    roles = of_kind(variant("local"), "Role", "ClusterRole")
    assert told == sum(len(role["rules"]) for role in roles)
