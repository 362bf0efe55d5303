"""What a cluster is asked: who runs what there, and how a check that may not look is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from visionloop.cli.checks import Finding, attempt
from visionloop.cluster.transport import Patience

if TYPE_CHECKING:
    from visionloop.cluster import Cluster
    from visionloop.config import LoopConfig

# A person waits for the doctor: what does not answer is told soon.
_PATIENCE = Patience(attempts=3, first_s=0.2, most_s=2.0)


@dataclass(frozen=True)
class Question:
    """What is to run on a cluster.

    Attributes:
        config: The loop's configuration; None where none was given.
        host: Address of the Kubeflow Pipelines API; empty finds one as kfp does.
        namespace: Namespace of the tasks; empty: the configuration's, or that of kubectl's context.
        account: Service account of the tasks; empty: the configuration's, or the one that Kubeflow
            Pipelines takes by itself.
        image: Image of the tasks; empty: the configuration's, or the release's.
        patience: How often a request is tried.
    """

    config: LoopConfig | None = None
    host: str = ""
    namespace: str = ""
    account: str = ""
    image: str = ""
    patience: Patience = _PATIENCE

    def __post_init__(self) -> None:
        """Take from the configuration what was not given."""
        section = self.config.cluster if self.config else None
        set_here = object.__setattr__
        if section:
            set_here(self, "namespace", self.namespace or section.namespace)
            set_here(self, "account", self.account or section.service_account)
            set_here(self, "image", self.image or section.image)
        if not self.image:
            from visionloop.components.image import IMAGE

            set_here(self, "image", IMAGE)

    def settled(self, cluster: Cluster, many_users: bool | None) -> Question:
        """Return the question with the namespace and the account that will be taken.

        Args:
            cluster: The cluster.
            many_users: Whether Kubeflow Pipelines is shared by many users; None: it did not answer.
        """
        default = {True: "default-editor", False: "pipeline-runner", None: ""}[many_users]
        return replace(self, namespace=cluster.namespace, account=self.account or default)


def look(check: str, fetch: Callable[[], Finding | str]) -> Finding:
    """Run a check; what may not be looked at is a warning, since it may be right or wrong.

    Args:
        check: What is looked at.
        fetch: As in `visionloop.cli.checks.attempt`.

    Returns:
        The finding.
    """
    from visionloop.cluster import Forbidden

    def guarded() -> Finding | str:
        try:
            return fetch()
        except Forbidden as error:
            return Finding(check, "warn", f"cannot tell: {error.what}", error.remedy)

    return attempt(check, guarded)
