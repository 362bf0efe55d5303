"""What a person writes about selection: the `selection` section of loop.yaml, or a file of its own.

A LightlyOne selection configuration (`n_samples` or `proportion_samples`, `strategies`, in
snake_case or camelCase) is such a section as it stands. What this version cannot do is refused by
its name: a key that is silently ignored would select something else than was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from visionloop.errors import InputError
from visionloop.selection.lines import (
    FILTERS,
    Objective,
    Reducer,
    Section,
    is_lightlys,
    only_filters,
)
from visionloop.validation import validate

Preset = Literal[
    "auto",
    "random",
    "typicality",
    "diversity",
    "probcover",
    "uncertainty",
    "badge",
    "custom",
]
ScoreName = Literal["least_confidence", "margin", "entropy"]
Dialect = Literal["visionloop", "lightly"]

_DEVICE = r"(auto|cuda(:[0-9]+)?)?"
# The flag of samples whose every file is gone, see `visionloop.media.places`.
MEDIA_MISSING = "media_missing"
# What LightlyOne means where a key is not given.
_LIGHTLY_DEFAULTS: dict[str, Any] = {"random_share": 0.0, "unknown_share": 0.0, "exclude_flags": ()}
# Keys of a LightlyOne configuration; a file of these alone is one.
_LIGHTLY_ELSEWHERE = {
    "lightly_path_regex": "Write what the path tells into each image's sidecar, as metadata",
    "auto_tasks": "Select by the predictions of the loop's own model",
}
# Parts of a file for LightlyOne that say how its worker runs. One key of them chooses samples.
WORKER_PARTS = ("worker_config", "lightly_config")
_LISTED = "relevant_filenames_file"
_LIGHTLY_KEYS = frozenset({"n_samples", "proportion_samples", "strategies", *_LIGHTLY_ELSEWHERE})


class Schedule(Section):
    """When the default strategy moves from typical to uncertain samples, in labels a class.

    Few labels make a model whose uncertainty says little: then typical samples teach most. The
    defaults were measured on the digits (see benchmarks/active_learning.py).
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


class SelectionConfig(Section):
    """Which samples are worth a label, and how many a round."""

    n_samples: int = Field(20, ge=1, description="Labels asked for in a round")
    proportion_samples: float | None = Field(
        None, gt=0, le=1, description="Instead of n_samples: a share of the eligible samples"
    )
    strategy: Preset = Field(
        "auto",
        description="auto (typicality, then uncertainty), one strategy alone, random, or custom; "
        "see selection.md",
    )
    strategies: tuple[Objective, ...] = Field(
        (), description="Objectives of the strategy `custom`, as in LightlyOne"
    )
    score: ScoreName = Field("margin", description="Uncertainty that auto and uncertainty use")
    reducer: Reducer = Field(
        "max", description="Detector: what becomes of the uncertainties of an image's boxes"
    )
    space: str = Field(
        "", description="Embedding space; empty: the loop's base space, the same in every round"
    )
    random_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of each batch drawn at random, from the first trained model on",
    )
    unknown_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Detector: at least this share of each batch are images in which it found "
        "nothing, as long as there are any",
    )
    committee: int = Field(
        5, ge=2, description="At most so many of the newest models vote on disagreement"
    )
    schedule: Schedule = Field(Schedule.model_validate({}), description="How auto moves its weight")
    label_budget: int = Field(
        0,
        ge=0,
        description="Labels that may be asked for in all; only advised on (a limit is "
        "`watch.max_labels`), 0: none",
    )
    min_gain: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Accuracy that twice as many labels must promise to be worth it, for the "
        "advice on stopping",
    )
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn")
    device: str = Field(
        "",
        pattern=rf"^{_DEVICE}$",
        description="Where diversity is computed: empty for the processor, auto for a GPU where "
        "there is one, cuda or cuda:1 for that one or an error; the picks are the same",
    )
    copy_distance: int = Field(
        10,
        ge=-1,
        le=256,
        description="Differing fingerprint bits (of 256) up to which two images are copies of one "
        "picture; -1 compares no fingerprints, but for those that equal one of the holdout",
    )
    duplicate_distance: float = Field(
        0.01,
        ge=0,
        le=2,
        description="Embedding distance up to which a sample is a near duplicate of another of its "
        "batch, or of a labelled one",
    )
    exclude_flags: tuple[str, ...] = Field(
        ("near_duplicate",), description="Samples with a flag of these kinds are not selected"
    )

    dialect: Dialect = Field(
        "visionloop",
        description="lightly follows LightlyOne where the two differ, see selection.md; a file "
        "with nothing but LightlyOne's keys is read so",
    )

    @property
    def flags_left_out(self) -> tuple[str, ...]:
        """Kinds of flags whose samples are not selected: nobody can label one without its file."""
        return tuple(dict.fromkeys((*self.exclude_flags, MEDIA_MISSING)))

    def with_files(self, resolve: Callable[[str], str]) -> SelectionConfig:
        """Return the same with other names for the files of its queries.

        Args:
            resolve: Returns the name of a file, such as its absolute path.
        """
        lines = []
        for line in self.strategies:
            if line.input.query:
                query = tuple(
                    f"file:{resolve(item.removeprefix('file:'))}"
                    if item.startswith("file:")
                    else item
                    for item in line.input.query
                )
                named = line.input.model_copy(update={"query": query})
                line = line.model_copy(update={"input": named})
            lines.append(line)
        return self.model_copy(update={"strategies": tuple(lines)}) if lines else self

    @field_validator("device", mode="before")
    @classmethod
    def _is_a_device(cls, device: Any) -> Any:
        if not isinstance(device, str) or not re.fullmatch(_DEVICE, device):
            raise ValueError(
                "give `auto`, `cuda` or `cuda:1` (a GPU's number), or nothing for the processor"
            )
        return device

    @model_validator(mode="after")
    def _strategies_and_preset_agree(self) -> SelectionConfig:
        if self.strategy == "custom" and not self.strategies:
            raise ValueError("the strategy `custom` needs `strategies`")
        if self.strategies and self.strategy != "custom":
            raise ValueError(
                f"`strategies` belong to the strategy `custom`, not to `{self.strategy}`"
            )
        if self.strategies and all(o.strategy.type in FILTERS for o in self.strategies):
            raise ValueError(
                f"{' and '.join(sorted(FILTERS))} only filter: `strategies` needs an objective "
                "beside them, such as RANDOM with WEIGHTS"
            )
        if self.proportion_samples is not None and "n_samples" in self.model_fields_set:
            raise ValueError("give `n_samples` or `proportion_samples`, not both")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        filled = dict(data)
        if data.get("strategies") and "strategy" not in data:
            filled["strategy"] = "custom"
        if data.get("dialect") == "lightly":
            for key, value in _LIGHTLY_DEFAULTS.items():
                if key not in data and to_camel(key) not in data:
                    filled[key] = value
            if only_filters(data.get("strategies")):  # any of those who pass, by lot
                lot = {"input": {"type": "RANDOM"}, "strategy": {"type": "WEIGHTS"}}
                filled["strategies"] = [*data["strategies"], lot]
        return filled


def parse_selection_config(
    data: Any, *, where: str = "selection", alone: bool = False
) -> SelectionConfig:
    """Read a selection configuration, LightlyOne's included.

    Args:
        data: The mapping that YAML or JSON gave. A file that holds nothing but a `selection`
            section (or LightlyOne's `selection_config`, also beside `WORKER_PARTS`) is read as
            that section.
        where: The file or section, for the error.
        alone: The mapping is a file of its own, which may be one of LightlyOne's.

    Raises:
        InputError: A key is unknown, a value is wrong, or something is not supported; all of them
            are named, each with its place.
    """
    lightly = False
    if isinstance(data, Mapping):
        rest = _without_worker(data, where)
        if len(rest) == 1:
            (wrapper,) = rest
            if wrapper in {"selection_config", "selectionConfig"}:
                data, lightly = rest[wrapper], True
            elif wrapper == "selection" and len(data) == 1:
                data = data[wrapper]
    if alone and isinstance(data, Mapping) and "strategies" in data:
        known = _LIGHTLY_KEYS | {to_camel(key) for key in _LIGHTLY_KEYS}
        lightly = lightly or (set(data) <= known and is_lightlys(data["strategies"]))
        if lightly:
            data = _from_lightly(data, where)
    return validate(SelectionConfig, data, where=where)


def _without_worker(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a file for LightlyOne without what its worker is told."""
    rest = dict(data)
    for part in WORKER_PARTS:
        for key in (part, to_camel(part)):
            told = rest.pop(key, None)
            if isinstance(told, Mapping) and (told.get(_LISTED) or told.get(to_camel(_LISTED))):
                raise InputError(
                    f"`{_LISTED}` in `{key}` limits what is selected from, which is not supported",
                    where=where,
                    remedy="Ingest those files alone, or filter by a THRESHOLD on metadata",
                )
    return rest


def _from_lightly(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return LightlyOne's mapping as one of ours."""
    for key, remedy in _LIGHTLY_ELSEWHERE.items():
        if data.get(key) or data.get(to_camel(key)):
            raise InputError(f"`{key}` is no part of a selection here", where=where, remedy=remedy)
    filled = {"dialect": "lightly", **{k: v for k, v in data.items() if v is not None}}
    for key in ("n_samples", "nSamples"):
        if filled.get(key) == -1:  # no limit but that of a stopping condition
            del filled[key]
            filled.setdefault("proportion_samples", 1.0)
    return filled
