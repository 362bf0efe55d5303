"""What became of logged events, and of the inferences that they told of."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.report.data_funnel import Part, Step, parts
from visionloop.monitoring.report.reading import Reader, array

_EVENT_STATES = {
    "pending": "waiting for their other half",
    "orphan": "whose other half never came",
    "rejected": "refused",
    "ignored": "about something else",
    "duplicate": "delivered again",
}


def event_states(reader: Reader) -> Counter[tuple[str, str]]:
    """Return how many logged events ended in each state, by state and reason."""
    states: Counter[tuple[str, str]] = Counter()
    for batch in reader.batches("harvest_events", "state", "reason"):
        table = pa.Table.from_batches([batch]).group_by(["state", "reason"])
        for row in table.aggregate([([], "count_all")]).to_pylist():
            states[row["state"] or "", row["reason"] or ""] += row["count_all"]
    return states


def events(reader: Reader) -> tuple[Step, ...]:
    """Return what became of the logged events, and of the inferences that they told of."""
    states = event_states(reader)
    logged = sum(states.values())
    if not logged:
        return ()
    harvested = sum(n for (state, _), n in states.items() if state == "harvested")
    rest = []
    for (state, reason), n in sorted(states.items(), key=lambda item: (-item[1], item[0])):
        if state != "harvested":
            words = _EVENT_STATES.get(state, state)
            rest.append(Part(f"{words}: {reason.replace('_', ' ')}" if reason else words, n))
    n, linked, gone = 0, Counter[str](), 0
    samples = array(reader.samples["sample_id"])
    for batch in reader.batches("confidences", "sample_id", "linked_by"):
        n += batch.num_rows
        named = pc.is_valid(batch["sample_id"])
        there = pc.is_in(batch["sample_id"].cast(pa.string()), value_set=samples)
        there = pc.and_(named, there)
        gone += int(pc.sum(named).as_py() or 0) - int(pc.sum(there).as_py() or 0)
        by = batch["linked_by"].cast(pa.string()).filter(there)
        for row in pc.value_counts(pc.fill_null(by, "hash")).to_pylist():
            linked[row["values"]] += row["counts"]
    inside = sum(linked.values())
    linked_by = {
        "hash": "by the picture's bytes",
        "header": "by the id in the request's header",
        "embedding": "by the embedding in the reply",
    }
    return (
        Step("logged", "Events logged", "events", logged),
        Step("harvested", "Harvested", "events", harvested, logged, "logged", rest=tuple(rest)),
        Step(
            "inferences",
            "Inferences known",
            "inferences",
            n,
            note="A request and its reply are two events and may hold several pictures.",
        ),
        Step(
            "linked",
            "Of pictures of the lake",
            "inferences",
            inside,
            n,
            "inferences",
            rest=parts(
                ("of pictures that nothing names", n - inside - gone),
                ("of pictures that the lake does not hold", gone),
            ),
            kept=tuple(Part(linked_by.get(by, by), count) for by, count in sorted(linked.items())),
        ),
    )
