"""The `training` section of the loop's configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from visionloop.value_forms import Image, StorageUri

# Where a training runs.
RUNNERS = ("pod", "trainjob")
# What decides where and with what else a model is trained, and not which model comes out.
_NOT_THE_MODEL = {"control_arm", "checkpoint_steps", "runner", "processes", "trainjob"}


class TrainJobConfig(BaseModel):
    """The Kubeflow Trainer job of a training with `runner: trainjob`.

    Accelerators, cores, memory, node pool and queue of each pod are those of the section `cluster`;
    Secrets, volumes, environment and service account those of the pod of the task `train`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: int = Field(
        1, ge=1, le=512, description="pods that train together, each with its accelerators"
    )
    runtime: str = Field(
        "torch-distributed", min_length=1, description="training runtime that the job refers to"
    )
    runtime_kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = Field(
        "ClusterTrainingRuntime", description="TrainingRuntime: one of the job's own namespace"
    )
    image: Image = Field(
        "", description="image of the job's pods; empty: that of the pod of the task `train`"
    )
    start_minutes: float = Field(
        30.0,
        gt=0,
        description="the job fails when its pods have not started so long after it was admitted; "
        "waiting for a queue does not count",
    )


class TrainingConfig(BaseModel):
    """How a model is trained.

    Every field takes part in the model's id but those that say where it is trained: `control_arm`,
    `checkpoint_steps`, `runner`, `processes` and `trainjob`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str = Field(
        "small_cnn",
        description="small_cnn (trains in seconds on a CPU), or the name of a torchvision "
        "classification network such as resnet18 or mobilenet_v3_small",
    )
    image_size: int = Field(
        32, ge=8, le=1024, description="side of the square that the network sees, in pixels"
    )
    epochs: int = Field(30, ge=1, le=10_000, description="passes over the training set")
    min_updates: int = Field(
        200,
        ge=0,
        description="a small training set is passed over again until there were at least so many "
        "optimiser steps; 0 counts epochs only",
    )
    batch_size: int = Field(32, ge=2, le=65_536, description="images an optimiser step")
    learning_rate: float = Field(0.003, gt=0, le=10, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.05, ge=0, le=10, description="AdamW's decoupled weight decay")
    label_smoothing: float = Field(
        0.05, ge=0, lt=1, description="share of each target that is spread over all classes"
    )
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    weights: StorageUri = Field(
        "",
        description="state dict to start from (a .pt or .pth file: path, file:// or gs://), or "
        "'torchvision' for the architecture's published weights (needs a network); empty: random",
    )
    augment: bool = Field(
        True, description="train on slightly shifted, rotated, scaled and re-lit copies"
    )
    flip: bool = Field(
        False,
        description="also train on mirrored images: right for most photographs, wrong for digits, "
        "text and whatever has a left and a right",
    )
    calibrate: bool = Field(
        True,
        description="fit a temperature on a held-out part of the training labels, so that a "
        "probability of .8 is right eight times in ten",
    )
    control_arm: bool = Field(
        False,
        description="also train a second model on as many random picks, whose labels an oracle "
        "gives; it shows what selection is worth and never writes labels",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: the GPU where there is one, otherwise the CPU"
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="CPU threads of PyTorch; 0: one for small_cnn, otherwise as many as cores, at "
        "most 8. The number is part of what makes two trainings equal",
    )
    checkpoint_steps: int = Field(
        500,
        ge=0,
        description="optimiser steps between two checkpoints in the lake, from which a training "
        "that was interrupted goes on to the same weights; 0: none",
    )
    runner: Literal["pod", "trainjob"] = Field(
        "pod",
        description="pod: in the pod of the task `train`, on all of its GPUs; trainjob: as a "
        "Kubeflow Trainer TrainJob, over as many nodes as `trainjob.nodes`",
    )
    processes: int = Field(
        0,
        ge=0,
        le=64,
        description="processes that share each batch, on each node; 0: one for each GPU, or one",
    )
    trainjob: TrainJobConfig = Field(
        default_factory=TrainJobConfig,
        description="the job of `runner: trainjob`",
    )

    def identity(self) -> dict[str, Any]:
        """Return what decides which model comes out, as JSON can hold it."""
        return self.model_dump(mode="json", exclude=_NOT_THE_MODEL)
