"""One `loop.yaml`: what a team decides about its loop, checked field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from visionloop.cluster_config import ClusterConfig
from visionloop.documents import absolute_under, read_document
from visionloop.errors import InputError
from visionloop.labeling.config import LabelingConfig
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.notify_config import NotifyConfig
from visionloop.monitoring.watch_config import WatchConfig
from visionloop.redaction import fields_with_secrets
from visionloop.selection.config import SelectionConfig
from visionloop.serving.config import ServingConfig
from visionloop.source_config import SourceConfig as SourceConfig
from visionloop.training.parameters import TrainingConfig
from visionloop.validation import validate
from visionloop.value_forms import INFERENCE_SERVICE, Form, StorageUri


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HoldoutConfig(_Section):
    """The part of the samples that every model is judged on, drawn until it is large enough."""

    fraction: float = Field(
        0.2, ge=0, lt=1, description="share of all samples, while the holdout is drawn"
    )
    min_samples: int = Field(
        50,
        ge=1,
        description="each intake adds to the holdout until it has so many samples; then it is "
        "frozen, and accuracies of different rounds are comparable",
    )
    max_samples: int = Field(
        200, ge=1, description="no more than so many: people label all of them, most in round 0"
    )
    group_by: str = Field(
        "",
        description="metadata key whose samples stay together (camera, patient, video)",
    )
    seed: int = Field(0, ge=0, description="seed of the choice")
    copy_likeness: float = Field(
        0.94,
        ge=0,
        le=1,
        description="likeness of the pixels from which a sample counts as a copy of one in the "
        "holdout, and is reserved: nobody trains on it; 1: only groups are",
    )

    @model_validator(mode="after")
    def _least_is_no_more_than_most(self) -> HoldoutConfig:
        if self.max_samples < self.min_samples:
            raise ValueError(
                f"`max_samples` {self.max_samples} is less than `min_samples` {self.min_samples}: "
                "the holdout would never be large enough to be frozen"
            )
        return self


class EmbeddingConfig(_Section):
    """What a sample is embedded with before and beside the trained model."""

    weights: StorageUri = Field(
        "",
        description="an .onnx file, a .pt or .pth state dict (path, file:// or gs://), or "
        "`torchvision` for the architecture's published weights (needs a network); empty: the "
        "pixel descriptor, which needs none",
    )
    architecture: str = Field("resnet18", description="network of a state dict or of torchvision")
    image_size: int = Field(0, ge=0, le=1024, description="side in pixels; 0: the source's default")
    dimensions: int = Field(64, ge=2, le=1024, description="components of the pixel descriptor")


class InferenceConfig(_Section):
    """What the stage `infer` runs networks with on a processor; a space is the same with each."""

    runtime: Literal["auto", "openvino", "onnxruntime"] = Field(
        "auto",
        description="auto: ONNX Runtime on an NVIDIA GPU; on a processor OpenVINO where it is "
        "installed, and ONNX Runtime elsewhere, which the log says",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="auto: bfloat16 with OpenVINO on a processor that computes in it (AVX512_BF16, "
        "AMX), else float32. Each task compares its first 16 images with ONNX Runtime in float32, "
        "and does not use what differs: a cosine under .999, or a probability by more than .02",
    )


class GatesConfig(_Section):
    """What a candidate must reach on the holdout before it replaces the model in service."""

    min_accuracy: float = Field(0.0, ge=0, le=1, description="least accuracy on the holdout")
    max_drop: float = Field(
        0.01,
        ge=0,
        le=1,
        description="accuracy that a candidate may lose against the best model that was ever in "
        "service, measured on the same holdout samples under the same labels",
    )
    allow_unevaluated: bool = Field(
        False, description="publish a model even where the holdout has no labels to judge it by"
    )


class RoundsConfig(_Section):
    """How rounds are held."""

    lease_minutes: float = Field(
        30.0,
        gt=0,
        description="a run on another machine counts as alive so long after its last sign",
    )


class LoopConfig(_Section):
    """A loop: the whole of `loop.yaml`."""

    name: Annotated[
        str,
        Form(
            r"^[a-z0-9][a-z0-9_-]{0,62}$",
            "write lower-case letters, digits, - and _, at most 63, for example clothing",
        ),
    ] = Field(
        "default",
        description="the loop's name: the namespace of its tables in the lake",
    )
    task: Literal["classification"] = Field("classification", description="what is predicted")
    classes: list[str] = Field(
        default_factory=list,
        description="names of the classes, in the order of the probabilities; empty: those of the "
        "labels that are there when the first model is trained, then frozen. A class that comes "
        "later is added at the end; where classes were learned, all of them are named then",
    )
    lake: StorageUri = Field(description="root of the lake: a path, file://… or gs://…")
    catalog: str = Field(
        "",
        description="empty: SQLite in a file lake; or sqlite:///path?timeout=30 (seconds to wait "
        "for another process), or postgresql+psycopg2://user@host/db. An address with a password "
        "is refused: it belongs into VISIONLOOP_CATALOG, or a file that VISIONLOOP_CATALOG_FILE "
        "names",
    )
    sources: list[SourceConfig] = Field(default_factory=list, description="where images come from")
    holdout: HoldoutConfig = Field(
        default_factory=HoldoutConfig, description="what every model is judged on"
    )
    embedding: EmbeddingConfig = Field(
        default_factory=EmbeddingConfig, description="what makes images comparable"
    )
    inference: InferenceConfig = Field(
        default_factory=InferenceConfig, description="what samples are embedded and predicted with"
    )
    selection: SelectionConfig = Field(
        default_factory=SelectionConfig, description="which samples are worth a label"
    )
    labeling: LabelingConfig = Field(default_factory=LabelingConfig, description="who labels them")
    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="how a model is trained"
    )
    gates: GatesConfig = Field(default_factory=GatesConfig, description="what a model must reach")
    serving: ServingConfig = Field(
        default_factory=ServingConfig, description="the endpoint and its events"
    )
    monitoring: MonitoringConfig = Field(
        default_factory=MonitoringConfig, description="what counts as odd"
    )
    watch: WatchConfig = Field(
        default_factory=WatchConfig, description="when a round starts by itself"
    )
    notify: NotifyConfig = Field(
        default_factory=NotifyConfig, description="who is told of new flags and decisions"
    )
    rounds: RoundsConfig = Field(default_factory=RoundsConfig, description="how rounds are held")
    cluster: ClusterConfig = Field(
        default_factory=ClusterConfig, description="where tasks run on a cluster"
    )

    @field_validator("classes")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return names

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, data: Any) -> Any:
        for path in fields_with_secrets(data):
            instead = (
                "give the whole address in VISIONLOOP_CATALOG, or in a mounted file that "
                "VISIONLOOP_CATALOG_FILE names"
                if path == "catalog"
                else "give the address without it"
            )
            raise ValueError(
                f"`{path}` holds a password or token, and a configuration is read by many: "
                f"{instead}"
            )
        return data

    @model_validator(mode="after")
    def _control_arm_needs_an_oracle(self) -> LoopConfig:
        if self.training.control_arm and self.labeling.provider != "oracle":
            raise ValueError(
                "`training.control_arm` needs the labels of samples that nobody selected, which "
                "only `labeling.provider: oracle` can give"
            )
        return self

    @model_validator(mode="after")
    def _kserve_takes_the_name(self) -> LoopConfig:
        if self.serving.kserve is not None:
            try:
                INFERENCE_SERVICE.check(self.endpoint)
            except ValueError as error:
                raise ValueError(
                    f"an InferenceService cannot be called {self.endpoint!r}: {error}; set "
                    "`serving.endpoint` to such a name"
                ) from None
        return self

    @property
    def endpoint(self) -> str:
        """Name of the endpoint: its own, or the loop's."""
        return self.serving.endpoint or self.name

    def text(self) -> str:
        """Return the configuration as JSON text, as it is handed to a pipeline."""
        return json.dumps(self.model_dump(mode="json", by_alias=True, exclude_unset=True))


def load_config(source: str | Path, *, overrides: dict[str, Any] | None = None) -> LoopConfig:
    """Read a configuration.

    Args:
        source: Path or URI of a YAML file, or YAML or JSON text. Relative paths in a file are
            taken from the file's folder.
        overrides: Values by dotted path, for example ``{"selection.n_samples": 50}``.

    Raises:
        InputError: The file cannot be read, is not YAML, or a field is unknown or wrong.
    """
    if not str(source):
        raise InputError("no configuration", remedy="Give --config loop.yaml")
    data, where, folder = read_document(
        str(source), remedy="Give the path of a loop.yaml with --config"
    )
    if data is None:
        raise InputError("the configuration is empty", where=where, remedy="Set at least `lake:`")
    for path, value in (overrides or {}).items():
        _set(data, path.split("."), value)
    config = validate(LoopConfig, data, where=where)
    return _resolve_paths(config, folder) if folder else config


def _set(data: Any, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        if not isinstance(data, dict):
            return
        data = data.setdefault(part, {})
    if isinstance(data, dict):
        data[path[-1]] = value


def _resolve_paths(config: LoopConfig, folder: Path) -> LoopConfig:
    """Make the relative paths of a file absolute: its stages run in other folders."""

    def absolute(uri: str) -> str:
        return absolute_under(folder, uri)

    def labels(uri: str) -> str:
        return uri if uri in ("none", "folder", "source") else absolute(uri)

    def weights(uri: str) -> str:
        return uri if uri == "torchvision" else absolute(uri)

    data = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    data["lake"] = absolute(config.lake)
    if any(line.query for line in config.selection.strategies):
        selection = config.selection.with_files(absolute)
        data["selection"] = selection.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for section, name, resolve in (
        ("labeling", "labels", labels),
        ("embedding", "weights", weights),
        ("training", "weights", weights),
        ("serving", "events", absolute),
    ):
        if name in data.get(section, {}):
            data[section][name] = resolve(data[section][name])
    kserve = data.get("serving", {}).get("kserve") or {}
    if "smoke_image" in kserve:
        kserve["smoke_image"] = absolute(kserve["smoke_image"])
    for source in data.get("sources", []):
        source["uri"] = absolute(source["uri"])
        if "labels" in source:
            source["labels"] = labels(source["labels"])
        if "media" in source:
            source["media"] = absolute(source["media"])
        if source.get("video") and "frames" in source["video"]:
            source["video"]["frames"] = absolute(source["video"]["frames"])
    return LoopConfig.model_validate(data)
