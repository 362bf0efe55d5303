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
    Kind(
        "confident_disagreement",
        "The model in service contradicts a label",
        "labels",
        "warning",
        True,
        "The model in service is surer of another class than it is with nearly all labels that are "
        "right.",
        "Look at the picture: either the label is wrong, or the model is wrong and sure of it.",
    ),
    Kind(
        "stale_label",
        "Labels that time has overtaken",
        "labels",
        "info",
        True,
        "A label is old, or older than the list of classes, and the model in service now answers "
        "another class.",
        "Look at the picture, and label it anew where another class fits better today.",
    ),
    Kind(
        "pool_exhausted",
        "Little is left to choose from",
        "loop",
        "warning",
        True,
        "What is left to be selected lasts for fewer rounds than it should.",
        "Bring in more pictures, add a source, or lower the budget of a round.",
    ),
    Kind(
        "slow_stage",
        "A stage is slower than it was",
        "loop",
        "info",
        True,
        "The newest run of a stage took far longer for its amount of work than its runs before.",
        "Look at the machine, the network and the storage that it ran on, and at what changed.",
    ),
    Kind(
        "failed_stage",
        "A stage failed",
        "loop",
        "error",
        True,
        "The last run of a stage failed; it has not succeeded since.",
        "The evidence says what was wrong and what to do. The next run goes on where it stopped.",
    ),
)
