"""KServe's controller, played on the API server for tests: its status, its pods, real predictors.

What is played is what KServe 0.20 does with an InferenceService (pkg/controller/v1beta1 and
pkg/apis/serving/v1beta1): revisions and traffic in Knative mode, Deployments, canaries and orphans
in Standard mode, `modelStatus` from the pods. Each pod that runs is a `visionloop serve` process,
reached over the proxy to pods.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.api_server import ApiServer
from tests.serving.conftest import Server, Starter
from tests.serving.inference_service.playing import NAMESPACE, proxying, put_event
from tests.serving.inference_service.pod_states import FAILURES, RUNNING

MODEL = "visionloop.dev/model-id"


@dataclass
class Unit:
    """A revision of Knative, or a Deployment: one pod of one template."""

    name: str
    template: str
    model_id: str
    pod: str
    ready: bool = False
    failed: bool = False
    copies: int = 1
    labels: dict[str, str] = field(default_factory=dict)


class KServe:
    """The controller.

    Args:
        server: The API server.
        start: Starts predictors.
        root: Folder of the lake, as the volume `lake` has it.
        mode: ``Knative`` or ``Standard``.

    Attributes:
        broken: How the pods of a model fail, by model: a name of `FAILURES`, or ``other:<bundle>``
            for a pod that serves another bundle than it was told to.
        deaf: Whether nobody gets at the pods' metrics any more.
        routes_canaries: Whether canaries of Standard mode get traffic; in 0.20.0 they do not.
    """

    def __init__(self, server: ApiServer, start: Starter, root: Path, mode: str) -> None:
        self.server, self.mode = server, mode
        self.broken: dict[str, str] = {}
        self.routes_canaries, self.deaf = True, False
        self.seconds = 0.0
        self.lag = 0.0  # of the controller behind the pods; behind what is applied, twice that
        self.history: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.proxied: list[str] = []
        self._start, self._root = start, root
        self._lock = threading.RLock()
        self._units: dict[str, Unit] = {}
        self._servers: dict[str, Server] = {}
        self._number = 0
        self._rolled_out = ""
        self._sent = 0
        server.controllers.append(self._changed)
        server._server.RequestHandlerClass = proxying(self)

    def service(self) -> dict[str, Any]:
        found = self.server.read("InferenceService", "clothing", NAMESPACE)
        assert found is not None
        return found

    def shares(self) -> dict[str, int]:
        """Return each model's share of the traffic, in percent."""
        with self._lock:
            if self.mode == "Knative":
                status = self.service().get("status") or {}
                traffic = status.get("components", {}).get("predictor", {}).get("traffic", [])
                found: dict[str, int] = {}
                for one in traffic:
                    model = self._units[one["revisionName"]].model_id
                    found[model] = found.get(model, 0) + one["percent"]
                return found
            spec = self.service()["spec"]
            stable = spec["predictor"]["annotations"][MODEL]
            rest = 100
            found = {}
            for canary in spec.get("canary", []) if self.routes_canaries else []:
                found[canary["predictor"]["annotations"][MODEL]] = canary["trafficPercent"]
                rest -= canary["trafficPercent"]
            return {stable: rest, **found}

    def pod_of(self, model_id: str) -> Unit:
        return next(u for u in self._units.values() if u.model_id == model_id and u.ready)

    def ask(self, picture: bytes, model_id: str = "") -> int:
        """Send a request as a client does, logged as KServe's agent does; returns its status."""
        shares = self.shares()
        if not model_id:
            self._sent += 1
            at, model_id = self._sent * 37 % 100, ""
            for name, share in sorted(shares.items()):
                if at < share:
                    model_id = name
                    break
                at -= share
        server = self._servers[self.pod_of(model_id).pod]
        path = "/v1/models/clothing:predict"
        status, reply, _ = server.post(path, picture, {"content-type": "image/png"})
        self._sent += 1
        self._log("request", self._sent, picture, model_id)
        if status == 200:
            self._log("response", self._sent, reply, model_id)
        return status

    def _log(self, kind: str, number: int, body: bytes, model_id: str) -> None:
        now = datetime.now(UTC).isoformat()
        self.events.append(
            {
                "received_at": now,
                "headers": {
                    "ce-specversion": "1.0",
                    "ce-id": f"e{number}",
                    "ce-type": f"org.kubeflow.serving.inference.{kind}",
                    "ce-inferenceservicename": "clothing",
                    "ce-namespace": NAMESPACE,
                    "ce-annotations": json.dumps({MODEL: model_id}),
                    "ce-time": now,
                    "content-type": "image/png",
                },
                "body_b64": base64.b64encode(body).decode(),
            }
        )

    # --- the controller -----------------------------------------------------------------------

    def _changed(self, event: str, item: dict[str, Any]) -> None:
        if item["kind"] != "InferenceService" or event == "DELETED":
            return
        time.sleep(2 * self.lag)
        with self._lock:
            live = self.server.read("InferenceService", "clothing", NAMESPACE)
            if live is None:
                return
            if not self.history or self.history[-1] != live["spec"]:
                self.history.append(live["spec"])
                (self._knative if self.mode == "Knative" else self._standard)(live)
            self._tell()

    def _knative(self, live: dict[str, Any]) -> None:
        predictor = {**live["spec"]["predictor"]}
        predictor.pop("canaryTrafficPercent", None)
        template = json.dumps(predictor, sort_keys=True)
        newest = list(self._units.values())[-1] if self._units else None
        if newest is None or newest.template != template:
            self._number += 1
            name = f"clothing-predictor-{self._number:05d}"
            self._begin(name, template, predictor, {"serving.knative.dev/revision": name})

    def _standard(self, live: dict[str, Any]) -> None:
        spec = live["spec"]
        wanted = {_deployment(spec["predictor"]): spec["predictor"]}
        for canary in spec.get("canary", []):
            self._admit(spec["predictor"], canary["predictor"])
            wanted[_deployment(canary["predictor"])] = canary["predictor"]
        for name, predictor in wanted.items():
            kept = ("annotations", "containers", "volumes", "model")
            template = json.dumps({k: predictor.get(k) for k in kept}, sort_keys=True)
            if name not in self._units or self._units[name].template != template:
                self._begin(name, template, predictor, {"app": f"isvc.{name}"})
            elif self._units[name].ready:
                self._units[name].copies = predictor.get("minReplicas", 1)
                self._write_pod(self._units[name], RUNNING)
        for name in set(self._units) - set(wanted):
            self._end(self._units.pop(name))  # KServe deletes orphans at once

    def _admit(self, stable: dict[str, Any], canary: dict[str, Any]) -> None:
        """What KServe's validating webhook asks of a canary."""
        env = {e["name"] for c in stable.get("containers", []) for e in c["env"]}
        if "model" not in stable and "STORAGE_URI" not in env:
            self.refused.append("canary requires a stable predictor with a model")
        if not canary.get("name") or canary["name"] == stable.get("name"):
            self.refused.append("predictor.name")
        if {"maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"} & set(canary):
            self.refused.append("canary uses fixed replicas")
        if canary.get("minReplicas", 0) > stable.get("minReplicas", 1):
            self.refused.append("minReplicas must not exceed the stable predictor's")

    def _begin(
        self, name: str, template: str, predictor: dict[str, Any], labels: dict[str, str]
    ) -> None:
        model_id = predictor["annotations"][MODEL]
        self._number += self.mode != "Knative"
        pod = f"{name}-{self._number}"
        unit = Unit(name, template, model_id, pod, labels=labels)
        before = self._units.get(name)
        if before is not None:
            del self._units[name]
            self._units[f"{name} before"] = before
        self._units[name] = unit
        # As where Knative allows a revision to begin without a pod.
        asked = predictor["annotations"].get("autoscaling.knative.dev/initial-scale", 0)
        unit.copies = predictor.get("minReplicas", 1) or int(asked)
        if self.broken.get(model_id) == "forbidden":
            self._refuse_pods(unit)
            return
        self._write_pod(unit, {"phase": "Pending"})
        args = (unit, self._bundle(predictor))
        threading.Thread(target=self._run, args=args, daemon=True).start()

    def _bundle(self, predictor: dict[str, Any]) -> str:
        (container,) = predictor["containers"]
        env = {e["name"]: e["value"] for e in container["env"]}
        stored = env.get("STORAGE_URI", "")
        if stored.startswith("pvc://lake/"):
            return str(self._root / stored.removeprefix("pvc://lake/"))
        at: int = container["args"].index("--model")
        return str(container["args"][at + 1])

    def _run(self, unit: Unit, bundle: str) -> None:
        how = self.broken.get(unit.model_id, "")
        if how in FAILURES:
            self.server.pod_logs[f"{unit.pod}/kserve-container"] = [
                "loading the model", f"error: {how} of {unit.model_id}",
            ]  # fmt: skip
            with self._lock:
                unit.failed = True
                self._write_pod(unit, FAILURES[how])
            time.sleep(self.lag)
            with self._lock:
                self._tell()
            return
        if how.startswith("other:"):
            bundle = how.removeprefix("other:")
        time.sleep(self.seconds)
        self._servers[unit.pod] = self._start(
            "serve", model_uri=bundle, name="clothing", http_port=0, grpc_port=None
        )
        with self._lock:
            if unit not in self._units.values():
                return  # it was deleted meanwhile
            unit.ready = True
            self._write_pod(unit, RUNNING)
            before = self._units.pop(f"{unit.name} before", None)
            if before is not None:
                self._end(before)
            self._tell()

    def crash(self, model_id: str) -> None:
        """Let the running pod of a model crash."""
        with self._lock:
            self._write_pod(self.pod_of(model_id), FAILURES["crash"])

    def linger(self, model_id: str, reason: str) -> None:
        """Leave a pod behind that its node gave up."""
        unit = self.pod_of(model_id)
        gone = Unit(unit.name, unit.template, model_id, f"a-{reason.lower()}", labels=unit.labels)
        status = {"phase": "Failed", "reason": reason, "message": "The node was low on memory"}
        ended = {"terminated": {"exitCode": 137, "reason": "Error"}}
        status["containerStatuses"] = [{"name": "kserve-container", "state": ended}]
        self._write_pod(gone, status)

    def tell_of_node(self, pod: str, reason: str, number: int = 0) -> None:
        """Let the cluster's autoscaler say something of a pod."""
        put_event(self.server, f"{pod}.{number}", "Pod", pod, reason, f"{reason} said so")

    def _refuse_pods(self, unit: Unit) -> None:
        message = 'pods "x" is forbidden: exceeded quota: gpus'
        of = f"{unit.name}-5f6"
        put_event(self.server, f"{unit.name}.1", "ReplicaSet", of, "FailedCreate", message)

    def _end(self, unit: Unit) -> None:
        for number in range(9):
            name = unit.pod + (f"-{number}" if number else "")
            if self.server.read("Pod", name, NAMESPACE):
                self.server.delete("Pod", name, NAMESPACE)
        if unit.pod in self._servers:
            self._servers.pop(unit.pod).process.terminate()

    def _write_pod(self, unit: Unit, status: dict[str, Any]) -> None:
        for number in range(unit.copies):
            self._write_copy(unit, unit.pod + (f"-{number}" if number else ""), status)

    def _write_copy(self, unit: Unit, name: str, status: dict[str, Any]) -> None:
        labels = {"serving.kserve.io/inferenceservice": "clothing", "component": "predictor"}
        self.server.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "labels": labels | unit.labels,
                    "annotations": {MODEL: unit.model_id},
                },
                "spec": {"containers": [{"name": "kserve-container"}, {"name": "agent"}]},
                "status": status,
            }
        )

    # --- the status ---------------------------------------------------------------------------

    def _tell(self) -> None:
        live = self.service()
        status = self._knative_status(live) if self.mode == "Knative" else self._raw_status(live)
        if status != live.get("status"):
            self.server.set_status(live, status)

    def _knative_status(self, live: dict[str, Any]) -> dict[str, Any]:
        revisions = list(self._units.values())
        created = revisions[-1]
        ready = [unit for unit in revisions if unit.ready]
        newest = ready[-1].name if ready else ""
        percent = live["spec"]["predictor"].get("canaryTrafficPercent")
        share = 100 if percent is None or not self._rolled_out else percent
        traffic = []
        if newest:
            traffic.append({"revisionName": newest, "latestRevision": True, "percent": share})
            if share < 100:
                pinned = {"revisionName": self._rolled_out, "latestRevision": False}
                traffic.append({**pinned, "percent": 100 - share, "tag": "prev"})
            if share == 100 and created.ready:
                self._rolled_out = newest
        if created.failed:
            state, reason = "False", "RevisionFailed"
        else:
            state, reason = ("True", "") if created.ready else ("Unknown", "RevisionMissing")
        predictor = {
            "latestCreatedRevision": created.name,
            "latestReadyRevision": newest,
            "latestRolledoutRevision": self._rolled_out,
            "traffic": traffic,
        }
        if created.ready and share == 100:
            for unit in revisions[:-1]:
                if unit.name in self._units and unit.ready:
                    self._end(self._units.pop(unit.name))
        return self._status(state, reason, created, {"predictor": predictor})

    def _raw_status(self, live: dict[str, Any]) -> dict[str, Any]:
        spec = live["spec"]
        stable = self._units[_deployment(spec["predictor"])]
        serving = stable.ready or f"{stable.name} before" in self._units
        state, reason = ("True", "") if serving else ("Unknown", "Progressing")
        status = self._status(state, reason, stable, {"predictor": {"url": "http://clothing"}})
        canaries = [
            {
                "name": c["predictor"]["name"],
                "ready": self._units[_deployment(c["predictor"])].ready,
                "trafficPercent": c["trafficPercent"],
            }
            for c in spec.get("canary", [])
        ]
        return status | ({"canaryStatuses": canaries} if canaries else {})

    def _status(
        self, state: str, reason: str, unit: Unit, components: dict[str, Any]
    ) -> dict[str, Any]:
        condition = {"status": state} | ({"reason": reason} if reason else {})
        loaded = {"transitionStatus": "InProgress", "states": {"activeModelState": "Loading"}}
        if unit.ready:
            loaded = {
                "transitionStatus": "UpToDate",
                "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
            }
        elif unit.failed and self.broken.get(unit.model_id) in ("blocked", "crash"):
            info = {"reason": "ModelLoadFailed", "message": "no such model", "exitCode": 1}
            loaded = {
                "transitionStatus": "BlockedByFailedLoad",
                "states": {"activeModelState": "Loaded", "targetModelState": "FailedToLoad"},
                "lastFailureInfo": info,
            }
        kinds = ("PredictorReady", "IngressReady", "Ready")
        return {
            "conditions": [{"type": kind, **condition} for kind in kinds],
            "components": components,
            "deploymentMode": self.mode,
            "modelStatus": loaded | {"copies": {"totalCopies": len(self._units)}},
            "url": "http://clothing.models.example.com",
        }


def _deployment(predictor: dict[str, Any]) -> str:
    name = predictor.get("name")
    return f"clothing-{name}-predictor" if name else "clothing-predictor"
