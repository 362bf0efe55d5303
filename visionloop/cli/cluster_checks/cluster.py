"""The order in which a cluster is checked."""

from __future__ import annotations

from collections.abc import Iterator

from visionloop.cli.checks import Finding, attempt
from visionloop.cli.cluster_checks import (
    accounts,
    admission,
    bucket_rights,
    events,
    images,
    kserve,
    namespaces,
    nodes,
    queues,
    quotas,
    run_accounts,
    trainer,
    versions,
    volumes,
)
from visionloop.cli.cluster_checks.question import Question


def cluster(question: Question) -> Iterator[Finding]:
    """Check the cluster that kubectl points at, or that this pod runs in.

    Args:
        question: What is to run there.

    Yields:
        One finding a check.
    """
    from visionloop.cluster import connect

    kubernetes = attempt("Kubernetes", lambda: versions.kubernetes(question.namespace))
    pipelines, many_users = versions.pipelines(question.host)
    if kubernetes.found.startswith("No cluster is configured") and pipelines.state == "ok":
        # A CI job often reaches Kubeflow Pipelines by its own address, and nothing else.
        told = "cannot tell from here: no cluster is configured"
        kubernetes = Finding("Kubernetes", "warn", told, kubernetes.remedy)
    yield kubernetes
    yield pipelines
    yield from images.images(question)
    if kubernetes.state != "ok":
        return
    reached = connect(namespace=question.namespace, patience=question.patience)
    asked = question.settled(reached, many_users)
    yield from versions.pipelines_version(reached)
    home = namespaces.namespace(reached)
    yield home
    if home.found == namespaces.ABSENT:
        # All that follows would be missing in it.
        return
    yield from accounts.accounts(reached, asked)
    yield from bucket_rights.bucket_rights(reached, asked)
    yield from run_accounts.run_account(reached, asked, many_users)
    yield from nodes.nodes(reached, asked)
    yield from quotas.quotas(reached, asked)
    yield from volumes.volumes(reached, asked)
    yield from queues.queues(reached, asked)
    yield from kserve.kserve(reached, asked)
    yield from namespaces.endpoint_namespace(reached, asked)
    yield from events.events(reached, asked)
    yield from trainer.trainer(reached, asked)
    yield from admission.admission(reached, asked)
