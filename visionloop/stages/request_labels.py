"""Stage `request_labels`: ask for labels of what was selected, and once of each holdout sample."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.errors import VisionloopError
from visionloop.stages.artifacts import MetricsArtifact, log_metrics
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from visionloop.inference.images import Loaded
    from visionloop.labeling.requests import Wanted
    from visionloop.lake import Lake
    from visionloop.lake.run import Run


class RequestLabelsOutputs(NamedTuple):
    """What `request_labels` returns.

    Attributes:
        lake_version: Lake version with the requests.
        n_requested: Samples of this round that people or the oracle are asked about.
    """

    lake_version: str
    n_requested: int


@stage
def request_labels(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    run_id: str = "",
    metrics: MetricsArtifact | None = None,
) -> RequestLabelsOutputs:
    """Request labels for the round's picks, for relabels, and for holdout samples that have none.

    Before that the model in service labels what it may (``labeling.auto_labels``), and people are
    asked about a random share of these labels.

    So the first round asks for the whole holdout beside its picks. Each sample is asked about once,
    however often the stage runs: the provider is handed the requests before the lake is told of
    them, and does not make those again that it has. People look at the files themselves: a sample
    whose file was overwritten since its ingest is flagged and not asked about.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        run_id: The run that asks.
        metrics: Receives the number of requests, by what for.

    Raises:
        InputError: The provider is not there, or refuses what the configuration says.
        VisionloopError: It does not answer, or did not take every request.
    """
    import pyarrow as pa

    from visionloop.labeling import requests
    from visionloop.labeling.answers import MODEL, latest_answers
    from visionloop.labeling.auto.labelling import auto_label
    from visionloop.labeling.opening import answers_alone, open_provider, provider_name
    from visionloop.labeling.overview import open_samples
    from visionloop.lake.schemas import arrow_schema

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    provider = open_provider(loop, opened)
    with opened.run(
        stage="request_labels", round_id=round_id, run_id=run_id, base_version=lake_version
    ) as run:
        # Labelled or skipped by people: in either case nobody is asked again.
        labels = run.read("labels").to_pylist()
        answered = latest_answers((row for row in labels if row["origin"] != MODEL), loop.task)
        asked = run.read("label_requests").to_pylist()
        held = [row for row in asked if row["round_id"] == run.round_id]
        before = {row["sample_id"] for row in asked if row["round_id"] != run.round_id and
                  not row["recalled"]}  # fmt: skip
        holdout = run.read("samples", columns=["sample_id"], where="split == 'holdout'")
        unknown = set(holdout["sample_id"].to_pylist()) - before - answered.keys()
        automatic = auto_label(run, opened, loop, datetime.now(UTC))
        kinds = [requests.picks(run, loop), requests.extra_asks(run, loop), automatic.audits]
        listed = {one.sample_id for kind in kinds for one in kind}
        kinds.append(requests.holdout_asks(loop, unknown - listed))
        wanted = requests.interleaved(*kinds)
        places: dict[str, str] = {}
        if loop.labeling.provider != "oracle":
            places = _places(opened, run, wanted, held, check_held=loop.labeling.provider == "csv")
            # Nobody is asked of a picture about another one.
            mine = {row["sample_id"] for row in held}
            wanted = [one for one in wanted if one.sample_id in mine or places.get(one.sample_id)]
        rows = requests.request_rows(wanted, held, loop, run.round_id, datetime.now(UTC))
        open_rows = [row for row in rows if not row["recalled"]]
        # Whoever has answered is not asked again, also where the task was deleted since; and what
        # cannot be shown any more stays as it is at the tool.
        still = open_samples(opened, rows, run.round_id, run.base)
        shown = [
            row
            for row in open_rows
            if answers_alone(loop) or (places.get(row["sample_id"]) and row["sample_id"] in still)
        ]
        asks = requests.build_asks(loop, opened, shown, places, version=run.base)
        external = provider.request(run.round_id, asks) if asks else {}
        _check_taken([ask.sample_id for ask in asks], external, loop.labeling.provider)
        for row in shown:
            row["external_id"] = external[row["sample_id"]]
            row["provider"] = provider_name(loop)
        automatic.write(run)
        if rows != held:
            table = pa.Table.from_pylist(rows, schema=arrow_schema("label_requests"))
            run.replace("label_requests", table, f"round_id == '{run.round_id}'")
        version = run.commit(counts={"requested": len(open_rows), **automatic.counts})
    purposes = Counter(f"n_{row['purpose']}" for row in open_rows)
    log_metrics(metrics, {"n_requested": len(open_rows), **purposes, **automatic.counts})
    return RequestLabelsOutputs(version, len(open_rows))


def _check_taken(asked: Collection[str], external: Mapping[str, str], provider: str) -> None:
    lost = [sample for sample in asked if sample not in external]
    if lost:
        raise VisionloopError(
            f"the provider took {len(asked) - len(lost):,} of {len(asked):,} requests",
            where=f"labeling.provider {provider}, for example sample {lost[0]}",
            remedy="Its method `request` has to return what it calls each of them; nothing was "
            "noted in the lake, run the round again",
        )


def _places(
    lake: Lake,
    run: Run,
    wanted: Sequence[Wanted],
    held: Sequence[Mapping[str, Any]],
    *,
    check_held: bool,
) -> dict[str, str]:
    """Return where samples lie; empty for one whose file holds other bytes now, which is flagged.

    Args:
        lake: The lake.
        run: The run of the stage.
        wanted: What is to be asked.
        held: What was asked before in this round.
        check_held: Read the files of those as well.
    """
    from visionloop.inference.images import flag_unreadable

    mine = [row["sample_id"] for row in held]
    ids = [*dict.fromkeys([one.sample_id for one in wanted] + mine)]
    places = lake.media(ids, version=run.base or None)
    known = set() if check_held else set(mine)
    looked_at = {sample: uri for sample, uri in places.items() if sample not in known}
    changed = _overwritten(lake, looked_at)
    flag_unreadable(lake, run, changed, looked_at, stage="request_labels")
    return places | {one.sample_id: "" for one in changed}


def _overwritten(lake: Lake, media: Mapping[str, str]) -> list[Loaded[Any]]:
    """Return the samples whose files hold other bytes now; those in the lake's own media never do.

    Args:
        lake: The lake.
        media: URI by sample id.
    """
    from visionloop.inference.images import Loaded
    from visionloop.lake.identity import is_sample
    from visionloop.monitoring.media_reading import read_media

    own = lake.path("media") + "/"
    samples: dict[str, list[str]] = {}
    for sample, uri in media.items():
        if uri and not uri.startswith(own):
            samples.setdefault(uri, []).append(sample)
    return [
        Loaded(sample, uri, None, "changed", "the file was replaced after its ingest")
        for uri, data in read_media(lake, samples)
        if isinstance(data, bytes)
        for sample in samples[uri]
        if not is_sample(sample, data)
    ]
