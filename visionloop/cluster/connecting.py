"""Which cluster: the one that KUBECONFIG names, this pod runs in, or kubectl points at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionloop import environment
from visionloop.errors import VisionloopError

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def load_configuration() -> Any:
    """Return a `kubernetes.client.Configuration` with fresh credentials.

    Raises:
        VisionloopError: No cluster is configured, or its configuration cannot be read.
    """
    import yaml
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    # Not Configuration(): that copies what another library of this process made its default.
    configuration = type.__call__(client.Configuration)
    try:
        if _in_cluster():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(
                config_file=environment.kubeconfig(), client_configuration=configuration
            )
    except (ConfigException, OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise VisionloopError(
            "No cluster is configured",
            where=str(error),
            remedy="Set KUBECONFIG, or run `gcloud container clusters get-credentials NAME`",
        ) from error
    return configuration


def current_namespace() -> str:
    """Return the namespace of this pod, or of kubectl's context; ``default`` where none is set."""
    from kubernetes import config

    if _in_cluster():
        try:
            return _POD_NAMESPACE.read_text(encoding="utf-8").strip() or "default"
        except OSError:
            return "default"
    _, active = config.list_kube_config_contexts(config_file=environment.kubeconfig())
    return str((active.get("context") or {}).get("namespace") or "default")


def _in_cluster() -> bool:
    # A pod that deploys to another cluster has that cluster's KUBECONFIG set.
    return environment.in_cluster() and not environment.names_kubeconfig()
