"""From the lake's tables to the report's data. Reads only; every table may be empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.acting_state import standing_acts
from visionloop.monitoring.ages import with_ages
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.report.accounts import Counts
from visionloop.monitoring.report.annotators import annotators
from visionloop.monitoring.report.cost import cost, stage_seconds
from visionloop.monitoring.report.data import Confusion, Funnel, ReportData, Round, Slice
from visionloop.monitoring.report.data_health import ERROR, INFO, WARNING
from visionloop.monitoring.report.data_map import EmbeddingMap
from visionloop.monitoring.report.data_models import ModelRow
from visionloop.monitoring.report.drift import drift_note, drift_series
from visionloop.monitoring.report.efficiency import efficiency, newest_of_rounds
from visionloop.monitoring.report.galleries import (
    choose,
    current,
    disagreement_gallery,
    error_gallery,
    flag_kinds,
    selection_galleries,
)
from visionloop.monitoring.report.health import (
    acts,
    failed_stages,
    flag_counts,
    left_to_select,
    new_flags,
    not_judged,
    standing_flags,
    still_failed,
)
from visionloop.monitoring.report.lineage import (
    decision_lines,
    lineage,
    with_names,
)
from visionloop.monitoring.report.map import MapSample, embedding_map
from visionloop.monitoring.report.models import Compared, model_rows
from visionloop.monitoring.report.pictures import Pictures
from visionloop.monitoring.report.reading import Reader, array, content, named_model
from visionloop.monitoring.report.verdict import verdict
from visionloop.monitoring.report.verdict_models import Limits
from visionloop.monitoring.report.windows import harvest_counts, windows

if TYPE_CHECKING:
    from visionloop.lake import Lake

Planted = Mapping[str, Mapping[str, int]]


def load_report(
    lake: Lake,
    *,
    version: str | None = None,
    planted: Planted | None = None,
    thresholds: MonitoringConfig | None = None,
    pictures: bool = True,
    now: datetime | None = None,
) -> ReportData:
    """Read all that the report shows.

    Args:
        lake: The lake.
        version: Lake version to describe, the newest by default.
        planted: Defects that were put in on purpose, ``{round id: {kind: n}}``.
        thresholds: Which slices are small.
        pictures: Whether pictures and the embedding map are made too: what numbers alone are
            wanted for goes without, in a fraction of the time.
        now: When the report is made: labels are overdue or not and flags are as old as at that
            time, now by default. Of an older version it is the end of its last stage.
    """
    newest = lake.version()
    reader = Reader(lake, version or newest)
    thresholds = thresholds or MonitoringConfig()
    counts = Counts(reader)
    labelled = array(reader.answers["sample_id"].filter(pc.is_valid(reader.answers["label"])))
    in_holdout = pc.is_in(labelled, value_set=reader.holdout)
    n_holdout = int(pc.sum(in_holdout).as_py() or 0)
    models = model_rows(reader, n_holdout or len(reader.holdout), thresholds)
    rounds = _rounds(reader, counts, models)
    in_service = reader.in_service
    served = next((row for row in models if row.model_id == in_service), None)
    as_of = max((row["finished_at"] for row in reader.runs if row["finished_at"]), default=None)
    old = reader.version != newest
    failed = failed_stages(lake, as_of if old else None)
    at = (as_of if old else now) or datetime.now(UTC)
    flags = with_ages(still_failed(current(reader), failed), at, reader.looked_at)
    costs = cost(reader, models, [one.round_id for one in rounds])
    evaluated = next((row for row in reversed(reader.experiments) if _has_confusion(row)), None)
    series = drift_series(reader, _standing_pairs(flags))
    data = ReportData(
        loop=lake.loop,
        lake=lake.uri,
        version=reader.version,
        as_of=as_of,
        rounds=rounds,
        in_service=in_service,
        in_service_accuracy=served.accuracy if served else None,
        in_service_name=named_model(reader.model_names, in_service),
        n_samples=reader.samples.num_rows,
        n_holdout=len(reader.holdout),
        n_labels=_n_labels(reader),
        confusion=_confusion(evaluated),
        slices=_slices(models, evaluated),
        evaluated=evaluated["model_id"] if evaluated else "",
        windows=windows(reader),
        harvest=harvest_counts(reader),
        total=counts.total(),
        accounts=tuple(counts.account(one.round_id) for one in rounds),
        efficiency=efficiency(reader, models),
        models=models,
        drift=series,
        drift_note=drift_note(series, any(row["stage"] == "monitor" for row in reader.runs)),
        annotators=annotators(reader),
        cost=costs,
        lineage=lineage(reader, models, n_holdout),
        decisions=decision_lines(reader),
        standing=standing_flags(reader, flags),
        acts=acts(reader),
        failed=failed,
        flag_counts=flag_counts(flags),
        upcoming=reader.upcoming,
        not_judged=not_judged(reader, series),
        left_to_select=left_to_select(reader),
        new_flags=new_flags(flags, rounds[-1].round_id if rounds else ""),
    )
    if pictures:
        data = _with_pictures(reader, data, flags, counts, planted)
    else:
        data = replace(
            data,
            flags=flag_kinds(choose(reader, flags), Pictures(reader, ()), planted, reader.upcoming),
            map=EmbeddingMap(reason="Pictures were not asked for."),
        )
    limits = _limits(reader, models, served, at)
    return replace(data, verdict=verdict(data, limits))


def _with_pictures(
    reader: Reader, data: ReportData, flags: pa.Table, counts: Counts, planted: Planted | None
) -> ReportData:
    chosen = choose(reader, flags)
    evidence = {image for flag in data.standing for image in flag.images}
    sample = MapSample(reader, flags, counts.embedded, evidence)
    shown = chosen.samples()
    pictures = Pictures(reader, shown | set(sample.ids))
    pictures.read_media(shown)
    return replace(
        data,
        selections=selection_galleries(reader, chosen, pictures),
        flags=flag_kinds(chosen, pictures, planted, reader.upcoming),
        errors=error_gallery(reader, chosen, pictures),
        disagreements=disagreement_gallery(chosen, pictures),
        map=embedding_map(reader, sample, flags, pictures),
    )


def _standing_pairs(flags: pa.Table) -> set[tuple[str, str]]:
    """Return kind and subject of the flags of endpoints and sources."""
    mine = flags.filter(pc.is_in(flags["subject_type"], value_set=pa.array(["endpoint", "source"])))
    return set(zip(mine["kind"].to_pylist(), mine["subject"].to_pylist(), strict=True))


def _rounds(reader: Reader, counts: Counts, models: Sequence[ModelRow]) -> tuple[Round, ...]:
    held = {row["round_id"]: row for row in reader.rounds}
    loop, random = newest_of_rounds(models, "loop"), newest_of_rounds(models, "random")
    rounds = []
    for round_id in counts.rounds:
        funnel = counts.funnel(round_id)
        # What came in between two rounds is told of; a harvest alone does not make a round.
        if round_id not in held and funnel == Funnel():
            continue
        row = held.get(round_id, {})
        model, other = loop.get(round_id), random.get(round_id)
        waiting = row.get("state") == "waiting"
        missing = int(content(row.get("counts")).get("labels_missing", 0)) if waiting else 0
        rounds.append(
            Round(
                round_id,
                state=row.get("state") or "",
                outcome=row.get("outcome") or "",
                funnel=funnel,
                labels=model.labels if model else None,
                accuracy=model.accuracy if model else None,
                random_accuracy=other.accuracy if other else None,
                model_id=model.model_id if model else "",
                gate=model.gate if model else "",
                gate_reason=with_names(reader, model.gate_reason) if model else "",
                missing_labels=missing,
                spaces=_spaces(reader, round_id),
                seconds=stage_seconds(reader.runs, round_id),
                opened_at=row.get("opened_at"),
            )
        )
    return tuple(rounds)


def _spaces(reader: Reader, round_id: str) -> tuple[tuple[str, str], ...]:
    for row in reversed(reader.runs):
        outputs = content(row["outputs"]) if row["stage"] == "infer" else {}
        if row["round_id"] == round_id and outputs.get("space"):
            found = [(str(outputs["space"]), str(outputs.get("source") or ""))]
            if outputs.get("model_space"):
                name = named_model(reader.model_names, str(outputs.get("model_id") or ""))
                found.append((str(outputs["model_space"]), name))
            return tuple(found)
    return ()


def _n_labels(reader: Reader) -> int:
    """Return labels that people, tools or imports gave and that are not the holdout's."""
    rows = reader.answers
    given = pc.not_equal(pc.fill_null(rows["origin"], ""), "model")
    rows = rows.filter(pc.and_(pc.is_valid(rows["label"]), given))
    held = pc.is_in(array(rows["sample_id"]), value_set=reader.holdout)
    n: int = rows.num_rows - int(pc.sum(held).as_py() or 0)
    return n


def _has_confusion(row: Mapping[str, Any]) -> bool:
    return row["arm"] != "random" and bool(row["confusion"])


def _confusion(model: Mapping[str, Any] | None) -> Confusion | None:
    told = content(model["confusion"]) if model else {}
    if not told.get("classes"):
        return None
    return Confusion(
        tuple(str(name) for name in told["classes"]),
        tuple(tuple(int(n) for n in row) for row in told["counts"]),
    )


def _slices(models: Sequence[ModelRow], model: Mapping[str, Any] | None) -> tuple[Slice, ...]:
    wanted = model["model_id"] if model else ""
    own = next((row for row in models if wanted and row.model_id == wanted), None)
    rows = own.slices if own else ()
    return tuple(Slice(row.column, row.value, row.accuracy, row.small) for row in rows)


def _limits(
    reader: Reader, models: Sequence[ModelRow], served: ModelRow | None, now: datetime | None
) -> Limits:
    """Return what the verdict holds the loop against."""
    gate = next((row for row in reversed(reader.decisions) if row["decision"] == "gate"), None)
    least = content(gate["inputs"]).get("min_accuracy") if gate else None
    best, behind = None, None
    published = {
        row["subject"]
        for row in reader.decisions
        if row["decision"] in ("publish", "rollback") and row["outcome"] == "published"
    }
    others = [
        row for row in models if row.accuracy and row.model_id in published and row is not served
    ]
    if others and served is not None and served.accuracy is not None:
        best = max(others, key=lambda row: row.accuracy.value if row.accuracy else 0.0)
        behind = Compared(reader).difference(served.model_id, served.accuracy, best)
    return Limits(
        None if least is None else float(least),
        best,
        behind,
        _deadline(reader),
        _rollbacks(reader, served),
        now,
    )


def _deadline(reader: Reader) -> datetime | None:
    for row in reversed(reader.runs):
        if row["stage"] == "collect_labels":
            told = content(row["outputs"]).get("deadline")
            if not isinstance(told, str) or not told:
                return None
            at = datetime.fromisoformat(told)
            return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None


def _rollbacks(reader: Reader, served: ModelRow | None) -> tuple[tuple[str, str], ...]:
    held = standing_acts(reader.decisions)
    names = reader.model_names
    found = []
    if held.called_for is not None:
        swap = held.called_for
        before = named_model(names, swap.before)
        text = f"The {before} is to be rolled back and was not yet: {swap.why}"
        found.append((ERROR, with_names(reader, text)))
    for model_id in sorted(held.tried):
        text = f"Rolling back the {named_model(names, model_id)} failed."
        found.append((ERROR if served and served.model_id == model_id else INFO, text))
    for model_id, swap in sorted(held.rolled_back.items()):
        if served is not None and swap.model_id == served.model_id:
            text = (
                f"The {named_model(names, model_id)} was rolled back; the {served.name} serves "
                f"again: {swap.why}"
            )
            found.append((WARNING, with_names(reader, text)))
    return tuple(found)
