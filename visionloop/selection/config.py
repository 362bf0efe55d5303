"""What a person writes about selection: the `selection` section of loop.yaml, or a file of its own.

A LightlyOne selection configuration (`n_samples` or `proportion_samples`, `strategies`, in
snake_case or camelCase) is such a section as it stands. What this version cannot do is refused by
its name: a key that is silently ignored would select something else than was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from visionloop.validation import validate

InputType = Literal["EMBEDDINGS", "SCORES", "METADATA", "PREDICTIONS", "RANDOM"]
StrategyType = Literal[
    "DIVERSITY",
    "TYPICALITY",
    "COVERAGE",
    "BADGE",
    "WEIGHTS",
    "THRESHOLD",
    "BALANCE",
    "SIMILARITY",
    "RANDOM",
]
Operation = Literal["SMALLER", "SMALLER_EQUAL", "BIGGER", "BIGGER_EQUAL"]
Distribution = Literal["TARGET", "UNIFORM", "INPUT"]
ScoreName = Literal["least_confidence", "margin", "entropy"]
Preset = Literal["auto", "random", "typicality", "diversity", "uncertainty", "badge", "custom"]

COMBINATIONS: dict[str, frozenset[str]] = {
    "EMBEDDINGS": frozenset({"DIVERSITY", "TYPICALITY", "COVERAGE", "BADGE", "SIMILARITY"}),
    "SCORES": frozenset({"WEIGHTS", "THRESHOLD"}),
    "METADATA": frozenset({"WEIGHTS", "THRESHOLD", "BALANCE"}),
    "PREDICTIONS": frozenset({"BALANCE"}),
    "RANDOM": frozenset({"WEIGHTS", "RANDOM"}),
}

# Keys of a LightlyOne configuration that this version reads but cannot act on.
UNSUPPORTED = {
    "dataset_id": "it names a dataset of Lightly's platform; give `query: [sample ids]` instead",
    "tag_name": "it names a tag of Lightly's platform; give `query: [sample ids]` instead",
    "categories": "limiting an input to some categories is not built yet",
    "stopping_condition_minimum_typicality": "this stopping condition is not built yet",
    "stopping_condition_max_sum": "this stopping condition is not built yet",
    "target_range": "target ranges of WEIGHTS are not built yet",
}
# Scores of a LightlyOne configuration, and what they are here.
LIGHTLY_SCORES = {
    "uncertainty_least_confidence": "least_confidence",
    "uncertainty_margin": "margin",
    "uncertainty_entropy": "entropy",
}


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=AliasGenerator(validation_alias=to_camel),
        validate_by_name=True,
        loc_by_alias=False,
    )


def _refuse_unsupported(section: BaseModel) -> None:
    for name, reason in UNSUPPORTED.items():
        if getattr(section, name, None) is not None:
            raise ValueError(f"`{name}` is not supported: {reason}")


class SelectionInput(_Section):
    """The data that an objective is defined on: a number or a vector for each sample."""

    type: InputType = Field(description="What kind of data")
    space: str = Field("", description="EMBEDDINGS: the embedding space; empty: the selection's")
    query: tuple[str, ...] | None = Field(
        None, description="EMBEDDINGS with SIMILARITY: sample ids to find more of"
    )
    score: str | None = Field(
        None, description="SCORES: margin, least_confidence, entropy, or deployed_<one of them>"
    )
    task: str | None = Field(None, description="Name of the prediction task; there is one a loop")
    key: str | None = Field(None, description="METADATA: name of the metadata column")
    name: str | None = Field(None, description="PREDICTIONS: CLASS_DISTRIBUTION")
    random_seed: int | None = Field(None, description="RANDOM: seed; empty: the selection's")
    dataset_id: str | None = Field(None, description="LightlyOne only; refused")
    tag_name: str | None = Field(None, description="LightlyOne only; refused")
    categories: tuple[str, ...] | None = Field(None, description="LightlyOne only; refused")

    @model_validator(mode="after")
    def _belongs_to_its_type(self) -> SelectionInput:
        _refuse_unsupported(self)
        owners = {
            "query": "EMBEDDINGS",
            "score": "SCORES",
            "key": "METADATA",
            "name": "PREDICTIONS",
        }
        for field, owner in owners.items():
            if getattr(self, field) is not None and self.type != owner:
                raise ValueError(f"`{field}` belongs to the input {owner}, not to {self.type}")
        if self.random_seed is not None and self.type != "RANDOM":
            raise ValueError(f"`random_seed` belongs to the input RANDOM, not to {self.type}")
        if self.task and self.type == "EMBEDDINGS":
            raise ValueError("`task` on EMBEDDINGS (object embeddings) is not supported yet")
        if self.type == "METADATA" and not self.key:
            raise ValueError("the input METADATA needs `key`, the name of a metadata column")
        if self.type == "SCORES":
            if not self.score:
                raise ValueError("the input SCORES needs `score`, for example `margin`")
            self.score_name()
        if self.type == "PREDICTIONS" and self.name not in {"CLASS_DISTRIBUTION", None}:
            raise ValueError(
                f"`name: {self.name}` of PREDICTIONS is not supported yet; use CLASS_DISTRIBUTION"
            )
        return self

    def score_name(self) -> str:
        """Return the pool's name of the score, whatever dialect it was written in.

        Raises:
            ValueError: No score has that name.
        """
        name = LIGHTLY_SCORES.get(self.score or "", self.score or "")
        known = [
            p + s for p in ("", "deployed_") for s in ("margin", "least_confidence", "entropy")
        ]
        if name not in known:
            raise ValueError(
                f"the score {self.score!r} is not supported; use one of {', '.join(known)}"
                f" (or {', '.join(LIGHTLY_SCORES)})"
            )
        return name


class SelectionStrategy(_Section):
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
    threshold: float | None = Field(None, description="THRESHOLD: the value compared with")
    operation: Operation | None = Field(None, description="THRESHOLD: keeps value OPERATION this")
    distribution: Distribution | None = Field(
        None, description="BALANCE: TARGET (given), UNIFORM, or INPUT (as the pool)"
    )
    target: dict[str, float] | None = Field(
        None, description="BALANCE with TARGET: share of each value; they sum to at most 1"
    )
    stopping_condition_minimum_typicality: float | None = Field(
        None, description="LightlyOne only; refused"
    )
    stopping_condition_max_sum: float | None = Field(None, description="LightlyOne only; refused")
    target_range: dict[str, float] | None = Field(None, description="LightlyOne only; refused")

    @model_validator(mode="after")
    def _belongs_to_its_type(self) -> SelectionStrategy:
        _refuse_unsupported(self)
        owners = {
            "stopping_condition_minimum_distance": "DIVERSITY",
            "num_nearest_neighbors": "TYPICALITY",
            "threshold": "THRESHOLD",
            "operation": "THRESHOLD",
            "distribution": "BALANCE",
            "target": "BALANCE",
        }
        for field, owner in owners.items():
            if getattr(self, field) is not None and self.type != owner:
                raise ValueError(f"`{field}` belongs to the strategy {owner}, not to {self.type}")
        if self.type == "THRESHOLD" and (self.threshold is None or self.operation is None):
            raise ValueError("the strategy THRESHOLD needs `threshold` and `operation`")
        if self.type == "BALANCE":
            if self.target is not None and self.distribution in {"UNIFORM", "INPUT"}:
                raise ValueError(f"`target` belongs to TARGET, not to {self.distribution}")
            if self.target is None and self.distribution in {None, "TARGET"}:
                raise ValueError("BALANCE needs `target` shares, or `distribution: UNIFORM|INPUT`")
            shares = list((self.target or {}).values())
            if any(s < 0 for s in shares) or sum(shares) > 1 + 1e-6:
                raise ValueError("the shares of `target` must not be negative nor sum to over 1")
        return self


class Objective(_Section):
    """One line of the configuration: an input, and the strategy on it."""

    input: SelectionInput = Field(description="The data")
    strategy: SelectionStrategy = Field(description="The objective on it")

    @model_validator(mode="after")
    def _is_a_known_combination(self) -> Objective:
        allowed = COMBINATIONS[self.input.type]
        if self.strategy.type not in allowed:
            raise ValueError(
                f"the strategy {self.strategy.type} is not supported on the input "
                f"{self.input.type}; use {' or '.join(sorted(allowed))}"
            )
        if self.strategy.type == "SIMILARITY" and not self.input.query:
            raise ValueError("SIMILARITY needs `query`, the sample ids to find more of")
        if self.input.query and self.strategy.type != "SIMILARITY":
            raise ValueError(f"`query` belongs to SIMILARITY, not to {self.strategy.type}")
        return self


class Schedule(_Section):
    """When the default strategy moves from typical to uncertain samples, in labels a class.

    Few labels make a model whose uncertainty says little: then typical samples teach most. The
    defaults were measured on the digits (see benchmarks/selection.py).
    """

    typicality_until: float = Field(
        2.0, ge=0, description="Up to this many labels a class: typicality alone"
    )
    uncertainty_from: float = Field(
        10.0, ge=0, description="From this many labels a class: uncertainty alone"
    )
    diversity: float = Field(
        0.5, ge=0, description="Strength of the term that keeps a batch from being redundant"
    )
    deployed: float = Field(
        0.5, ge=0, description="Strength of the deployed model's uncertainty, where harvested"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Schedule:
        if self.uncertainty_from < self.typicality_until:
            raise ValueError("`uncertainty_from` must not be smaller than `typicality_until`")
        return self


class SelectionConfig(_Section):
    """Which samples are worth a label, and how many a round."""

    n_samples: int = Field(20, ge=1, description="Labels asked for in a round")
    proportion_samples: float | None = Field(
        None, gt=0, le=1, description="Instead of n_samples: a share of the eligible samples"
    )
    strategy: Preset = Field(
        "auto",
        description="auto (typicality, then uncertainty), one strategy alone, random, or custom",
    )
    strategies: tuple[Objective, ...] = Field(
        (), description="Objectives of the strategy `custom`, as in LightlyOne"
    )
    score: ScoreName = Field("margin", description="Uncertainty that auto and uncertainty use")
    space: str = Field(
        "", description="Embedding space; empty: the loop's base space, the same in every round"
    )
    random_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of each batch drawn at random, from the first trained model on",
    )
    schedule: Schedule = Field(Schedule.model_validate({}), description="How auto moves its weight")
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn")
    copy_distance: int = Field(
        10,
        ge=-1,
        le=256,
        description="Differing fingerprint bits (of 256) up to which two images are copies of one "
        "picture; -1 compares no fingerprints",
    )
    duplicate_distance: float = Field(
        0.01,
        ge=0,
        le=2,
        description="Embedding distance up to which two samples of a batch are near duplicates",
    )
    exclude_flags: tuple[str, ...] = Field(
        ("near_duplicate",), description="Samples with a flag of these kinds are not selected"
    )

    @model_validator(mode="after")
    def _strategies_and_preset_agree(self) -> SelectionConfig:
        if self.strategy == "custom" and not self.strategies:
            raise ValueError("the strategy `custom` needs `strategies`")
        if self.strategies and self.strategy != "custom":
            raise ValueError(
                f"`strategies` belong to the strategy `custom`, not to `{self.strategy}`"
            )
        if self.strategies and all(o.strategy.type == "THRESHOLD" for o in self.strategies):
            raise ValueError("thresholds only filter: `strategies` needs an objective beside them")
        if self.proportion_samples is not None and "n_samples" in self.model_fields_set:
            raise ValueError("give `n_samples` or `proportion_samples`, not both")
        return self

    @model_validator(mode="before")
    @classmethod
    def _strategies_mean_custom(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("strategies") and "strategy" not in data:
            return {**data, "strategy": "custom"}
        return data


def parse_selection_config(data: Any, *, where: str = "selection") -> SelectionConfig:
    """Read a selection configuration, LightlyOne's included.

    Args:
        data: The mapping that YAML or JSON gave. A file that holds nothing but a `selection`
            section (or LightlyOne's `selection_config`) is read as that section.
        where: The file or section, for the error.

    Raises:
        InputError: A key is unknown, a value is wrong, or something is not supported; all of them
            are named, each with its place.
    """
    if isinstance(data, Mapping) and len(data) == 1:
        (wrapper,) = data
        if wrapper in {"selection", "selection_config", "selectionConfig"}:
            data = data[wrapper]
    return validate(SelectionConfig, data, where=where)
