"""One selection to make, and the objectives that presets and custom lines have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.amounts import Some
from visionloop.selection.badge import Badge
from visionloop.selection.clusters import kmeans
from visionloop.selection.cold import Cold
from visionloop.selection.config import SelectionConfig
from visionloop.selection.covering import ProbCover, radius_of_purity
from visionloop.selection.inputs import score_of, space_of
from visionloop.selection.lines import DEPLOYED, SIMILAR, Reducer
from visionloop.selection.neighbours import Floats
from visionloop.selection.objectives import Coverage, Diversity, Fixed, local_typicality
from visionloop.selection.pool import Pool, Reference, named
from visionloop.vectors.gathered import Gathered, Matrix, below

MOST_CLUSTERS = 500
_FEW = 8
PURITY = 0.95


@dataclass(frozen=True)
class Request:
    """One selection to make.

    Args:
        pool: What there is.
        rows: The eligible rows of the pool, ascending; objectives are over these.
        config: What is wanted.
        labelled: What is labelled already.
        queries: Samples that SIMILARITY may find more of, beside the pool's and the labelled ones.
        n: How many are wanted.
        n_classes: Number of classes of the task.
        seed: Of everything drawn.
        cold: What becomes of lines of which all know nothing, see `visionloop.selection.cold`.
    """

    pool: Pool
    rows: NDArray[np.intp]
    config: SelectionConfig
    labelled: Reference
    queries: Reference
    n: int
    n_classes: int
    seed: int
    cold: Cold = "keep"

    def space(self, space: str = "") -> str:
        """Return the embedding space of a line, the selection's where it names none.

        Raises:
            InputError: The pool does not have it, or several and none is named.
        """
        return space_of(self.pool, space or self.config.space)

    def vectors(self, space: str) -> tuple[Floats, Floats]:
        """Return the candidates' embeddings and those of what is labelled in the same space.

        The candidates' are a copy, unless all of the pool are candidates.

        Raises:
            InputError: The two have other dimensions.
        """
        x, already = self.candidates(space)
        return np.asarray(x), already

    def candidates(self, space: str) -> tuple[Matrix, Floats]:
        """Return the same without a copy of the candidates', unless they are few of the pool.

        Raises:
            InputError: The two have other dimensions.
        """
        x = self.pool.embeddings[space]
        already = self.labelled.embeddings.get(space)
        if already is None or not len(already):
            already = np.zeros((0, x.shape[1]), dtype=np.float32)
        if already.shape[1] != x.shape[1]:
            raise InputError(
                f"the pool's embeddings have {x.shape[1]} dimensions, those of the labelled "
                f"samples {already.shape[1]}: " + named(self.labelled.sample_ids),
                where=f"embeddings of the space {space!r}",
                remedy="Two models' embeddings were mixed; embed all samples again",
            )
        if len(self.rows) == len(x):
            return x, already
        few = _FEW * len(self.rows) <= len(x)  # they are read faster where they lie together
        return (x[self.rows] if few else Gathered((x, self.rows))), already

    @property
    def empty(self) -> float:
        """What an image counts in which a detector found nothing."""
        return 0.0 if self.config.dialect == "lightly" else float("nan")

    def score(self, name: str, reducer: Reducer | None = None) -> NDArray[np.float64]:
        """Return a score of the candidates, float64 [m], NaN where unknown."""
        space = self.config.space
        if not space and name.startswith(SIMILAR) and len(self.pool.embeddings) > 1:
            space = next(iter(self.pool.embeddings))
        return score_of(
            self.pool,
            name,
            reducer=reducer or self.config.reducer,
            space=space,
            empty=self.empty,
        )[self.rows]


def scored(request: Request, name: str, strength: float = 1.0) -> Fixed:
    """Return the model's uncertainty as an objective.

    Args:
        request: The selection.
        name: See `visionloop.selection.lines.SCORES`.
        strength: Multiplies the log-objective.
    """
    scale = None if request.config.reducer == "sum" else 1.0
    return Fixed(name, request.score(name), strength, scale=scale)


def deployed(request: Request, score: str, strength: float) -> list[Fixed]:
    """Return how uncertain the deployed model was: on the image itself, else on similar ones.

    Two objectives under two names, of which a candidate has one; none where nothing was harvested.
    Both are there whoever the candidates are, so that shards have the same ones.

    Args:
        request: The selection.
        score: margin, least_confidence or entropy.
        strength: Multiplies the log-objective.
    """
    direct = request.score(DEPLOYED + score)
    similar = (
        request.score(SIMILAR + score)
        if request.pool.embeddings
        else np.full(len(request.rows), np.nan)
    )
    both = np.where(np.isnan(direct), similar, direct)
    known = np.isfinite(both)
    if not known.any():
        return []
    neutral = float(np.median(both[known]))
    found: list[Fixed] = [Some(DEPLOYED + score, direct, neutral, ~known, strength)]
    if request.pool.embeddings:
        # Where nothing is known of either, the first counts the neutral value.
        found.append(Some(SIMILAR + score, similar, 1.0, ~known, strength))
    return found


def diversity(
    request: Request,
    strength: float = 1.0,
    *,
    space: str = "",
    minimum_distance: float | None = None,
) -> Diversity:
    """Return k-center over the candidates, starting from what is labelled.

    Args:
        request: The selection.
        strength: Multiplies the log-objective.
        space: Embedding space; empty for the selection's.
        minimum_distance: No two chosen are closer than this.
    """
    x, already = request.candidates(request.space(space))
    return Diversity(x, already, strength, minimum_distance=minimum_distance)


def coverage(request: Request, strength: float = 1.0, *, space: str = "") -> Coverage:
    """Return TypiClust over the candidates and what is labelled.

    Args:
        request: The selection.
        strength: Multiplies the log-objective.
        space: Embedding space; empty for the selection's.
    """
    x, already = request.candidates(request.space(space))
    everything = below(x, already)
    wanted = min(len(already) + request.n, MOST_CLUSTERS)
    k = max(1, min(wanted, len(everything)))
    member = kmeans(everything, k, seed=request.seed)
    typicality = local_typicality(everything, member, k)
    m = len(x)
    return Coverage(
        member[:m],
        np.bincount(member, minlength=k),
        np.bincount(member[m:], minlength=k),
        typicality[:m],
        strength,
    )


def probcover(
    request: Request,
    strength: float = 1.0,
    *,
    space: str = "",
    radius: float | None = None,
    purity: float | None = None,
) -> ProbCover:
    """Return ProbCover over the candidates and what is labelled.

    Args:
        request: The selection.
        strength: Multiplies the log-objective.
        space: Embedding space; empty for the selection's.
        radius: Of the balls; None finds it by purity.
        purity: Share of balls of one class; None for `PURITY`.
    """
    x, already = request.vectors(request.space(space))
    if radius is None:
        everything = np.concatenate([x, already]) if len(already) else x
        radius = radius_of_purity(
            everything, request.n_classes, purity or PURITY, seed=request.seed
        )
    return ProbCover(x, already, radius, strength)


def badge(request: Request, strength: float = 1.0, *, space: str = "") -> Badge:
    """Return BADGE over the candidates; without a model it knows of none.

    Args:
        request: The selection.
        strength: Multiplies the log-objective.
        space: Embedding space; empty for the selection's.

    Raises:
        InputError: The model in service is a detector.
    """
    if request.pool.detections is not None:
        raise InputError(
            "BADGE is about the last layer of a classifier, and the model in service is a detector",
            where="selection",
            remedy="Use uncertainty with a reducer, and diversity",
        )
    x = request.candidates(request.space(space))[0]
    probabilities = request.pool.probabilities
    if probabilities is None:
        probabilities = np.full((len(request.pool), 1), np.nan, dtype=np.float32)
    return Badge(probabilities[request.rows], x, strength, seed=request.seed)
