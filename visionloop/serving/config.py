"""The section `serving` of `loop.yaml`: the endpoint, its events, and its InferenceService."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from visionloop import __version__
from visionloop.serving.collector_config import CollectorConfig
from visionloop.value_forms import (
    AcceleratorType,
    Form,
    Image,
    Label,
    Name,
    Quantity,
    StorageUri,
    Toleration,
)

# What Go's net/http makes of a header's name: the logger compares with that form only.
_CANONICAL = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~][a-z0-9!#$%&'*+.^_`|~]*(-[A-Z0-9][a-z0-9]*)*")
_PROVIDER = re.compile(r"\w+(:\w+=[^,=\s]+(,\w+=[^,=\s]+)*)?")
_INTERVAL = re.compile(r"(?=.*[1-9])([0-9]+(\.[0-9]+)?(ms|s|m))+")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoggerConfig(_Section):
    """Where KServe's logger sends requests and responses."""

    enabled: bool = Field(
        True, description="log at all; without events nothing is harvested of this endpoint"
    )
    url: Annotated[
        str, Form(r"^(https?://.+)?$", "write an address, for example http://collector:8090")
    ] = Field(
        "",
        description="address of the collector; empty: "
        "http://visionloop-collector.<namespace>.svc.cluster.local:8090",
    )
    storage: Annotated[
        str,
        Form(
            r"^((s3|gs|abfs)://[^/]+(/.*)?)?$",
            "write a bucket and a prefix: gs://…, s3://… or abfs://…",
        ),
    ] = Field(
        "",
        description="bucket prefix that gets the events instead of a collector: gs://…, s3://… or "
        "abfs://… (KServe 0.17 and later)",
    )
    storage_key: str = Field(
        "",
        description="entry of KServe's Secret `storage-config` with the bucket's credentials; "
        "KServe asks for it with `storage`",
    )
    batch_size: int = Field(
        100,
        ge=50,
        description="events in one object of `storage`; one object for each event would hold "
        "inference up at a dozen requests a second",
    )
    batch_interval: str = Field(
        "5s",
        description="an object of `storage` is written after so long (500ms, 5s, 1m), full or not: "
        "without it the last events of a quiet hour would never be written",
    )
    metadata_headers: list[str] = Field(
        default_factory=lambda: ["X-Request-Id"],
        description="headers of a request that its events carry, written as in X-Request-Id",
    )

    @field_validator("metadata_headers")
    @classmethod
    def _canonical(cls, names: list[str]) -> list[str]:
        for name in names:
            if not _CANONICAL.fullmatch(name):
                right = "-".join(part.capitalize() for part in name.split("-"))
                raise ValueError(f"KServe's logger finds no header {name!r}: write {right!r}")
        return names

    @field_validator("batch_interval")
    @classmethod
    def _positive(cls, interval: str) -> str:
        if not _INTERVAL.fullmatch(interval):
            raise ValueError("give a time above 0 such as 500ms, 5s or 1m")
        return interval

    @model_validator(mode="after")
    def _one_sink(self) -> LoggerConfig:
        if self.url and self.storage:
            raise ValueError("`url` and `storage` name two sinks, KServe's logger has one")
        if self.storage and not self.storage_key:
            raise ValueError(
                "`storage` needs `storage_key`: KServe refuses a storage logger without one"
            )
        return self


class CanaryConfig(_Section):
    """How a new model is tried on part of the traffic before it takes all of it."""

    percent: int = Field(10, ge=1, le=99, description="share of the traffic that it gets, percent")
    minutes: float = Field(
        10.0,
        ge=0,
        le=1440,
        description="how long it is tried; 0: it takes all traffic once it answers a known image "
        "rightly",
    )
    sample_seconds: float = Field(
        15.0, gt=0, description="the endpoints' metrics are read this often while it is tried"
    )
    min_requests: int = Field(
        50,
        ge=1,
        description="requests of either model, and confidences of either, below which a rate or a "
        "mean is not judged",
    )
    max_error_increase: float = Field(
        0.01,
        ge=0,
        le=1,
        description="it is rolled back when its rate of server errors exceeds the current model's "
        "by more than this and chance does not explain it",
    )
    max_confidence_drop: float = Field(
        0.1,
        ge=0,
        le=1,
        description="it is rolled back when its mean confidence lies below the current model's by "
        "more than this and chance does not explain it",
    )
    too_few: Literal["promote", "roll_back"] = Field(
        "promote",
        description="what happens when it answered fewer than `min_requests` without one error: "
        "`promote`, since it passed its gate and the known image, or `roll_back`",
    )
    no_split: Literal["promote", "roll_back"] = Field(
        "roll_back",
        description="what happens when the current model is asked and it is not, far below its "
        "`percent`: the cluster does not split the traffic, so that it was not tried; `promote` "
        "where such clusters shall rely on the gate and the known image",
    )


class ResourcesConfig(_Section):
    """What the predictor's container asks for, and may use at most."""

    requests: dict[str, Quantity] = Field(
        default_factory=lambda: {"cpu": "500m", "memory": "1Gi"},
        description="what a node must have free for it",
    )
    limits: dict[str, Quantity] = Field(
        default_factory=lambda: {"cpu": "2", "memory": "2Gi"}, description="what it may use"
    )


class PredictorConfig(_Section):
    """How our predictor works in its pods; the options of `visionloop serve`."""

    providers: list[str] = Field(
        default_factory=list,
        description="ONNX Runtime's execution providers, with options if any, such as CUDA, "
        "TensorRT:trt_fp16_enable=1 or OpenVINO:device_type=CPU; the image must have them, and one "
        "that does not start is an error; empty: a GPU that the pod was given, else the CPU",
    )
    max_batch: int = Field(
        16,
        ge=1,
        description="pictures of several requests that go through the network at once; 1: none, "
        "for a network with a fixed batch",
    )
    max_delay_ms: float = Field(
        2.0,
        ge=0,
        description="longest wait for requests that are being decoded, milliseconds; a request "
        "that is alone waits for none",
    )
    drain_s: float = Field(
        5.0,
        ge=0,
        le=20,
        description="seconds that a pod which is to end goes on answering, not ready any more, "
        "until nobody sends it requests; then it finishes what is under way",
    )

    @field_validator("providers")
    @classmethod
    def _forms(cls, providers: list[str]) -> list[str]:
        for one in providers:
            if not _PROVIDER.fullmatch(one):
                raise ValueError(
                    f"{one!r} is no execution provider: write a name, and options as in "
                    "OpenVINO:device_type=CPU,num_streams=1"
                )
        return providers

    @property
    def arguments(self) -> list[str]:
        """Options of `visionloop serve`; those that are as by default are left out."""
        given = [part for one in self.providers for part in ("--provider", one)]
        if self.max_batch != PredictorConfig.model_fields["max_batch"].default:
            given += ["--max-batch", str(self.max_batch)]
        if self.max_delay_ms != PredictorConfig.model_fields["max_delay_ms"].default:
            given += ["--max-delay-ms", f"{self.max_delay_ms:g}"]
        return [*given, "--drain-s", f"{self.drain_s:g}"]

    @property
    def termination_s(self) -> int:
        """Seconds that a pod needs to end: after it drained, 20 for requests and 4 to close."""
        return math.ceil(self.drain_s) + 25


class KServeConfig(_Section):
    """The InferenceService that a model is published to, and how a new model gets there."""

    namespace: Label = Field(
        "",
        description="its namespace; empty: that of the task's pod, outside one `cluster.namespace`",
    )
    mode: Literal["auto", "Knative", "Standard"] = Field(
        "auto",
        description="KServe's deployment mode; auto: that of the InferenceService that is there, "
        "else Knative where the cluster has it, else Standard",
    )
    runtime: Literal["visionloop", "triton"] = Field(
        "visionloop",
        description="visionloop: our predictor, which takes pictures and tensors; triton: NVIDIA "
        "Triton, which takes tensors only",
    )
    triton_runtime: Name = Field(
        "kserve-tritonserver", description="the ServingRuntime that runs Triton"
    )
    image: Image = Field(
        "",
        description="image of our predictor; empty: the release's slim one, or, where its pods get "
        "an accelerator, the release's large one, which can use it",
    )
    service_account: Name = Field(
        "", description="its pods' service account, which may read the lake"
    )
    secret: Name = Field(
        "visionloop",
        description="Secret that is mounted where there is one; empty: none is",
    )
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="of the predictor's container"
    )
    accelerator_type: AcceleratorType = Field(
        "", description="for example nvidia.com/gpu; empty: no GPU"
    )
    accelerator_count: int = Field(1, ge=1, description="accelerators a pod")
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="labels of the nodes that serve"
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, description="tolerations of those nodes' taints"
    )
    min_replicas: int = Field(
        1, ge=0, description="pods at least; 0 scales to zero, which only Knative can"
    )
    max_replicas: int = Field(3, ge=1, description="pods at most")
    scale_target: int = Field(
        0, ge=0, description="what one pod shall carry of `scale_metric`; 0: KServe's default"
    )
    scale_metric: Literal["", "cpu", "memory", "concurrency", "rps"] = Field(
        "", description="what is scaled by; empty: KServe's default (cpu, in Knative concurrency)"
    )
    timeout_s: float = Field(
        600.0, gt=0, description="seconds until a new model must be ready and loaded"
    )
    unschedulable_s: float = Field(
        0.0,
        ge=0,
        description="seconds that a pod may wait for a node: as long as a node pool takes that "
        "starts from nothing. Beyond them, also with 0, it waits while the cluster says that it "
        "makes a node for the pod; without that a publish fails",
    )
    smoke_image: StorageUri = Field(
        "",
        description="picture that the new model must answer as its ONNX file does; empty: one of "
        "the lake's holdout, or made-up pixels where there is none",
    )
    logger: LoggerConfig = Field(
        default_factory=LoggerConfig, description="where its requests and responses are logged"
    )
    canary: CanaryConfig = Field(
        default_factory=CanaryConfig, description="how a new model is tried"
    )
    predictor: PredictorConfig = Field(
        default_factory=PredictorConfig, description="how our predictor works in its pods"
    )

    @property
    def predictor_image(self) -> str:
        """Image of our predictor: of the release's two, the slim one can use no accelerator."""
        release = f"ghcr.io/visionloop/visionloop:{__version__}"
        return self.image or (release if self.accelerator_type else f"{release}-cpu")

    @model_validator(mode="after")
    def _replicas(self) -> KServeConfig:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"`min_replicas` {self.min_replicas} is more than `max_replicas` "
                f"{self.max_replicas}"
            )
        if self.mode == "Standard" and not self.min_replicas:
            raise ValueError("`min_replicas: 0` scales to zero, which `mode: Standard` cannot")
        if self.mode == "Standard" and self.scale_metric in ("concurrency", "rps"):
            raise ValueError(f"`scale_metric: {self.scale_metric}` is Knative's alone")
        if self.mode == "Knative" and self.scale_metric in ("cpu", "memory"):
            raise ValueError(f"`scale_metric: {self.scale_metric}` is refused in Knative mode")
        return self


class ServingConfig(_Section):
    """The endpoint."""

    endpoint: Annotated[
        str,
        Form(
            r"^([a-z]([a-z0-9-]{0,61}[a-z0-9])?)?$",
            "write lower-case letters, digits and -, a letter first, for example clothing",
        ),
    ] = Field(
        "",
        description="its name; empty: the loop's name. With `kserve` at most 36 characters: "
        "lower-case letters, digits and -",
    )
    url: str = Field(
        "",
        description="address of the predictor, as http://127.0.0.1:8080: publishing waits until "
        "it answers with the new model; empty: only the pointer is moved",
    )
    timeout_s: float = Field(60.0, gt=0, description="seconds to wait for the endpoint")
    events: StorageUri = Field(
        "", description="where the logged events lie; empty: the lake's own `events` folder"
    )
    pending_hours: float = Field(
        0.25,
        gt=0,
        description="a request without a response (or the reverse) waits so long for its "
        "counterpart before it is counted as an orphan; one that comes later still is paired",
    )
    collector: CollectorConfig = Field(
        default_factory=CollectorConfig, description="the sink of the logged events"
    )
    kserve: KServeConfig | None = Field(
        None,
        description="the InferenceService that models are published to; without it, `visionloop "
        "serve` follows the pointer",
    )

    @model_validator(mode="after")
    def _one_endpoint(self) -> ServingConfig:
        if self.kserve is not None and self.url:
            raise ValueError("`url` is for an endpoint without `kserve`: name one of the two")
        return self
