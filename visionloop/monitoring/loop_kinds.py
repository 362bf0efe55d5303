"""Kinds of flags of labels, models, stages and the pool."""

from __future__ import annotations

from visionloop.monitoring.kind import Kind

LOOP_KINDS = (
    Kind(
        "label_suspect",
        "Labels in doubt",
        "labels",
        "warning",
        True,
        "Models that did not train on a sample find another class likelier than its label.",
        "Look at the picture. With `labeling.trust.relabel: activelab` people are asked again.",
    ),
    Kind(
        "label_conflict",
        "Labels that people disagree about",
        "labels",
        "warning",
        False,
        "People, or two imports, gave one sample different labels.",
        "Ask one more person, or settle it in the labelling tool.",
    ),
    Kind(
        "auto_labels_withdrawn",
        "Automatic labels taken back",
        "labels",
        "warning",
        False,
        "People's answers to a random share showed that a model's automatic labels are wrong too "
        "often; they were taken back.",
        "Nothing at once: people are asked instead, and later models are tried anew.",
    ),
)
