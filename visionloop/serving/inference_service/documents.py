"""The documents of an InferenceService, as pure functions of what is to be served.

Nothing in them depends on time or on what is there, so that applying the same model again changes
nothing. Fields that our predictor sets stand on the container, not on the pod: Knative refuses most
of a pod's. A model is named by its bundle, never by the pointer, so that a revision is a model.
"""

from __future__ import annotations

import math
from typing import Any

from visionloop.lake.storage import scheme_of
from visionloop.serving.events import MODEL_ANNOTATION
from visionloop.serving.inference_service.endpoint import (
    API_VERSION,
    KIND,
    MODE_ANNOTATION,
    MODEL_DIR,
    Endpoint,
    Mode,
    Served,
)
from visionloop.serving.inference_service.triton import repository_uri

HTTP_PORT = 8080
CONTAINER = "kserve-container"
SECRET_DIR = "/var/run/secrets/visionloop"

# The pod security standard *restricted* asks for no more.
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def service_document(
    endpoint: Endpoint,
    model: Served,
    mode: Mode,
    *,
    name: str | None = None,
    percent: int | None = None,
    candidate: Served | None = None,
    replicas: int = 0,
) -> dict[str, Any]:
    """Return the InferenceService that serves a model.

    Args:
        endpoint: The InferenceService.
        model: What it serves. In Knative with a `percent`, that is the candidate: what served
            before goes on in its own revision.
        mode: How KServe runs it.
        name: In Standard mode with ``spec.canary``, name of the predictor; None takes the model's.
        percent: The candidate's share of the traffic; None for all of it.
        candidate: In Standard mode with ``spec.canary``, a model that runs beside it.
        replicas: The candidate's pods; 0 for as many as its share of the traffic needs.

    Returns:
        A document for server-side apply.
    """
    predictor = predictor_spec(endpoint, model, mode)
    if mode is Mode.STANDARD_CANARY:
        predictor |= {"name": model.name if name is None else name}
        if not predictor["name"]:
            del predictor["name"]
    if mode is Mode.KNATIVE and percent is not None:
        predictor["canaryTrafficPercent"] = percent
    spec: dict[str, Any] = {"predictor": predictor}
    if candidate is not None:
        least = replicas or canary_replicas(endpoint, percent or 0)
        spec["canary"] = [
            {
                "trafficPercent": percent or 0,
                "predictor": _canary_predictor(endpoint, candidate, mode, least),
            }
        ]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": endpoint.name,
            "namespace": endpoint.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "visionloop",
                "app.kubernetes.io/name": "visionloop-predictor",
                "visionloop.dev/loop": endpoint.loop,
            },
            "annotations": {MODE_ANNOTATION: mode.deployment_mode},
        },
        "spec": spec,
    }


def predictor_spec(endpoint: Endpoint, model: Served, mode: Mode) -> dict[str, Any]:
    """Return the predictor that serves one model, without its share of the traffic.

    Args:
        endpoint: The InferenceService.
        model: The model.
        mode: How KServe runs it.
    """
    settings = endpoint.settings
    spec: dict[str, Any] = {
        "annotations": _annotations(endpoint, model, mode),
        "minReplicas": settings.min_replicas,
        "maxReplicas": settings.max_replicas,
    }
    if settings.scale_target:
        spec["scaleTarget"] = settings.scale_target
    if settings.scale_metric:
        spec["scaleMetric"] = settings.scale_metric
    if settings.logger.enabled:
        spec["logger"] = logger_spec(endpoint)
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in settings.tolerations]
    if endpoint.triton:
        spec["model"] = {
            "modelFormat": {"name": "onnx"},
            "protocolVersion": "v2",
            "runtime": settings.triton_runtime,
            "storageUri": endpoint.storage_uri(repository_uri(model.uri, endpoint.name)),
            "resources": _resources(endpoint),
        }
        return spec
    if mode is not Mode.KNATIVE:  # which refuses it: its pods have the timeout of a request, 300 s
        spec["terminationGracePeriodSeconds"] = settings.predictor.termination_s
    container, volumes = _container(endpoint, model, mode)
    return spec | {"containers": [container], "volumes": volumes}


def logger_spec(endpoint: Endpoint) -> dict[str, Any]:
    """Return where the predictor's requests and responses are logged, and with what.

    Args:
        endpoint: The InferenceService.
    """
    logger = endpoint.settings.logger
    spec: dict[str, Any] = {"mode": "all", "metadataAnnotations": [MODEL_ANNOTATION]}
    if logger.metadata_headers:
        spec["metadataHeaders"] = list(logger.metadata_headers)
    if not logger.storage:
        host = f"visionloop-collector.{endpoint.namespace}.svc.cluster.local"
        return spec | {"url": logger.url or f"http://{host}:8090"}
    scheme, _, rest = logger.storage.partition("://")
    bucket, _, prefix = rest.partition("/")
    return spec | {
        "url": f"{scheme}://{bucket}",
        "storage": {
            "key": logger.storage_key,
            "path": prefix.strip("/") or "events",
            "parameters": {"type": scheme, "format": "json"},
        },
        "batchSize": logger.batch_size,
        "batchInterval": logger.batch_interval,
    }


def _annotations(endpoint: Endpoint, model: Served, mode: Mode) -> dict[str, str]:
    found = {MODEL_ANNOTATION: model.model_id}
    if mode is Mode.KNATIVE and not endpoint.settings.min_replicas:
        # A candidate that nobody asked yet must still have a pod when it is looked at.
        minutes = min(60, math.ceil(endpoint.settings.canary.minutes) + 5)
        found["autoscaling.knative.dev/scale-to-zero-pod-retention-period"] = f"{minutes}m"
        # Where Knative allows none at first, KServe asks for none: nobody could look at it.
        found["autoscaling.knative.dev/initial-scale"] = "1"
    return found


def canary_replicas(endpoint: Endpoint, percent: int) -> int:
    """Return how many pods a canary of Standard mode gets for its share of the traffic.

    Args:
        endpoint: The InferenceService.
        percent: Its share.
    """
    return max(1, math.ceil(endpoint.settings.min_replicas * percent / 100))


def _canary_predictor(
    endpoint: Endpoint, candidate: Served, mode: Mode, replicas: int
) -> dict[str, Any]:
    # KServe's webhook refuses whatever scales a canary, and more replicas than the current model's.
    spec = predictor_spec(endpoint, candidate, mode)
    for name in ("maxReplicas", "scaleTarget", "scaleMetric"):
        spec.pop(name, None)
    if endpoint.triton:
        # Asked for by the schema here, and refused by the webhook in the current predictor.
        spec["model"]["name"] = CONTAINER
    return spec | {"name": candidate.name, "minReplicas": replicas}


def _container(
    endpoint: Endpoint, model: Served, mode: Mode
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    settings = endpoint.settings
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    env = [{"name": "HOME", "value": "/tmp"}]
    bundle = model.uri
    if mode is Mode.STANDARD_CANARY:
        # KServe takes spec.canary only beside a predictor whose model it knows, and tells two
        # models apart by this address; its storage initializer brings the bundle.
        env.append({"name": "STORAGE_URI", "value": endpoint.storage_uri(model.uri)})
        bundle = MODEL_DIR
    elif scheme_of(model.uri) == "file":
        endpoint.on_volume(model.uri)
        volumes.append(
            {
                "name": "lake",
                "persistentVolumeClaim": {"claimName": endpoint.claim, "readOnly": True},
            }
        )
        mounts.append({"name": "lake", "mountPath": endpoint.mount_path, "readOnly": True})
    if settings.secret:
        volumes.append(
            {"name": "secret", "secret": {"secretName": settings.secret, "optional": True}}
        )
        mounts.append({"name": "secret", "mountPath": SECRET_DIR, "readOnly": True})
    args = ["serve", "--model", bundle, "--name", endpoint.name, "--host", "0.0.0.0"]
    args += ["--port", str(HTTP_PORT), "--grpc-port", "-1", "--namespace", endpoint.namespace]
    args += settings.predictor.arguments
    container = {
        "name": CONTAINER,
        "image": settings.predictor_image,
        "command": ["visionloop"],
        "args": args,
        "env": env,
        "ports": [{"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "resources": _resources(endpoint),
        "securityContext": _SECURITY,
        "readinessProbe": _probe("/v2/health/ready", period=5, failures=3),
        # Alive as soon as it has started, however long its first model takes.
        "livenessProbe": _probe("/v2/health/live", period=10, failures=6, delay=30),
        "volumeMounts": mounts,
    }
    return container, volumes


def _probe(path: str, *, period: int, failures: int, delay: int = 0) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": HTTP_PORT, "scheme": "HTTP"},
        "initialDelaySeconds": delay,
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def _resources(endpoint: Endpoint) -> dict[str, dict[str, str]]:
    settings = endpoint.settings
    extra = (
        {settings.accelerator_type: str(settings.accelerator_count)}
        if settings.accelerator_type
        else {}
    )
    return {
        "requests": {**settings.resources.requests, **extra},
        "limits": {**settings.resources.limits, **extra},
    }
