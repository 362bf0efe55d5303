"""Checks whether Kubeflow Pipelines lets runs have the service account that they are to have.

Servers since August 2026 (kubeflow/pipelines #14181) start a run with an account that is not their
default only where ``ALLOWEDSERVICEACCOUNTS`` lists it; where many users share the server, the
caller needs the verb ``use`` on the account besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look
from visionloop.cli.cluster_checks.versions import numbers, tag_of

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_SERVER = "ml-pipeline"
_LIST = "ALLOWEDSERVICEACCOUNTS"
_DEFAULT = "DEFAULTPIPELINERUNNERSERVICEACCOUNT"
# The first minor version of which some release may have the check.
_FIRST = (2, 17)


def run_account(cluster: Cluster, question: Question, many_users: bool | None) -> Iterator[Finding]:
    """Look whether the server would start runs with the account, for this caller.

    Args:
        cluster: The cluster.
        question: What is to run there.
        many_users: Whether Kubeflow Pipelines is shared by many users; None: it did not answer.

    Yields:
        One finding, where an account is known and the server's Deployment is there.
    """
    from visionloop.cluster import Forbidden

    if not question.account:
        return
    check = f"runs as {question.account}"
    for namespace in dict.fromkeys(("kubeflow", cluster.namespace)):
        try:
            server = cluster.get("apps/v1", "Deployment", _SERVER, namespace=namespace)
        except Forbidden as error:
            told = f"cannot tell whether Kubeflow Pipelines allows the account: {error.what}"
            yield Finding(check, "warn", told, error.remedy)
            return
        if server is not None:
            held = server

            def ask(at: str = namespace, held: dict[str, Any] = held) -> Finding | str:
                return _allowed(cluster, question, check, held, at, many_users)

            yield look(check, ask)
            return


def _allowed(
    cluster: Cluster,
    question: Question,
    check: str,
    server: dict[str, Any],
    namespace: str,
    many_users: bool | None,
) -> Finding | str:
    container = server["spec"]["template"]["spec"]["containers"][0]
    default = _value(cluster, container, _DEFAULT, namespace)
    default = default or ("default-editor" if many_users else "pipeline-runner")
    if question.account == default:
        return "the server's default, which it lets every run have"
    version = tag_of(str(container["image"]))
    if numbers(version) and numbers(version) < _FIRST:
        return f"version {version} lets runs have any account"
    listed = _value(cluster, container, _LIST, namespace)
    if listed is None:
        return Finding(
            check,
            "warn",
            f"the server's {_LIST} is not set: one of August 2026 or later refuses the runs",
            _set_list(namespace, [question.account]),
        )
    names = [name for name in re.split(r"[,\s]+", listed) if name]
    if question.account not in names:
        return Finding(
            check,
            "fail",
            f"the server's {_LIST} does not list it ({', '.join(names) or 'is empty'}): runs are "
            "refused",
            _set_list(namespace, [*names, question.account]),
        )
    if many_users and not cluster.can("use", "serviceaccounts", name=question.account):
        return Finding(
            check,
            "fail",
            f"this account may not use serviceaccounts {question.account} in namespace "
            f"{cluster.namespace}: the server refuses its runs",
            f"kubectl create role {question.account}-user -n {cluster.namespace} --verb=use "
            f"--resource=serviceaccounts --resource-name={question.account}, and bind it to who "
            "submits (manifests/components/submitter has it)",
        )
    return f"listed in the server's {_LIST}"


def _set_list(namespace: str, names: list[str]) -> str:
    return f"kubectl set env deploy/{_SERVER} -n {namespace} {_LIST}={','.join(names)}"


def _value(cluster: Cluster, container: dict[str, Any], name: str, namespace: str) -> str | None:
    """Return the value of a variable, also one out of a ConfigMap; None where it is not set."""
    for entry in container.get("env") or []:
        if entry["name"] == name:
            named = (entry.get("valueFrom") or {}).get("configMapKeyRef")
            if not named:
                return str(entry.get("value") or "")
            held = cluster.get("v1", "ConfigMap", named["name"], namespace=namespace) or {}
            found = (held.get("data") or {}).get(named["key"])
            return None if found is None else str(found)
    return None
