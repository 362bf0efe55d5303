"""Kinds of flags of drift: one window differs from another, by much and not by chance."""

from __future__ import annotations

from visionloop.monitoring.kind import Kind

DRIFT_KINDS = (
    Kind(
        "confidence_drift",
        "The model is not as sure as it was",
        "drift",
        "warning",
        True,
        "The deployed model's confidences are distributed otherwise than in the reference.",
        "Look at the newest pictures; label some of them, and train on what is new.",
    ),
    Kind(
        "class_mix_drift",
        "The model answers other classes",
        "drift",
        "warning",
        True,
        "The deployed model predicts the classes in other shares than in the reference.",
        "Tell whether the world changed or the model errs: label some of the newest pictures.",
    ),
    Kind(
        "embedding_drift",
        "The pictures at the endpoint look different",
        "drift",
        "warning",
        True,
        "The embeddings of the pictures that the endpoint is asked about lie elsewhere than the "
        "reference's.",
        "Look at the pictures of the evidence; label some, and train on what is new.",
    ),
)
