"""What of the samples lacks an embedding or a prediction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.inference.classifier import Classifier
    from visionloop.inference.embedder import Embedder
    from visionloop.lake import Lake


@dataclass(frozen=True)
class Models:
    """What samples are embedded and predicted with.

    Attributes:
        embedder: Of the base space.
        model: The model in service; None on a cold start.
        uri: Where the model's bundle lies; empty on a cold start.
    """

    embedder: Embedder
    model: Classifier | None = None
    uri: str = ""

    @property
    def side(self) -> int:
        """Pixels that the shorter side of a decoded photograph must keep."""
        return max(self.embedder.side, self.model.side if self.model else 0)

    @property
    def parallel(self) -> int:
        """How many batches may be computed at once."""
        return max(self.embedder.parallel, self.model.parallel if self.model else 1)

    @property
    def ran_on(self) -> str:
        """What the networks ran on, for a person; empty where none has run."""
        told = [self.embedder.ran_on, self.model.ran_on if self.model else ""]
        return "; ".join(dict.fromkeys(one for one in told if one))

    @property
    def model_id(self) -> str:
        """Id of the model, empty on a cold start."""
        return self.model.card.model_id if self.model else ""

    @property
    def model_space(self) -> str:
        """Space that the model embeds in, empty on a cold start."""
        return self.model.card.embedding_space if self.model else ""


@dataclass
class Pending:
    """What has to be done.

    Attributes:
        to_embed: Samples without a sound vector in the base space.
        to_predict: Samples that the model has not predicted.
        to_embed_with_model: Samples without a sound vector in the model's space.
        broken: By space, samples whose stored vector is not finite: it is put right, not added to.
    """

    to_embed: set[str]
    to_predict: set[str] = field(default_factory=set)
    to_embed_with_model: set[str] = field(default_factory=set)
    broken: dict[str, set[str]] = field(default_factory=dict)

    def ids(self) -> list[str]:
        """Return the samples with anything to do, in ascending order."""
        return sorted(self.to_embed | self.to_predict | self.to_embed_with_model)

    def without(self, ids: Iterable[str]) -> Pending:
        """Return what is left when some samples are done."""
        done = set(ids)
        return Pending(
            self.to_embed - done,
            self.to_predict - done,
            self.to_embed_with_model - done,
            self.broken,
        )

    def only(self, ids: Iterable[str]) -> Pending:
        """Return what has to be done of some samples."""
        these = set(ids)
        return Pending(
            self.to_embed & these,
            self.to_predict & these,
            self.to_embed_with_model & these,
            self.broken,
        )


def find_pending(lake: Lake, samples: Iterable[str], models: Models, version: str) -> Pending:
    """Compare the samples with what a version of the lake holds of them.

    Args:
        lake: The lake.
        samples: Their ids.
        models: What they are embedded and predicted with.
        version: Version of the lake to look at.

    Returns:
        What lacks.
    """
    wanted = set(samples)
    broken: dict[str, set[str]] = {}

    def without(space: str) -> set[str]:
        sound, broken[space] = lake.embedded(space, version=version)
        return wanted - sound

    to_embed = without(models.embedder.space)
    if models.model is None:
        return Pending(to_embed, broken=broken)
    own = f"model_id == '{models.model_id}'"
    predicted = lake.read("predictions", columns=["sample_id"], where=own, version=version)
    return Pending(
        to_embed,
        wanted - set(predicted["sample_id"].to_pylist()),
        without(models.model_space),
        broken,
    )
