"""Why a sample was picked, in one short sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping

from visionloop.selection.naming import NEGATIVE, RANGE, ZERO, parts_of
from visionloop.selection.objectives import FLOOR

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
# Why a sample is picked by a negative strength of the same.
_OPPOSITES = {
    "coverage": "not typical of a group of images with few labels",
    "typicality": "unlike most other images",
    "diversity": "like what is labelled or chosen already",
    "badge": "its label would teach the model little",
    "similarity": "unlike the query images",
    "margin": "the model does not hesitate between two classes",
    "least_confidence": "the model is confident of its best class",
    "entropy": "the model's probabilities lie on few classes",
    "deployed_margin": "the deployed model did not hesitate between two classes on it",
    "deployed_least_confidence": "the deployed model was confident on it",
    "deployed_entropy": "the deployed model's probabilities lay on few classes on it",
    "similar_deployed_margin": (
        "the deployed model did not hesitate between two classes on similar images"
    ),
    "similar_deployed_least_confidence": "the deployed model was confident on similar images",
    "similar_deployed_entropy": (
        "the deployed model's probabilities lay on few classes on similar images"
    ),
    "vote_entropy": "the last models vote for the same class",
    "consensus_divergence": "the last models' probabilities hardly differ",
    "bald": "the model's passes with dropout agree on it",
    "object_frequency": "few objects were found in it",
    "objectness_least_confidence": "its clearest object is certain",
    "probcover": "far from most images that nothing labelled is close to",
    "random": "drawn at random",
}
# Their values are over the best of their step: alone, every pick has 1.
_RELATIVE = {"probcover"}
_TRAITS = {"coverage", "typicality", "diversity", "similarity", "probcover", "random"}


def explain(objectives: Mapping[str, float | None], *, arm: str = "selected") -> str:
    """Return one sentence that says why a sample was picked.

    Args:
        objectives: Each objective's value at the step of the pick, as in the table `selections`;
            None where it was not known. The smallest that there is says as little.
        arm: `selected`, `random` or `unknown`.

    Returns:
        For example ``Picked because the model hesitates between two classes (margin 0.93).``, the
        highest values first (the lowest of a negative strength); none of a strength of zero.
    """
    if arm == "random":
        return "Drawn at random, so that estimates stay unbiased."
    if arm == "unknown":
        return "The detector found nothing in it: it may have missed every object."
    ranked = _ranked(objectives)
    if not ranked:
        return "Nothing was known of it that sets it apart; the smallest sample id came first."
    # A second reason is told when it is a strong one.
    strong = [name for name, value in ranked[:2] if _wanted(name, value) >= 0.5]
    reasons = [_say(name) for name in strong or [ranked[0][0]]]
    numbers = ", ".join(
        f"{_label(name)} {value:.2f}"
        for name, value in ranked[:3]
        if parts_of(name)[2].rstrip("_23456789") not in _RELATIVE
    )
    return f"Picked because {' and '.join(reasons)}" + (f" ({numbers})." if numbers else ".")


def strongest(objectives: Mapping[str, float | None]) -> str:
    """Return the name of the objective that an explanation would put first; "" without one."""
    ranked = _ranked(objectives)
    return ranked[0][0] if ranked else ""


def _ranked(objectives: Mapping[str, float | None]) -> list[tuple[str, float]]:
    known = [
        (name, value)
        for name, value in objectives.items()
        if value is not None
        and not name.startswith(ZERO)
        and (_wanted(name, value) > FLOOR or parts_of(name)[1] == RANGE)
    ]
    return sorted(known, key=lambda item: (-_wanted(*item), item[0]))


def _wanted(name: str, value: float) -> float:
    """Return how much of what is wanted a value is: of a negative strength, how little."""
    return 1.0 - value if name.startswith(NEGATIVE) else value


def _say(name: str) -> str:
    sign, kind, name = parts_of(name)
    if kind == RANGE:
        way = "away from" if sign else "into"
        return f"its value of {name} leads the sum over the batch {way} the wanted range"
    short = name.rstrip("_23456789")
    sayings = _OPPOSITES if sign else _SAYINGS
    if short in sayings:
        return "it is " + sayings[short] if short in _TRAITS else sayings[short]
    if name.startswith("balance_"):
        plenty = "plenty in" if sign else "missing from"
        return f"its value of {name.removeprefix('balance_')} is {plenty} what was chosen"
    return f"its value of {name} is {'low' if sign else 'high'}"


def _label(name: str) -> str:
    return name.replace("_", " ")
