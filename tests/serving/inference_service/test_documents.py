"""The documents of an InferenceService, held to KServe's schemas and to what its webhooks ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.schemas import invalid, read_crds, schema_of, untyped
from visionloop.components.image import RELEASE
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.serving.config import KServeConfig
from visionloop.serving.inference_service.documents import service_document
from visionloop.serving.inference_service.endpoint import Endpoint, Mode, Served

OLD = Served("m0001-0123456789", "gs://bucket/lake/loop/models/m0001-0123456789")
NEW = Served("m0002-abcdef0123", "gs://bucket/lake/loop/models/m0002-abcdef0123")
EVERYTHING: dict[str, Any] = {
    "service_account": "visionloop-predictor",
    "image": "registry.example/predictor:1",
    "accelerator_type": "nvidia.com/gpu",
    "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "min_replicas": 2,
    "max_replicas": 5,
    "scale_target": 70,
    "scale_metric": "cpu",
}


def endpoint(**settings: Any) -> Endpoint:
    config = KServeConfig.model_validate(settings)
    return Endpoint("clothing", "models", "clothing", config, "lake", "/mnt/lake")


def variants() -> list[Any]:
    found = []
    for runtime in ("visionloop", "triton"):
        for extent, settings in (("least", {}), ("everything", EVERYTHING)):
            held = endpoint(runtime=runtime, **settings)
            for mode in Mode:
                documents = {"whole": service_document(held, OLD, mode)}
                if mode is Mode.KNATIVE:
                    documents["canary"] = service_document(held, NEW, mode, percent=10)
                if mode is Mode.STANDARD_CANARY:
                    documents["canary"] = service_document(
                        held, OLD, mode, name="", percent=10, candidate=NEW
                    )
                found += [
                    pytest.param(mode, document, id=f"{runtime}-{extent}-{mode.name}-{what}")
                    for what, document in documents.items()
                ]
    batched = endpoint(logger={"storage": "gs://events/a/b", "storage_key": "gcs"})
    found.append(
        pytest.param(
            Mode.STANDARD_CANARY,
            service_document(batched, OLD, Mode.STANDARD_CANARY),
            id="logged-to-a-bucket",
        )
    )
    return found


def problems(document: dict[str, Any], crds: Path) -> list[Any]:
    """What an API server with strict field validation finds wrong."""
    (crd,) = [c for c in read_crds(crds) if c["spec"]["names"]["kind"] == "InferenceService"]
    schema = schema_of(crd, "v1beta1")
    # Over JSON, as they travel.
    travelled = json.loads(json.dumps(document))
    return [*untyped(travelled, schema), *invalid(travelled, schema)]


@pytest.mark.parametrize("version", ["v0.16.0", "v0.20.0"])
@pytest.mark.parametrize(("mode", "document"), variants())
def test_every_document_is_strictly_valid_where_it_is_applied(
    shared: Path, version: str, mode: Mode, document: dict[str, Any]
) -> None:
    newer_only = mode is Mode.STANDARD_CANARY
    found = problems(document, shared / "crds" / f"kserve-{version}")
    if version == "v0.16.0" and newer_only and ("canary" in document["spec"] or found):
        assert found, "what 0.16 does not know must not be taken for valid"
        return
    assert found == []


def test_the_check_would_find_a_mistyped_field(shared: Path) -> None:
    document = service_document(endpoint(), OLD, Mode.KNATIVE)
    document["spec"]["predictor"]["minReplica"] = 1
    assert problems(document, shared / "crds" / "kserve-v0.20.0") == [
        ".spec.predictor.minReplica: field not declared in schema"
    ]


def container(document: dict[str, Any]) -> dict[str, Any]:
    (held,) = document["spec"]["predictor"]["containers"]
    found: dict[str, Any] = held
    return found


def test_a_predictor_is_pinned_to_its_bundle_and_names_its_model_in_every_event() -> None:
    document = service_document(endpoint(), OLD, Mode.KNATIVE)
    args = container(document)["args"]
    assert args[:3] == ["serve", "--model", OLD.uri] and "--name" in args
    predictor = document["spec"]["predictor"]
    assert predictor["annotations"]["visionloop.dev/model-id"] == OLD.model_id
    assert predictor["logger"] == {
        "mode": "all",
        "metadataAnnotations": ["visionloop.dev/model-id"],
        "metadataHeaders": ["X-Request-Id"],
        "url": "http://visionloop-collector.models.svc.cluster.local:8090",
    }


def test_its_arguments_are_those_of_the_command() -> None:
    from visionloop.cli import serve
    from visionloop.cli.parser import Parser

    parser = Parser()
    serve.add_arguments(parser)
    _, *args = container(service_document(endpoint(), OLD, Mode.KNATIVE))["args"]
    parsed = parser.parse_args(args)
    assert (parsed.model, parsed.name, parsed.host) == (OLD.uri, "clothing", "0.0.0.0")
    assert (parsed.port, parsed.grpc_port, parsed.namespace) == (8080, -1, "models")


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("drain_s", [0, 5, 12.5])
def test_a_pod_has_the_time_that_its_predictor_takes_to_end(mode: Mode, drain_s: float) -> None:
    from visionloop.serving.ending import CLOSING_SECONDS
    from visionloop.serving.predictor import Limits

    document = service_document(endpoint(predictor={"drain_s": drain_s}), OLD, mode)
    period = document["spec"]["predictor"].get("terminationGracePeriodSeconds")
    if mode is Mode.KNATIVE:  # which refuses the field
        assert period is None
    else:
        assert period > drain_s + Limits().grace_s + CLOSING_SECONDS
    triton = service_document(endpoint(runtime="triton"), OLD, mode)
    assert "terminationGracePeriodSeconds" not in triton["spec"]["predictor"]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_predictor_keeps_to_the_pod_security_standard_restricted(mode: Mode) -> None:
    document = service_document(endpoint(), OLD, mode)
    context = container(document)["securityContext"]
    assert context["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]} and context["readOnlyRootFilesystem"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    kinds = {next(k for k in v if k != "name") for v in document["spec"]["predictor"]["volumes"]}
    assert kinds <= {"emptyDir", "secret", "persistentVolumeClaim"}
    secret = next(v for v in document["spec"]["predictor"]["volumes"] if "secret" in v)
    assert secret["secret"]["optional"] is True


def test_a_canary_of_standard_mode_is_what_kserves_webhook_takes() -> None:
    # pkg/apis/serving/v1beta1/inference_service_validation.go of KServe 0.20, validateCanarySpecs
    document = service_document(
        endpoint(**EVERYTHING), OLD, Mode.STANDARD_CANARY, name="m1", percent=10, candidate=NEW
    )
    annotations = document["metadata"]["annotations"]
    assert annotations == {"serving.kserve.io/deploymentMode": "Standard"}
    (canary,) = document["spec"]["canary"]
    predictor, stable = canary["predictor"], document["spec"]["predictor"]
    assert canary["trafficPercent"] == 10
    assert predictor["name"] == NEW.model_id and stable["name"] == "m1"
    assert not {"maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"} & set(predictor)
    assert 1 <= predictor["minReplicas"] <= stable["minReplicas"]
    env = {e["name"]: e["value"] for e in container(document)["env"]}
    assert env["STORAGE_URI"] == OLD.uri
    assert container(document)["args"][2] == "/mnt/models"


def test_a_dark_canary_has_a_pod_to_be_looked_at() -> None:
    document = service_document(
        endpoint(), OLD, Mode.STANDARD_CANARY, name="", percent=0, candidate=NEW
    )
    assert document["spec"]["canary"][0]["predictor"]["minReplicas"] == 1
    assert "name" not in document["spec"]["predictor"]


def test_what_scales_to_zero_begins_with_a_pod_and_is_the_same_once_promoted() -> None:
    made = [
        service_document(endpoint(min_replicas=0), OLD, Mode.KNATIVE, percent=percent)
        for percent in (10, None)
    ]
    tried, promoted = (document["spec"]["predictor"] for document in made)
    assert tried["annotations"]["autoscaling.knative.dev/initial-scale"] == "1"
    assert tried.pop("canaryTrafficPercent") == 10 and tried == promoted


def test_a_canary_may_be_given_as_many_pods_as_the_current_model() -> None:
    document = service_document(
        endpoint(min_replicas=5, max_replicas=5),
        OLD,
        Mode.STANDARD_CANARY,
        percent=10,
        candidate=NEW,
        replicas=5,
    )
    assert document["spec"]["canary"][0]["predictor"]["minReplicas"] == 5


def test_a_lake_on_a_volume_is_mounted_or_brought_by_kserve() -> None:
    there = Served("m1", "file:///mnt/lake/lake/loop/models/m1")
    document = service_document(endpoint(), there, Mode.STANDARD)
    claims = [v["persistentVolumeClaim"] for v in document["spec"]["predictor"]["volumes"] if
              "persistentVolumeClaim" in v]  # fmt: skip
    assert claims == [{"claimName": "lake", "readOnly": True}]
    mounts = {m["mountPath"]: m for m in container(document)["volumeMounts"]}
    assert mounts["/mnt/lake"]["readOnly"] and container(document)["args"][2] == there.uri
    document = service_document(endpoint(), there, Mode.STANDARD_CANARY)
    env = {e["name"]: e["value"] for e in container(document)["env"]}
    assert env["STORAGE_URI"] == "pvc://lake/lake/loop/models/m1"


@pytest.mark.parametrize("mode", list(Mode))
def test_a_lake_on_a_disk_that_no_pod_has_is_refused(mode: Mode) -> None:
    with pytest.raises(InputError, match=r"cannot read the model.*cluster\.volume"):
        service_document(endpoint(), Served("m1", "file:///home/me/lake/models/m1"), mode)


def test_triton_gets_the_parent_of_the_models_folder_and_the_v2_protocol() -> None:
    document = service_document(endpoint(runtime="triton"), OLD, Mode.KNATIVE)
    model = document["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"{OLD.uri}/triton-clothing"
    assert (model["protocolVersion"], model["modelFormat"]) == ("v2", {"name": "onnx"})
    assert model["runtime"] == "kserve-tritonserver" and "name" not in model


def test_a_document_depends_on_nothing_but_what_is_served() -> None:
    made = [json.dumps(service_document(endpoint(), OLD, Mode.KNATIVE)) for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("{logger: {storage: 'gs://b/p', storage_key: k, batch_size: 1}}", "batch_size.*50"),
        ("{logger: {storage: 'gs://b/p', storage_key: k, batch_interval: 0s}}", "above 0"),
        ("{logger: {storage: 'gs://b/p'}}", "storage_key"),
        ("{logger: {storage: 'gs://b/p', storage_key: k, url: 'http://c'}}", "two sinks"),
        ("{logger: {metadata_headers: [x-request-id]}}", "write 'X-Request-Id'"),
        ("{min_replicas: 4, max_replicas: 3}", "more than `max_replicas`"),
        ("{mode: Standard, min_replicas: 0}", "scales to zero"),
        ("{mode: Serverless}", "Knative"),
        ("{mode: Knative, scale_metric: cpu}", "refused in Knative mode"),
        ("{canary: {percent: 100}}", "percent"),
        ("{canary: {percents: 5}}", "did you mean `percent`"),
        ("{resources: {limits: {memory: 2 GB}}}", "memory"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_config(f"{{lake: x, serving: {{kserve: {settings}}}}}\n")


def test_a_name_that_kubernetes_refuses_is_refused_with_the_field_to_change() -> None:
    with pytest.raises(InputError, match=r"My_loop.*Set serving\.endpoint"):
        Endpoint("My_loop", "models", "My_loop", KServeConfig())


def test_a_predictor_with_an_accelerator_gets_the_image_that_can_use_it() -> None:
    def image(**settings: Any) -> str:
        document = service_document(endpoint(**settings), OLD, Mode.STANDARD)
        return str(document["spec"]["predictor"]["containers"][0]["image"])

    assert image() == f"{RELEASE}-cpu"
    assert image(accelerator_type="nvidia.com/gpu") == RELEASE
    for accelerator in ("", "nvidia.com/gpu"):
        assert image(image="mine:1", accelerator_type=accelerator) == "mine:1"
