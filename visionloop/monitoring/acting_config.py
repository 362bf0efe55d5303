"""What the watch does by itself besides starting rounds: part of the section ``watch``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from visionloop.monitoring.kinds import KINDS
from visionloop.validation import nearest


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _standing(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no kind of flag, and kinds that never go away by themselves."""
    for name in kinds:
        if name not in KINDS:
            raise ValueError(f"there are no flags of the kind `{name}`{nearest(name, list(KINDS))}")
        if not KINDS[name].standing:
            raise ValueError(
                f"a flag of the kind `{name}` is about one sample or file for good, so what it "
                "causes would never end; name a kind that is withdrawn when it no longer holds"
            )
    return kinds


class RaiseRandomShare(_Rules):
    """Draw more at random while the model's own scores cannot be trusted."""

    to: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Share of each batch that is drawn at random meanwhile, where "
        "`selection.random_share` is less; 0: never raised.",
    )
    on_drift: bool = Field(
        default=True, description="Raise it while flags of drift stand, of inputs or answers."
    )
    min_confidence_drop: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Raise it when the mean deployed confidence fell by so much, and significantly "
        "(see `watch.min_confidence_drop`); 0: not for that.",
    )
    flags: tuple[str, ...] = Field(
        default=(), description="Raise it while flags of these kinds stand."
    )
    max_rounds: int = Field(
        default=3,
        ge=0,
        description="Restore it after so many rounds, also where its reason still holds; 0: only "
        "once the reason is gone, or another model is in service.",
    )

    @field_validator("flags")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        return _standing(kinds)


class BlockPublication(_Rules):
    """Keep the model in service while a new one would be trained or judged by what is doubted."""

    max_label_suspects: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Publish nothing while significantly more than this share of the checked "
        "labels is suspected to be wrong; 0: not for that.",
    )
    max_error_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Publish nothing while significantly more than this share of the requests "
        "ends in an error of the server; 0: not for that, since a new model may be "
        "what mends it.",
    )
    flags: tuple[str, ...] = Field(
        default=(), description="Publish nothing while flags of these kinds stand."
    )
    min_labels: int = Field(
        default=100, ge=10, description="Checked labels below which their share is not judged."
    )

    @field_validator("flags")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        return _standing(kinds)


class RollBack(_Rules):
    """Bring the model before back when the one in service is worse than it was."""

    enabled: bool = Field(
        default=False, description="Whether a model is taken out of service without a person."
    )
    min_accuracy_drop: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Go back when the model in service is right on so much less of the random "
        "picks labelled since it was trained than the model before it on the same images, "
        "significantly; 0: not for that.",
    )
    max_error_rate: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Go back when significantly more than this share of the requests "
        "ends in an error of the server, and more than with the model before it; 0: "
        "not for that.",
    )
    min_labels: int = Field(
        default=50, ge=10, description="Labelled random picks below which accuracy is not compared."
    )
    min_hours: float = Field(
        default=24.0, ge=0, description="Go back no sooner than so many hours after the last time."
    )


class ActingConfig(BaseModel):
    """What the watch does besides starting rounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    raise_random_share: RaiseRandomShare = Field(
        default_factory=RaiseRandomShare,
        description="When more of a batch is drawn at random, since the model's own scores cannot "
        "be trusted.",
    )
    block_publication: BlockPublication = Field(
        default_factory=BlockPublication,
        description="Keep the model in service while labels or service are doubted.",
    )
    roll_back: RollBack = Field(
        default_factory=RollBack,
        description="Bring the model before back when the one in service is worse; off at first.",
    )
    act_min_requests: int = Field(
        default=200,
        ge=20,
        description="Requests since the last judgement of the server's errors below which they are "
        "not judged; counted at `serving.url`, or by the pods of `serving.kserve`.",
    )
    act_significance: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="Probability that a rate or an accuracy ever sets off one of these acts by "
        "chance, over all looks at the same model together.",
    )
