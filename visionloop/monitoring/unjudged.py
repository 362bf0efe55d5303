"""What a look could not judge because there is too little of it, in words and numbers.

Where nothing is flagged, either nothing is odd or nobody could tell: the two must not look alike.
What the configuration switches off is no part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from visionloop.monitoring.drift_kinds import DRIFT_KINDS
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.monitoring.config import MonitoringConfig
    from visionloop.monitoring.outliers import Outliers
    from visionloop.monitoring.silence import Silence
    from visionloop.monitoring.slow_stages import Pace

LABELS, OUTLIER, SEMANTIC = "label_suspect", "outlier", "semantic_duplicate"
QUALITY = (
    "blurred", "dark", "bright", "low_contrast", "low_information", "odd_aspect", "grey", "tiny"
)  # fmt: skip
# Of pictures that came in: they are judged once, when they are new.
OF_PICTURES = frozenset({OUTLIER, SEMANTIC, *QUALITY})
OF_DRIFT = frozenset(kind.name for kind in DRIFT_KINDS)
# As `visionloop.monitoring.drift` says it.
TOO_FEW, NOTHING_TO_COMPARE = "too few to say", "nothing to compare"
_OBJECTS_SAID = "of objects alone, which nothing here judges"
_SUBJECTS = 20
_NAMED = 3


@dataclass(frozen=True)
class Unjudged:
    """A question without an answer.

    Attributes:
        kinds: The kinds of flag that were not looked for.
        text: One sentence: of what, why not, how many there are and how many are needed.
        n: How many subjects (labels, cameras, stages, pictures, measures) were not judged.
        needed: How many of what is counted are needed; None where no number would do.
        have: How many there are: of each subject by its name, the most first, at most 20; under ""
            where there is one subject.
        earlier: Whether this is of pictures that came in before the newest ones: each is looked at
            once, so what it was not judged for then it never is.
        again: How many of the subjects the next look has before it once more: pictures that got no
            check, for ingest took no measures of them.
    """

    kinds: tuple[str, ...]
    text: str
    n: int
    needed: int | None = None
    have: Mapping[str, int] = field(default_factory=dict)
    earlier: bool = False
    again: int = 0

    def plain(self) -> dict[str, Any]:
        """Return it fit for JSON, as the monitor's run and the report's numbers hold it."""
        return {**asdict(self), "kinds": list(self.kinds), "have": dict(self.have)}


def read_unjudged(rows: Iterable[Mapping[str, Any]]) -> tuple[Unjudged, ...]:
    """Return what `Unjudged.plain` made."""
    return tuple(
        Unjudged(
            tuple(str(kind) for kind in row["kinds"]),
            str(row["text"]),
            int(row["n"]),
            row["needed"],
            dict(row["have"]),
            bool(row.get("earlier", False)),
            int(row.get("again", 0)),
        )
        for row in rows
    )


def title_of(one: Unjudged) -> str:
    """Return what was not looked for: the kinds of flag by name, for their titles say it is so."""
    if one.kinds == QUALITY:
        return "Quality of pictures"
    return ", ".join(kind.replace("_", " ") for kind in one.kinds).capitalize()


def of_pictures(
    outliers: Outliers,
    n_measured: int,
    n_vectors: int | None,
    thresholds: MonitoringConfig,
    again: tuple[int, int] = (0, 0),
) -> tuple[Unjudged, ...]:
    """Return what new pictures were not judged for.

    Args:
        outliers: How they were judged for lying far from all others.
        n_measured: Pictures whose quality was measured, the earlier ones among them.
        n_vectors: Pictures with an embedding; None where no semantic duplicate was looked for.
        thresholds: ``min_population``, ``outlier_share`` and ``outlier_min_reference``.
        again: How many pictures got no check and are new to the next look, too: those with an
            embedding, and those without.
    """
    found, least = [], thresholds.min_population
    with_vector, without = again
    if n_measured < least:
        text = (
            f"What is usual cannot be learned from {counted(n_measured, 'picture')}, {least:,} are "
            "needed: only the absolute limits hold."
        )
        found.append(Unjudged(QUALITY, text, n_measured, least, {"": n_measured}))
    if n_vectors is not None and n_vectors < least:
        text = (
            f"{counted(n_vectors, 'picture has', 'pictures have')} an embedding, {least:,} are "
            "needed to tell how near is usual."
        )
        have = {"": n_vectors}
        found.append(Unjudged((SEMANTIC,), text, n_vectors, least, have, again=with_vector))
    if thresholds.outlier_share and outliers.n_unjudged:
        many, needed = outliers.n_reference, thresholds.outlier_min_reference
        n = counted(outliers.n_unjudged, "new picture was", "new pictures were")
        text = f"{n} not judged: {outliers.why_not}."
        few = 0 < many < needed
        found.append(
            Unjudged(
                (OUTLIER,),
                text,
                outliers.n_unjudged,
                needed if few else None,
                {"": many} if few else {},
                again=with_vector,
            )
        )
    if thresholds.outlier_share and outliers.n_without:
        text = (
            f"{counted(outliers.n_without, 'new picture has', 'new pictures have')} no embedding."
        )
        found.append(Unjudged((OUTLIER,), text, outliers.n_without, again=without))
    return tuple(found)


def with_earlier(
    found: Sequence[Unjudged] | None, before: Sequence[Unjudged]
) -> tuple[Unjudged, ...]:
    """Return what pictures were not judged for, those that came in before among them.

    Args:
        found: From `of_pictures`, of the newest pictures; None where none is new.
        before: What the look before this one told of pictures.
    """
    if found is None:
        return tuple(before)
    # These count all pictures so far, the earlier ones among them.
    whole = {one.kinds for one in found} & {QUALITY, (SEMANTIC,)}
    kept = []
    for kinds in dict.fromkeys(one.kinds for one in before if one.kinds not in whole):
        n = sum(one.n - one.again for one in before if one.kinds == kinds)
        if n <= 0:
            continue
        said = counted(n, "picture that came in earlier was", "pictures that came in earlier were")
        how = "judged by the absolute limits alone" if kinds == QUALITY else "not judged"
        text = f"{said} {how}: each is looked at once."
        kept.append(Unjudged(kinds, text, n, earlier=True))
    return (*found, *kept)


def of_labels(told: Mapping[str, Any]) -> list[Unjudged]:
    """Return which labels were not judged, by why.

    Args:
        told: What the run that judged them tells: ``in``, ``why_unchecked`` and ``doubt``; empty
            where none were judged.
    """
    from visionloop.labeling.trust.labelled import AUTOMATIC, OBJECTS, SMALL_POOL
    from visionloop.labeling.trust.out_of_sample import LEAST_LABELS
    from visionloop.labeling.trust.suspect_flags import LEAST_TAUGHT, TOO_FEW, TOO_WEAK

    enough = {TOO_FEW: LEAST_TAUGHT, SMALL_POOL: LEAST_LABELS}
    found = []
    unchecked, doubt = told.get("why_unchecked") or {}, told.get("doubt")
    for why, n in sorted(unchecked.items(), key=lambda one: (-one[1], one[0])):
        if why == AUTOMATIC:
            continue  # people's answers to a random share of them judge these
        text = f"{n:,} of {counted(told['in'], 'label')} {'was' if n == 1 else 'were'} not judged: "
        text += _OBJECTS_SAID if why == OBJECTS else why
        needed = enough.get(why)
        if needed is not None:
            text += f" ({needed:,} are needed)"
        elif why == TOO_WEAK and doubt:
            text += f" (skill {doubt['skill']:.2f}, {doubt['least_skill']:.2f} is needed)"
        found.append(Unjudged((LABELS,), f"{text}.", n, needed))
    return found


def of_answers(why: str, n: int, n_holdout: int | None, least: int) -> list[Unjudged]:
    """Return why labels were not held against the answers of the model in service.

    Args:
        why: Why not; empty where they were.
        n: Labels that it answered to.
        n_holdout: Those of the holdout among them; None where no model answers.
        least: How many of the holdout it takes.
    """
    if not why:
        return []
    have, needed = ({}, None) if n_holdout is None else ({"": n_holdout}, least)
    kinds = ("confident_disagreement", "stale_label")
    return [Unjudged(kinds, f"{why[:1].upper()}{why[1:]}.", n, needed, have)]


def of_paces(paces: Sequence[Pace], least: int) -> list[Unjudged]:
    """Return the stages of which nobody can tell whether they are slow.

    Args:
        paces: From `visionloop.monitoring.slow_stages.paces`.
        least: ``slow_stage_min_runs``.
    """
    untold = [pace for pace in paces if pace.state == "too few to say"]
    have = {pace.stage: pace.n_runs for pace in untold if pace.n_runs < least}
    found = _few("slow_stage", have, least, "stage", "earlier runs")
    rest = [pace.stage for pace in untold if pace.n_runs >= least]
    if rest:
        had = "had more work than its runs before can tell about"
        if len(rest) > 1:
            had = "had more work than their runs before can tell about"
        found.append(Unjudged(("slow_stage",), f"{_listed(rest)} {had}.", len(rest)))
    return found


def of_silences(judged: Sequence[Silence], least: int) -> list[Unjudged]:
    """Return the cameras that have too little history to be called silent.

    Args:
        judged: From `visionloop.monitoring.silence.silences`.
        least: ``silence_min_gaps``.
    """
    have = {one.camera: one.n for one in judged if one.state == "too few"}
    return _few("camera_silent", have, least, "camera", "gaps or days before")


def of_comparisons(rows: Iterable[Mapping[str, Any]]) -> list[Unjudged]:
    """Return which measures of drift could not be compared, by subject and why.

    Args:
        rows: Comparisons with ``kind``, ``subject``, ``state`` and ``reason``.
    """
    held: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["state"] in (TOO_FEW, NOTHING_TO_COMPARE):
            kinds = held.setdefault((row["subject"], row["reason"] or row["state"]), [])
            if row["kind"] not in kinds:
                kinds.append(row["kind"])
    return [
        Unjudged(tuple(kinds), f"{subject}: {reason.rstrip('.')}.", len(kinds))
        for (subject, reason), kinds in held.items()
    ]


def _few(kind: str, have: Mapping[str, int], needed: int, what: str, units: str) -> list[Unjudged]:
    if not have:
        return []
    most = dict(sorted(have.items(), key=lambda one: (-one[1], one[0]))[:_SUBJECTS])
    named = _listed([f"{name} ({n:,})" for name, n in most.items()], len(have))
    of = counted(len(have), f"{what} has", f"{what}s have")
    text = f"{of} too few {units} to tell a pace, {needed:,} are needed: {named}."
    return [Unjudged((kind,), text, len(have), needed, most)]


def _listed(names: Sequence[str], total: int = 0) -> str:
    more = max(total, len(names)) - _NAMED
    said = ", ".join(names[:_NAMED])
    return f"{said} and {more:,} more" if more > 0 else said
