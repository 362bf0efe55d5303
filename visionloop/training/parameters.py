"""The `training` section of the loop's configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """How a model is trained; every field but `control_arm` takes part in the model's id."""

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
    weights: str = Field(
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
