"""Stage `collect_labels`: bring labels into the lake, and say whether the round can go on."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.stages.artifacts import Artifact, MetricsArtifact, log_metrics, write_page
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from visionloop.config import LoopConfig
    from visionloop.labeling.collecting import Settled
    from visionloop.labeling.provider import LabelingProvider
    from visionloop.lake import Lake
    from visionloop.lake.run import Run


class CollectLabelsOutputs(NamedTuple):
    """What `collect_labels` returns.

    Requests are n_labels + n_skipped + n_missing, and those that people disagree about or that were
    taken back, which the page and the stage's counts tell.

    Attributes:
        lake_version: Lake version with the new labels.
        trainable_version: The same once the round has enough answers; empty while it waits for
            people, and where it ends since nearly all was skipped.
        n_labels: Labels of this round that are there.
        n_missing: Requests of this round that are open.
        n_skipped: Requests of this round that nobody can label.
    """

    lake_version: str
    trainable_version: str
    n_labels: int
    n_missing: int
    n_skipped: int


@stage
def collect_labels(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    run_id: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> CollectLabelsOutputs:
    """Collect the answers to the round's label requests, and decide whether the round goes on.

    Every person's answer is kept in `annotations`; what the answers come to is a row of `labels`. A
    sample that a person skips, or that the oracle does not know, is a row without a label, of the
    origin ``skipped``: it is never asked about, selected, trained on or evaluated. A label that is
    imported later takes its place. A sample that people disagree about is flagged and asked about
    again, some times; as long as they do, it has no label. What was answered to earlier rounds
    after they went on is collected too.

    A round goes on by the rules of ``labeling.ready``. What is still open then is taken back, so
    that nobody labels for nothing, and can be selected again; a request that somebody has begun
    stays, and its answer counts when it comes.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version that the pipeline is at, the key of its cache; the newest is read.
        round_id: The round; empty for the open one.
        run_id: The run that collects.
        metrics: Receives the counts of requests and answers.
        page: Receives a Markdown page.

    Raises:
        InputError: A list of answers holds one of a class that the configuration lacks.
        VisionloopError: The provider does not answer; nothing was stored, and nothing is lost.
    """
    from visionloop.labeling.auto.audits import judge_audits
    from visionloop.labeling.collecting import settle
    from visionloop.labeling.opening import open_provider, provider_name
    from visionloop.labeling.writing import write
    from visionloop.stages.labels_page import counts_of, labels_page

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    provider, now = open_provider(loop, opened), datetime.now(UTC)
    with opened.run(stage="collect_labels", round_id=round_id, run_id=run_id) as run:
        held = opened.rounds.get(run.round_id)
        over = held is not None and held.state == "done"
        settled = settle(loop, opened, provider, run.round_id, now, version=run.base, final=over)
        labels = run.read("labels").to_pylist()
        late = [
            settle(loop, opened, provider, earlier, now, version=run.base, final=True)
            for earlier in _earlier(run, loop, labels)
        ]
        goes_on = settled.ready.ready
        if goes_on and not over:
            _recall(provider, settled, loop)
            _settle_for(provider, settled, loop, opened, run.base)
        elif settled.ask_again and not over:
            _ask_again(provider, settled, loop, opened, run.base)
        new = write(run, loop, settled, labels, now)
        for one in late:
            new += write(run, loop, one, labels, now)
        new += judge_audits(run, loop, [*labels, *new], now).rows
        # Nothing can be trained on, and nobody is asked again: the next round picks other samples.
        unusable = len(settled.requests) + len(settled.recalled) > len(settled.samples("labelled"))
        ended = goes_on and unusable and _n_trainable(run, [*labels, *new]) < 2
        counts = counts_of(settled)
        if not over:
            run.set_round(
                state="waiting" if not goes_on else "done" if ended else "running",
                outcome="kept" if ended else None,
                counts={
                    "labels": counts["ok"],
                    "labels_skipped": counts["skipped"],
                    "labels_missing": counts["missing"],
                    "labels_conflicts": counts["conflicts"],
                    "labels_recalled": counts["recalled"],
                },
            )
        name = provider_name(loop)
        version = run.commit(
            counts=counts,
            outputs={
                "waiting_for": "" if goes_on else settled.where,
                "ready": settled.ready.why,
                "deadline": settled.ready.deadline,
                "late": {one.round_id: len(one.annotations) for one in late},
                "cursors": {
                    one.round_id: {"provider": name, "cursor": one.cursor}
                    for one in (settled, *late)
                },
            },
        )
    told = {"n_labels": counts["ok"], "n_skipped": counts["skipped"]}
    told["n_missing"] = counts["missing"]
    more = {f"n_{key}": counts[key] for key in counts if key not in ("in", "ok", *_TOLD)}
    log_metrics(metrics, told | more)
    write_page(page, labels_page(settled, late, loop, ended=ended))
    trainable = version if goes_on and not ended else ""
    return CollectLabelsOutputs(version, trainable, **told)


_TOLD = ("skipped", "missing")


def _earlier(run: Run, loop: LoopConfig, labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the earlier rounds that went on without an answer which may have come since."""
    from visionloop.labeling.answers import MODEL, standing
    from visionloop.labeling.opening import provider_name

    columns = ["sample_id", "round_id", "recalled", "provider", "purpose", "answers"]
    rows = run.read("label_requests", columns=columns).to_pylist()
    rows = [
        row
        for row in rows
        if row["round_id"] < run.round_id
        and not row["recalled"]
        and row["provider"] == provider_name(loop)
    ]
    said = {
        row["sample_id"] for row in standing(r for r in labels if r["origin"] != MODEL).values()
    }
    rounds = {row["round_id"] for row in rows if row["sample_id"] not in said}
    several = [row for row in rows if (row["answers"] or 1) > 1 and row["round_id"] not in rounds]
    if several:
        names = ["sample_id", "round_id", "annotator", "external_id", "state"]
        came = _came(run.read("annotations", columns=names).to_pylist())
        # Of those that nobody has answered the label came in another way.
        rounds |= {
            row["round_id"]
            for row in several
            if 0 < came[row["round_id"], row["sample_id"]] < row["answers"]
        }
    return sorted(rounds)


def _came(annotations: Sequence[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """Return how many people have answered or skipped, by round and sample."""
    from visionloop.labeling.provider import DONE, SKIPPED

    people = {
        (row["round_id"], row["sample_id"], row["annotator"] or row["external_id"])
        for row in annotations
        if row["state"] in (DONE, SKIPPED)
    }
    return Counter((round_id, sample) for round_id, sample, _ in people)


def _begun(settled: Settled) -> set[str]:
    return {row["sample_id"] for row in settled.annotations if row["state"] == "draft"}


def _recall(provider: LabelingProvider, settled: Settled, loop: LoopConfig) -> None:
    """Take requests back, so that nobody labels for a round that has gone on.

    Those that are open; and the tasks of those that nobody has answered since the label came in
    another way, which stay answered.
    """
    from visionloop.labeling.deciding import OPEN
    from visionloop.labeling.opening import provider_name

    left = settled.samples(OPEN) - _begun(settled)
    touched = {row["sample_id"] for row in settled.annotations}
    ids = {
        row["sample_id"]: row["external_id"] or ""
        for row in settled.requests
        if row["sample_id"] in left
        or (row["sample_id"] not in touched and row["provider"] == provider_name(loop))
    }
    if ids:
        settled.take_back(left.intersection(provider.recall(settled.round_id, ids)))


def _settle_for(
    provider: LabelingProvider, settled: Settled, loop: LoopConfig, lake: Lake, version: str
) -> None:
    """Ask for no more answers than came, so that nobody is shown tasks of a round that went on.

    A request that somebody has begun to answer stays as it is: that answer is waited for.
    """
    from visionloop.labeling.requests import build_asks

    came, begun = _came(settled.annotations), _begun(settled)
    rows = []
    for row in settled.requests:
        n_came = came[settled.round_id, row["sample_id"]]
        if 0 < n_came < (row["answers"] or 1) and row["sample_id"] not in begun:
            row["answers"] = n_came
            rows.append(row)
    if rows:
        places = lake.media([row["sample_id"] for row in rows], version=version or None)
        provider.request(settled.round_id, build_asks(loop, lake, rows, places, version=version))


def _ask_again(
    provider: LabelingProvider, settled: Settled, loop: LoopConfig, lake: Lake, version: str
) -> None:
    """Ask one more person about each sample that people disagree about."""
    from visionloop.labeling.requests import build_asks

    rows = [row for row in settled.requests if row["sample_id"] in settled.ask_again]
    for row in rows:
        row["answers"] = (row["answers"] or 1) + 1
    places = lake.media([row["sample_id"] for row in rows], version=version or None)
    provider.request(settled.round_id, build_asks(loop, lake, rows, places, version=version))


def _n_trainable(run: Run, answers: list[dict[str, Any]]) -> int:
    from visionloop.labeling.answers import latest_labels

    pool = run.read("samples", columns=["sample_id"], where="split == 'pool'")
    return len(latest_labels(answers).keys() & set(pool["sample_id"].to_pylist()))
