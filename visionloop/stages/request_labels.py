"""Stage `request_labels`: ask for labels of what was selected, and once of each holdout sample."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visionloop.inference.images import Loaded
    from visionloop.lake import Lake


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
    *, config: str, lake: str = "", lake_version: str = "", round_id: str = "", run_id: str = ""
) -> RequestLabelsOutputs:
    """Request labels for the round's picks and for holdout samples that have none.

    So the first round asks for the whole holdout beside its picks. Each sample is asked about once,
    however often the stage runs. People look at the files themselves: a sample whose file was
    overwritten since its ingest is flagged and not asked about.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        run_id: The run that asks.
    """
    import pyarrow as pa

    from visionloop.inference.images import flag_unreadable
    from visionloop.labeling.answers import latest_answers
    from visionloop.labeling.requests import write_requests
    from visionloop.lake.schemas import arrow_schema

    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    with opened.run(
        stage="request_labels", round_id=round_id, run_id=run_id, base_version=lake_version
    ) as run:
        this_round = f"round_id == '{run.round_id}'"
        picks = run.read("selections", columns=["sample_id", "rank"], where=this_round)
        # Labelled or skipped: in either case nobody is asked again.
        answered = latest_answers(run.read("labels").to_pylist(), loop.task)
        asked = run.read("label_requests", columns=["sample_id", "purpose", "round_id"]).to_pylist()
        before = {row["sample_id"] for row in asked if row["round_id"] != run.round_id}
        holdout = run.read("samples", columns=["sample_id"], where="split == 'holdout'")
        ranked = picks.sort_by("rank")["sample_id"].to_pylist()
        wanted = [(sample, "training") for sample in ranked]
        wanted += [
            (sample, "holdout")
            for sample in sorted(holdout["sample_id"].to_pylist())
            if sample not in before and sample not in answered
        ]
        # Answers of this round's own requests stay part of it when the stage runs again.
        mine = {
            row["sample_id"]: row["purpose"] for row in asked if row["round_id"] == run.round_id
        }
        places: dict[str, str] = {}
        if loop.labeling.provider == "csv":
            places = opened.media([s for s, _ in wanted] + [*mine], version=run.base or None)
            changed = _overwritten(opened, places)
            flag_unreadable(opened, run, changed, places, stage="request_labels")
            for one in changed:
                places[one.sample_id] = ""
            # Nobody is asked of a picture about another one.
            left = {one.sample_id for one in changed} - mine.keys()
            wanted = [(sample, why) for sample, why in wanted if sample not in left]
        listed = {sample for sample, _ in wanted}
        wanted += [(sample, why) for sample, why in sorted(mine.items()) if sample not in listed]
        if set(mine) != {sample for sample, _ in wanted}:
            now = datetime.now(UTC)
            rows = [
                {
                    "sample_id": sample,
                    "purpose": purpose,
                    "provider": loop.labeling.provider,
                    "external_id": "",
                    "requested_at": now,
                }
                for sample, purpose in wanted
            ]
            requests = pa.Table.from_pylist(rows, schema=arrow_schema("label_requests"))
            run.replace("label_requests", requests, this_round)
        if loop.labeling.provider == "csv" and wanted:
            write_requests(opened, run.round_id, wanted, places)
        version = run.commit(counts={"requested": len(wanted)})
    return RequestLabelsOutputs(version, len(wanted))


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
