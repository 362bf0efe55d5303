"""Whether a selection can be spread over shards of the embeddings, and what they are told.

Spread are objectives that a shard can weigh without the others: distances to what is chosen
(k-center, in two stages), and numbers that each sample has for itself (scores, weights, similarity
to queries, harvested confidences, lots), of which only the median and the largest depend on all.
What needs everybody at once (clusters of typicality, coverage, ProbCover, BADGE, balance, near
duplicates) is not spread: of more than one task may hold, the shards name a uniform sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from visionloop.lake import parts
from visionloop.selection.cold import of_committee, of_predictions
from visionloop.selection.config import SelectionConfig
from visionloop.selection.engine import DEFAULT_CLASSES
from visionloop.selection.in_service import model_in_service
from visionloop.selection.lines import COMMITTEE_SCORES, DEPLOYED, Objective
from visionloop.selection.queries import resolve_queries
from visionloop.selection.spaces import no_vector
from visionloop.selection.strategies import uncertainty_weight
from visionloop.vectors.exact import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.lake import Lake

# More candidates a shard than are picked: the batch comes closer to the exact one, and there is
# enough left where some are refused as near duplicates of others.
CANDIDATES, SPARE = 2, 64

SPREAD = frozenset({"DIVERSITY", "WEIGHTS", "SIMILARITY", "THRESHOLD", "RANDOM"})


def at_least(number: int) -> int:
    """Return how many candidates a shard names for so many picks."""
    return CANDIDATES * number + SPARE


def most_picks(config: SelectionConfig, total: int) -> int:
    """Return how many picks there are at most of so many samples."""
    if config.proportion_samples is not None:
        return max(1, math.ceil(config.proportion_samples * total))
    return config.n_samples


def plain_lines(
    lake: Lake,
    config: SelectionConfig,
    version: str,
    *,
    classes: Collection[str],
    labels: Sequence[Collection[str]],
    told: Collection[str],
) -> tuple[SelectionConfig, str]:
    """Return a configuration as lines that can be spread, or why it cannot.

    Args:
        lake: The lake.
        config: The configuration.
        version: Lake version.
        classes: Classes of the loop, if they are named.
        labels: The classes of each labelled sample of the pool.
        told: Scores that harvested images tell of similar ones.

    Returns:
        The configuration that selects the same, and an empty text; or the one that was given, and
        what of it needs all embeddings at once.
    """
    preset, score, schedule = config.strategy, config.score, config.schedule
    if preset == "random":
        return config, ""
    if preset == "custom":
        return config, _why_not(config)
    if preset == "diversity":
        return _with(config, [_diversity()]), ""
    if preset in {"uncertainty", "auto"}:
        model = predicted_by(lake, version)
        if model is None:
            return config, f"`{preset}` takes typical samples as long as there are no predictions"
        if preset == "uncertainty":
            return _with(config, [_scored(score)]), ""
        n_classes = (
            len(classes or model["classes"] or {c for own in labels for c in own})
            or DEFAULT_CLASSES
        )
        if uncertainty_weight(schedule, len(labels), n_classes) < 1:
            return config, (
                f"`auto` takes typical samples up to {schedule.uncertainty_from:g} labels a class"
            )
        lines = [_scored(score)]
        if schedule.diversity:
            lines.append(_diversity(schedule.diversity))
        if schedule.deployed and score in told:
            lines.append(_scored(DEPLOYED + score, schedule.deployed))
        return _with(config, lines), ""
    return config, f"`{preset}` looks at all embeddings at once"


def _why_not(config: SelectionConfig) -> str:
    diverse = [line for line in config.strategies if line.strategy.type == "DIVERSITY"]
    if len(diverse) > 1 or any(line.strategy.strength <= 0 for line in diverse):
        return "DIVERSITY is there twice, or its strength is not positive"
    for line in config.strategies:
        kind, score = line.strategy.type, line.input.score_name() if line.input.score else ""
        if kind not in SPREAD:
            return f"{kind} looks at all embeddings at once"
        if line.input.space not in {"", config.space}:
            return f"a line names another embedding space, {line.input.space}"
        if score in {*COMMITTEE_SCORES, "bald"}:
            return f"the score {score} is made of more than the model in service predicts"
        if kind == "WEIGHTS" and line.strategy.target_range is not None:
            return "`target_range` weighs every sample anew at every pick"
    return ""


def before_all(config: SelectionConfig, *, predicted: bool) -> SelectionConfig:
    """Return a configuration without the filters that a shard cannot apply for itself.

    These are lines of NEAR_DUPLICATES, which compares everybody with everybody, and thresholds on
    scores of a committee, whose members are those that predicted anything. Where nobody has
    predicted anything, all thresholds on predictions: a round passes them over, and a shard cannot
    tell that from being the only one without.

    Args:
        config: The configuration.
        predicted: Whether the model in service has predicted anything at all.
    """

    def alone(line: Objective) -> bool:
        if line.strategy.type == "THRESHOLD":
            return not of_committee(line) and (predicted or not of_predictions(line))
        return line.strategy.type != "NEAR_DUPLICATES"

    lines = tuple(line for line in config.strategies if alone(line))
    return config.model_copy(update={"strategies": lines})


def predicted_by(lake: Lake, version: str) -> dict[str, Any] | None:
    """Return the model in service where it has predicted anything outside of the holdout.

    What it answered on the holdout is there as soon as it is evaluated, and tells nothing of what
    can be chosen.
    """
    rows = lake.read("experiments", where="arm == 'loop'", version=version).to_pylist()
    model = model_in_service(rows)
    if model is None:
        return None
    held = lake.read("samples", columns=["sample_id"], where="split == 'holdout'", version=version)
    holdout = held["sample_id"].combine_chunks()
    mine = f"model_id == '{model['model_id']}'"
    for batch in parts.batches(lake, "predictions", ["sample_id"], mine, version):
        if not pc.all(pc.is_in(batch["sample_id"], value_set=holdout)).as_py():
            return model
    return None


def _scored(score: str, strength: float = 1.0) -> dict[str, Any]:
    return {
        "input": {"type": "SCORES", "score": score},
        "strategy": {"type": "WEIGHTS", "strength": strength},
    }


def _diversity(strength: float = 1.0) -> dict[str, Any]:
    return {
        "input": {"type": "EMBEDDINGS"},
        "strategy": {"type": "DIVERSITY", "strength": strength},
    }


def _with(config: SelectionConfig, lines: list[dict[str, Any]]) -> SelectionConfig:
    chosen = tuple(Objective.model_validate(line) for line in lines)
    return config.model_copy(update={"strategy": "custom", "strategies": chosen})


def with_queries(
    lake: Lake,
    config: SelectionConfig,
    version: str,
    labels: Mapping[str, Collection[str]],
    vectors: Callable[[set[str]], tuple[list[str], Floats]],
) -> tuple[SelectionConfig, tuple[list[str], Floats]]:
    """Return a configuration whose queries are sample ids, and all vectors that shards need.

    Args:
        lake: The lake.
        config: The configuration.
        version: Lake version.
        labels: The classes of each labelled sample.
        vectors: Reads those of some samples, and of what is labelled: ids, and float32 [n, d].

    Raises:
        InputError: A query does not exist, or has no embedding.
    """

    def read(table: str, *columns: str, where: str | None = None) -> pa.Table:
        return lake.read(table, columns=list(columns) or None, where=where, version=version)

    named = resolve_queries(config, read, labels=labels, embedded=_Everyone())[1]
    known = vectors(set(named))
    embedded = set(known[0])
    resolved, wanted = resolve_queries(config, read, labels=labels, embedded=embedded)
    if missing := [name for name in wanted if name not in embedded]:
        raise no_vector(missing, config.space)
    return resolved, known


class _Everyone(Collection[str]):
    """Contains whoever is asked about."""

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
