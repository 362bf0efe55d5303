"""Inference: preprocessing, models on ONNX Runtime, and embeddings that need no model yet."""

from __future__ import annotations

from visionloop.inference.model import ModelCard, OnnxModel
from visionloop.inference.preprocessing import to_batch, to_input

__all__ = ["ModelCard", "OnnxModel", "to_batch", "to_input"]
