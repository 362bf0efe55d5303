"""One line of a selection: an input, and the strategy on it; LightlyOne's lines are read too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

InputType = Literal["EMBEDDINGS", "SCORES", "METADATA", "PREDICTIONS", "RANDOM"]
StrategyType = Literal[
    "DIVERSITY",
    "TYPICALITY",
    "COVERAGE",
    "PROBCOVER",
    "BADGE",
    "SIMILARITY",
    "NEAR_DUPLICATES",
    "WEIGHTS",
    "THRESHOLD",
    "BALANCE",
    "RANDOM",
]
Operation = Literal["SMALLER", "SMALLER_EQUAL", "BIGGER", "BIGGER_EQUAL"]
Distribution = Literal["TARGET", "UNIFORM", "INPUT"]
Reducer = Literal["max", "mean", "sum"]

COMBINATIONS: dict[str, frozenset[str]] = {
    "EMBEDDINGS": frozenset(
        {
            "DIVERSITY",
            "TYPICALITY",
            "COVERAGE",
            "PROBCOVER",
            "BADGE",
            "SIMILARITY",
            "NEAR_DUPLICATES",
        }
    ),
    "SCORES": frozenset({"WEIGHTS", "THRESHOLD"}),
    "METADATA": frozenset({"WEIGHTS", "THRESHOLD", "BALANCE"}),
    "PREDICTIONS": frozenset({"BALANCE", "WEIGHTS", "THRESHOLD"}),
    "RANDOM": frozenset({"WEIGHTS", "RANDOM"}),
}
# Strategies that only say who may be picked at all.
FILTERS = frozenset({"THRESHOLD", "NEAR_DUPLICATES"})

UNCERTAINTIES = ("margin", "least_confidence", "entropy")
# Scores of a LightlyOne configuration, and what they are here.
LIGHTLY_SCORES = {f"uncertainty_{name}": name for name in UNCERTAINTIES}
DEPLOYED, SIMILAR = "deployed_", "similar_deployed_"
COMMITTEE_SCORES = ("vote_entropy", "consensus_divergence")
DETECTION_SCORES = ("object_frequency", "objectness_least_confidence")
SCORES = (
    *UNCERTAINTIES,
    *(prefix + name for prefix in (DEPLOYED, SIMILAR) for name in UNCERTAINTIES),
    *COMMITTEE_SCORES,
    "bald",
    *DETECTION_SCORES,
)

# Field of an input or strategy, and who it belongs to.
_INPUT_OWNERS = {
    "query": ("EMBEDDINGS",),
    "tag_name": ("EMBEDDINGS",),
    "score": ("SCORES",),
    "reducer": ("SCORES",),
    "key": ("METADATA",),
    "name": ("PREDICTIONS",),
    "categories": ("PREDICTIONS",),
    "random_seed": ("RANDOM",),
}
_STRATEGY_OWNERS = {
    "stopping_condition_minimum_distance": ("DIVERSITY",),
    "num_nearest_neighbors": ("TYPICALITY",),
    "stopping_condition_minimum_typicality": ("TYPICALITY",),
    "stopping_condition_max_sum": ("WEIGHTS",),
    "target_range": ("WEIGHTS",),
    "threshold": ("THRESHOLD",),
    "operation": ("THRESHOLD",),
    "distribution": ("BALANCE",),
    "target": ("BALANCE",),
    "radius": ("PROBCOVER",),
    "purity": ("PROBCOVER",),
    "distance": ("NEAR_DUPLICATES",),
}
# What LightlyOne does not have: a file with any of it is none of LightlyOne's.
_OWN_STRATEGIES = frozenset({"COVERAGE", "PROBCOVER", "BADGE", "NEAR_DUPLICATES"})
_OWN_SCORES = frozenset(SCORES) - frozenset(DETECTION_SCORES)
_OWN_KEYS = frozenset({"space", "query", "reducer", "radius", "purity", "distance"})
# An older name of a strategy in LightlyOne's files.
_OLD_NAMES = {"DIVERSIFY": "DIVERSITY"}


class Section(BaseModel):
    """Keys in snake_case or camelCase, none of them unknown."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=AliasGenerator(validation_alias=to_camel),
        validate_by_name=True,
        loc_by_alias=False,
    )


def _refuse_strangers(
    section: BaseModel, kind: str, mine: str, owners: Mapping[str, tuple[str, ...]]
) -> None:
    for field, allowed in owners.items():
        if getattr(section, field) is not None and mine not in allowed:
            raise ValueError(
                f"`{field}` belongs to the {kind} {' or '.join(allowed)}, not to {mine}"
            )


class _Part(Section):
    """Input or strategy: what is null is not given, as clients of LightlyOne's API write it."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if value is not None}


class SelectionInput(_Part):
    """The data that an objective is defined on: a number or a vector for each sample."""

    type: InputType = Field(description="What kind of data")
    space: str = Field("", description="EMBEDDINGS: the embedding space; empty: the selection's")
    query: tuple[str, ...] | None = Field(
        None,
        description="EMBEDDINGS with SIMILARITY: what to find more of, each a sample id, "
        "`file:ids.txt`, `round:0003`, `selection:NAME`, `flag:KIND`, `label:CLASS` or "
        "`training_set:ID`",
    )
    score: str | None = Field(
        None,
        description="SCORES: margin, least_confidence, entropy (of the model in service; with "
        "deployed_ or similar_deployed_ before them: as harvested), vote_entropy, "
        "consensus_divergence, bald, object_frequency or objectness_least_confidence",
    )
    reducer: Reducer | None = Field(
        None, description="SCORES of a detector: what becomes of several boxes; max unless said"
    )
    task: str | None = Field(None, description="Name of the prediction task; there is one a loop")
    key: str | None = Field(None, description="METADATA: name of the metadata column")
    name: Literal["CLASS_DISTRIBUTION", "CATEGORY_COUNT"] | None = Field(
        None, description="PREDICTIONS: probability of each class (unless said), or detections"
    )
    categories: tuple[str, ...] | None = Field(
        None, min_length=1, description="PREDICTIONS: only these classes count; empty: all"
    )
    random_seed: int | None = Field(None, description="RANDOM: seed; empty: the selection's")
    tag_name: str | None = Field(
        None, description="LightlyOne: as `query`, a round, saved selection, flag or training set"
    )
    dataset_id: str | None = Field(
        None, description="LightlyOne: read and without effect, a lake holds one data set"
    )

    @model_validator(mode="after")
    def _belongs_to_its_type(self) -> SelectionInput:
        _refuse_strangers(self, "input", self.type, _INPUT_OWNERS)
        if self.space and self.type != "EMBEDDINGS":
            raise ValueError(f"`space` belongs to the input EMBEDDINGS, not to {self.type}")
        if self.task and self.type == "EMBEDDINGS":
            raise ValueError(
                "`task` on EMBEDDINGS asks for embeddings of objects; a lake holds embeddings of "
                "whole images, so leave it out"
            )
        if self.type == "METADATA" and not self.key:
            raise ValueError("the input METADATA needs `key`, the name of a metadata column")
        if self.type == "SCORES":
            if not self.score:
                raise ValueError("the input SCORES needs `score`, for example `margin`")
            self.score_name()
            if self.reducer and self.score_name() not in UNCERTAINTIES:
                raise ValueError(
                    f"`reducer` belongs to {', '.join(UNCERTAINTIES)}, not to {self.score}"
                )
        return self

    def score_name(self) -> str:
        """Return the pool's name of the score, whatever dialect it was written in.

        Raises:
            ValueError: No score has that name.
        """
        name = LIGHTLY_SCORES.get(self.score or "", self.score or "")
        if name not in SCORES:
            raise ValueError(
                f"the score {self.score!r} is not supported; use one of {', '.join(SCORES)}"
                f" (or {', '.join(LIGHTLY_SCORES)})"
            )
        return name


class TargetRange(Section):
    """Between what the sum over the batch shall end."""

    min_sum: float = Field(0.0, ge=0, description="The smallest sum wanted")
    max_sum: float | None = Field(None, ge=0, description="The largest sum wanted; empty: none")

    @model_validator(mode="after")
    def _in_order(self) -> TargetRange:
        if self.max_sum is not None and self.max_sum < self.min_sum:
            raise ValueError("`max_sum` must not be smaller than `min_sum`")
        return self


class SelectionStrategy(_Part):
    """The objective that is put on an input."""

    type: StrategyType = Field(description="Which objective")
    strength: float = Field(
        1.0, ge=-1e9, le=1e9, description="Multiplies the log-objective; negative inverts it"
    )
    stopping_condition_minimum_distance: float | None = Field(
        None, ge=0, le=2, description="DIVERSITY: no two chosen are closer than this; then stop"
    )
    num_nearest_neighbors: int | None = Field(
        None, ge=2, description="TYPICALITY: neighbours that count; 20 unless said"
    )
    stopping_condition_minimum_typicality: float | None = Field(
        None, gt=0, le=1, description="TYPICALITY: nobody less typical is chosen; then stop"
    )
    stopping_condition_max_sum: float | None = Field(
        None, ge=0, description="WEIGHTS: stop when the sum over the chosen reaches this"
    )
    target_range: TargetRange | None = Field(
        None, description="WEIGHTS: lead the sum over the chosen into a range"
    )
    threshold: float | None = Field(None, description="THRESHOLD: the value compared with")
    operation: Operation | None = Field(None, description="THRESHOLD: keeps value OPERATION this")
    distribution: Distribution | None = Field(
        None, description="BALANCE: TARGET (given), UNIFORM, or INPUT (as the pool)"
    )
    target: dict[str, float] | None = Field(
        None, description="BALANCE with TARGET: share of each value; they sum to at most 1"
    )
    radius: float | None = Field(
        None, gt=0, le=1.4, description="PROBCOVER: radius of the balls; empty: by `purity`"
    )
    purity: float | None = Field(
        None, gt=0, lt=1, description="PROBCOVER: share of balls of one class; 0.95 unless said"
    )
    distance: float | None = Field(
        None,
        gt=0,
        le=1.4,
        description="NEAR_DUPLICATES: who is at most this far from a sample of a smaller id is "
        "not selected; 0.1 unless said",
    )

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("type") not in _OLD_NAMES:
            return data
        return {**data, "type": _OLD_NAMES[data["type"]]}

    @model_validator(mode="after")
    def _belongs_to_its_type(self) -> SelectionStrategy:
        _refuse_strangers(self, "strategy", self.type, _STRATEGY_OWNERS)
        if self.type == "THRESHOLD" and (self.threshold is None or self.operation is None):
            raise ValueError("the strategy THRESHOLD needs `threshold` and `operation`")
        if self.radius is not None and self.purity is not None:
            raise ValueError("give `radius` or `purity`, not both")
        if self.type == "BALANCE":
            if self.target is not None and self.distribution in {"UNIFORM", "INPUT"}:
                raise ValueError(f"`target` belongs to TARGET, not to {self.distribution}")
            if self.target is None and self.distribution in {None, "TARGET"}:
                raise ValueError("BALANCE needs `target` shares, or `distribution: UNIFORM|INPUT`")
            shares = list((self.target or {}).values())
            if any(s < 0 for s in shares) or sum(shares) > 1 + 1e-6:
                raise ValueError("the shares of `target` must not be negative nor sum to over 1")
        return self


class Objective(Section):
    """One line of the configuration: an input, and the strategy on it."""

    input: SelectionInput = Field(description="The data")
    strategy: SelectionStrategy = Field(description="The objective on it")

    @model_validator(mode="before")
    @classmethod
    def _strength_beside_the_strategy(cls, data: Any) -> Any:
        """Read `strength` beside `strategy` too: LightlyOne's own examples write it there."""
        if not isinstance(data, dict) or "strength" not in data:
            return data
        strategy = data.get("strategy")
        if not isinstance(strategy, dict) or "strength" in strategy:
            raise ValueError("`strength` stands once, inside `strategy`")
        rest = {key: value for key, value in data.items() if key != "strength"}
        return {**rest, "strategy": {**strategy, "strength": data["strength"]}}

    @model_validator(mode="after")
    def _is_a_known_combination(self) -> Objective:
        allowed = COMBINATIONS[self.input.type]
        kind = self.strategy.type
        if kind not in allowed:
            raise ValueError(
                f"the strategy {kind} is not supported on the input "
                f"{self.input.type}; use {' or '.join(sorted(allowed))}"
            )
        if kind == "SIMILARITY" and not self.query:
            raise ValueError("SIMILARITY needs `query`, what to find more of")
        if self.query and kind != "SIMILARITY":
            raise ValueError(f"`query` belongs to SIMILARITY, not to {kind}")
        whole = self.input.name != "CATEGORY_COUNT" and not self.input.categories
        if self.input.type == "PREDICTIONS" and whole and kind != "BALANCE":
            raise ValueError(
                f"{kind} on CLASS_DISTRIBUTION needs `categories`: the probabilities of all "
                "classes sum to 1"
            )
        return self

    @property
    def query(self) -> tuple[str, ...]:
        """What to find more of, LightlyOne's tag included."""
        tag = (f"tag:{self.input.tag_name}",) if self.input.tag_name else ()
        return (*(self.input.query or ()), *tag)


def is_lightlys(lines: Any) -> bool:
    """Tell whether nothing in the lines of a configuration, unread yet, is this program's own."""
    for line in lines if isinstance(lines, list | tuple) else ():
        given = [line.get(part) for part in ("input", "strategy")] if isinstance(line, dict) else []
        for part in given:
            if isinstance(part, dict) and (
                _OWN_KEYS & set(part)
                or part.get("type") in _OWN_STRATEGIES
                or part.get("score") in _OWN_SCORES
            ):
                return False
    return True


def only_filters(lines: Any) -> bool:
    """Tell whether all lines of a configuration, unread yet, only say who may be picked."""
    kinds = []
    for line in lines if isinstance(lines, list | tuple) else ():
        strategy = line.get("strategy") if isinstance(line, dict) else None
        kinds.append(strategy.get("type") if isinstance(strategy, dict) else None)
    return bool(kinds) and all(kind in FILTERS for kind in kinds)
