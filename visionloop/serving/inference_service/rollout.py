"""The steps of a rollout, each one apply that may be repeated, and the wait that belongs to it.

A candidate starts beside the model in service, is promoted or withdrawn. How depends on what the
cluster has:

- Knative: revisions of one service. The candidate's revision gets ``canaryTrafficPercent``; without
  that field it gets everything. To withdraw it, the model before is applied again with 0 percent,
  and takes everything once its new revision is ready: applied at once, all traffic would go to the
  newest *ready* revision, the candidate's, until then.
- Standard with ``spec.canary`` (KServe 0.20): a Deployment of its own, which promotion renames to
  be the current one, without a restart.
- Standard before: the Deployment's own rolling update; a candidate cannot run beside it.

KServe 0.20.0 starts such a canary and gives it no traffic; later versions split it by HTTPRoutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionloop.cluster.pods import lasting_failure
from visionloop.serving.events import MODEL_ANNOTATION
from visionloop.serving.inference_service.documents import canary_replicas, service_document
from visionloop.serving.inference_service.endpoint import (
    API_VERSION,
    KIND,
    Endpoint,
    Mode,
    Served,
)
from visionloop.serving.inference_service.pods import name_of, pods_of
from visionloop.serving.inference_service.waiting import wait_for_rollout

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster


@dataclass(frozen=True)
class Rollouts:
    """Rolls models out to one InferenceService.

    Attributes:
        cluster: Where it is.
        endpoint: The InferenceService.
        mode: How KServe runs it.
        on_wait: Told what is waited for.
        guard: Called before each change and while it is waited for; raises where this rollout is
            nobody's any more.
    """

    cluster: Cluster
    endpoint: Endpoint
    mode: Mode
    on_wait: Callable[[str], None] = lambda text: None
    guard: Callable[[], None] = lambda: None

    def live(self) -> dict[str, Any] | None:
        """Return the InferenceService as it is; None where there is none."""
        return self.cluster.get(
            API_VERSION, KIND, self.endpoint.name, namespace=self.endpoint.namespace
        )

    def start(self, candidate: Served, current: Served, percent: int) -> dict[str, Any] | None:
        """Start a candidate beside the current model, and wait until it is ready.

        Args:
            candidate: The model to try.
            current: The model in service.
            percent: The candidate's share of the traffic; 0 for none.

        Returns:
            A ready pod of the candidate.

        Raises:
            RolloutFailed: It did not become ready.
        """
        if self.mode is Mode.KNATIVE:
            document = service_document(self.endpoint, candidate, self.mode, percent=percent)
        else:
            document = service_document(
                self.endpoint, current, self.mode,
                name=self._name(), percent=percent, candidate=candidate,
            )  # fmt: skip
        return self._apply(document, candidate, whole=False)

    def promote(self, candidate: Served, current: Served | None, percent: int) -> None:
        """Give a candidate that was started all the traffic.

        Args:
            candidate: The candidate.
            current: The model in service, None where there is none.
            percent: The candidate's share so far.

        Raises:
            RolloutFailed: It did not become ready.
        """
        wanted = self.endpoint.settings.min_replicas
        beside = self.mode is Mode.STANDARD_CANARY and current and self.has_canary(candidate)
        if beside and current and wanted > canary_replicas(self.endpoint, percent):
            # Its Deployment is the current one at once, however few pods it has.
            document = service_document(
                self.endpoint, current, self.mode,
                name=self._name(), percent=percent, candidate=candidate, replicas=wanted,
            )  # fmt: skip
            self._apply(document, candidate, whole=False, replicas=wanted)
        self.serve(candidate)

    def serve(
        self, model: Served, *, with_pod: bool = False, pods_only: bool = False
    ) -> dict[str, Any] | None:
        """Give a model all the traffic, and wait until it has it.

        Args:
            model: The first model of an InferenceService, one that was started before, or, where
                no two can run, the one that takes the place of another.
            with_pod: It must have a pod, also where it scales to none.
            pods_only: See `withdraw`.

        Returns:
            A ready pod of the model; None where it may have scaled to none.

        Raises:
            RolloutFailed: It did not become ready.
        """
        name = self._name() if self.has_model(model) else None
        document = service_document(self.endpoint, model, self.mode, name=name)
        return self._apply(document, model, whole=True, with_pod=with_pod, pods_only=pods_only)

    def withdraw(self, current: Served, candidate: Served | None = None) -> None:
        """Give the model that was in service before a candidate all the traffic again.

        What the status says of a failure is the candidate's: only the model's own pods tell that
        it does not come back.

        Args:
            current: That model.
            candidate: The candidate, where it may have been promoted already.

        Raises:
            RolloutFailed: It did not become ready.
        """
        if self.mode is Mode.STANDARD_CANARY:
            if candidate is not None and self.has_model(candidate):
                # Beside it first: another name at once would be another Deployment without pods.
                document = service_document(
                    self.endpoint, candidate, self.mode,
                    name=self._name(), percent=0, candidate=current,
                    replicas=self.endpoint.settings.min_replicas,
                )  # fmt: skip
                self._apply(document, current, whole=False, pods_only=True)
                self.serve(current, pods_only=True)
                return
            document = service_document(self.endpoint, current, self.mode, name=self._name())
            self._apply(document, current, whole=True, pods_only=True)
            return
        if self.mode is Mode.KNATIVE:
            document = service_document(self.endpoint, current, self.mode, percent=0)
            self._apply(document, current, whole=False, pods_only=True)
        self.serve(current, pods_only=True)

    def _apply(
        self,
        document: dict[str, Any],
        model: Served,
        *,
        whole: bool,
        with_pod: bool = False,
        pods_only: bool = False,
        replicas: int = 1,
    ) -> dict[str, Any] | None:
        self.guard()
        before = self.live() or {}
        here = pods_of(self.cluster, self.endpoint)
        failing = [name_of(pod) for pod in here if lasting_failure(pod)]
        held = self.cluster.apply(document)
        changed = held["metadata"].get("generation") != before.get("metadata", {}).get("generation")
        return wait_for_rollout(
            self.cluster,
            self.endpoint,
            model,
            self.mode,
            whole=whole,
            with_pod=with_pod or not whole or bool(self.endpoint.settings.min_replicas),
            # What an unchanged InferenceService says of a failure is true of this rollout too.
            stale=before.get("status") if changed else None,
            stale_pods=failing if changed else (),
            pods_only=pods_only,
            replicas=replicas,
            guard=self.guard,
            on_wait=self.on_wait,
        )

    def _name(self) -> str:
        """Name of the current predictor: another one would be another Deployment."""
        live = self.live() or {}
        return str((live.get("spec") or {}).get("predictor", {}).get("name") or "")

    def has_model(self, model: Served) -> bool:
        """Return whether the predictor, canaries of Standard mode aside, is of a model."""
        live = self.live() or {}
        predictor = (live.get("spec") or {}).get("predictor") or {}
        return bool((predictor.get("annotations") or {}).get(MODEL_ANNOTATION) == model.model_id)

    def has_canary(self, model: Served) -> bool:
        """Return whether a model is a canary of Standard mode."""
        spec = (self.live() or {}).get("spec") or {}
        held = [canary.get("predictor") or {} for canary in spec.get("canary") or []]
        return any(
            (one.get("annotations") or {}).get(MODEL_ANNOTATION) == model.model_id for one in held
        )

    def is_settled(self, model: Served) -> bool:
        """Return whether a model is all that the InferenceService asks for: no other is tried."""
        spec = (self.live() or {}).get("spec") or {}
        share = (spec.get("predictor") or {}).get("canaryTrafficPercent")
        return self.has_model(model) and not spec.get("canary") and share is None
