"""Speaks to a Kubernetes API server: objects, changes, logs, rights. Knows nothing of the loop."""

from visionloop.cluster.api import Cluster, connect
from visionloop.cluster.pods import failure_of
from visionloop.cluster.refusals import FieldConflict, Forbidden, NotServed, Refused, Unreachable

__all__ = [
    "Cluster",
    "FieldConflict",
    "Forbidden",
    "NotServed",
    "Refused",
    "Unreachable",
    "connect",
    "failure_of",
]
