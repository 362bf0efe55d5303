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
    Kind(
        "pixel_drift",
        "The newest pictures of a source look different",
        "drift",
        "warning",
        True,
        "Brightness, contrast, sharpness, saturation or entropy of what a source brought last are "
        "distributed otherwise than in what it brought before.",
        "Look at the pictures of the evidence: was a camera moved, soiled or set otherwise? If the "
        "change is to stay, label some of them and train.",
    ),
    Kind(
        "input_embedding_drift",
        "The newest pictures of a source show something else",
        "drift",
        "warning",
        True,
        "The embeddings of what a source brought last lie elsewhere than those of what it brought "
        "before.",
        "Look at the pictures of the evidence; label some of them, and train on what is new.",
    ),
    Kind(
        "prediction_drift",
        "The model names other classes in the newest pictures",
        "drift",
        "warning",
        True,
        "The model predicts the classes of what a source brought last in other shares than of what "
        "it brought before.",
        "Tell whether the world changed or the model errs: label some of the newest pictures.",
    ),
    Kind(
        "source_drift",
        "A new source differs from what the model learned",
        "drift",
        "warning",
        True,
        "The model in service never learned from this source, and its pictures differ from those "
        "of the sources that it learned from.",
        "Label pictures of this source before the model's answers about them are relied upon.",
    ),
)
