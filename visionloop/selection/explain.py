"""Why a sample was picked, in one short sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping

_SAYINGS = {
    "coverage": "typical of a group of images with few labels",
    "typicality": "typical of many other images",
    "diversity": "unlike what is labelled or chosen already",
    "badge": "its label would teach the model something that the others of the batch do not",
    "similarity": "like the query images",
    "margin": "the model hesitates between two classes",
    "least_confidence": "the model is not confident of its best class",
    "entropy": "the model's probabilities are spread over many classes",
    "deployed_margin": "the deployed model hesitated between two classes on it",
    "deployed_least_confidence": "the deployed model was not confident on it",
    "deployed_entropy": "the deployed model's probabilities were spread out on it",
    "similar_deployed_margin": "the deployed model hesitated between two classes on similar images",
    "similar_deployed_least_confidence": "the deployed model was not confident on similar images",
    "similar_deployed_entropy": (
        "the deployed model's probabilities were spread out on similar images"
    ),
    "vote_entropy": "the last models vote for different classes",
    "consensus_divergence": "the last models' probabilities differ",
    "bald": "the model's passes with dropout disagree on it",
    "object_frequency": "many objects were found in it",
    "objectness_least_confidence": "even its clearest object is not certain",
    "probcover": "close to many images that nothing labelled is close to",
    "random": "drawn at random",
}
_TRAITS = {"coverage", "typicality", "diversity", "similarity", "probcover", "random"}


def explain(objectives: Mapping[str, float | None], *, arm: str = "selected") -> str:
    """Return one sentence that says why a sample was picked.

    Args:
        objectives: Each objective's value at the step of the pick, as in the table `selections`;
            None where it was not known.
        arm: `selected`, `random` or `unknown`.

    Returns:
        For example ``Picked because the model hesitates between two classes (margin 0.93).``, the
        highest values first.
    """
    if arm == "random":
        return "Drawn at random, so that estimates stay unbiased."
    if arm == "unknown":
        return "The detector found nothing in it: it may have missed every object."
    ranked = _ranked(objectives)
    if not ranked:
        return "Nothing was known of it that sets it apart; the smallest sample id came first."
    # A second reason is told when it is a strong one.
    reasons = [_say(name) for name, value in ranked[:2] if value >= 0.5] or [_say(ranked[0][0])]
    numbers = ", ".join(f"{_label(name)} {value:.2f}" for name, value in ranked[:3])
    return f"Picked because {' and '.join(reasons)} ({numbers})."


def strongest(objectives: Mapping[str, float | None]) -> str:
    """Return the name of the objective that an explanation would put first; "" without one."""
    ranked = _ranked(objectives)
    return ranked[0][0] if ranked else ""


def _ranked(objectives: Mapping[str, float | None]) -> list[tuple[str, float]]:
    known = [(name, value) for name, value in objectives.items() if value is not None]
    return sorted(known, key=lambda item: (-item[1], item[0]))


def _say(name: str) -> str:
    if name.rstrip("_23456789") in _SAYINGS:
        name = name.rstrip("_23456789")
        return "it is " + _SAYINGS[name] if _is_trait(name) else _SAYINGS[name]
    if name.startswith("balance_"):
        return f"its value of {name.removeprefix('balance_')} is missing from what was chosen"
    return f"its value of {name} is high"


def _is_trait(name: str) -> bool:
    return name in _TRAITS


def _label(name: str) -> str:
    return name.replace("_", " ")
