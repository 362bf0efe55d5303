"""What is told: events made of rows of the lake, in the forms that receivers take."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from visionloop.monitoring.acting_state import OVERTAKEN
from visionloop.monitoring.kinds import KINDS, SEVERITIES, Kind, Severity
from visionloop.monitoring.telling import evidence_of
from visionloop.redaction import redacted
from visionloop.words import counted, round_name

FLAGS = "org.visionloop.flags.new"
DECISION = "org.visionloop.decision"
FAILED = "org.visionloop.stage.failed"
TEST = "org.visionloop.test"
SORTS = {FLAGS: "flags", DECISION: "decisions", FAILED: "failures"}
# Worst examples of each kind of flag in an event.
EXAMPLES = 3
# How grave a decision is, by itself and its outcome; "" is any other outcome.
_DECISIONS: dict[tuple[str, str], Severity] = {
    ("rollback", ""): "error",
    ("rollback", OVERTAKEN): "info",
    ("block", ""): "error",
    ("publish", "blocked"): "error",
    ("publish", "rolled_back"): "error",
    ("gate", "rejected"): "warning",
    ("random_share", "raised"): "warning",
}


@dataclass(frozen=True)
class Event:
    """One thing that is told.

    Attributes:
        id: The same for the same happening, however often it is told.
        type: `FLAGS`, `DECISION`, `FAILED` or `TEST`.
        loop: Name of the loop.
        subject: The round, empty where there is none.
        time: When it was found, ISO 8601 in UTC.
        severity: Of the gravest part of it.
        text: All of it in words, for a person.
        data: All of it for programs.
    """

    id: str
    type: str
    loop: str
    subject: str
    time: str
    severity: Severity
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def body(self, form: str) -> tuple[str, bytes]:
        """Return the content type and the body of a request.

        Args:
            form: ``cloudevent``, ``json`` or ``text``.
        """
        told = {"severity": self.severity, "text": self.text, **self.data}
        if form == "text":
            # Chats read < and > as links.
            plain = self.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            return "application/json", _json({"text": plain})
        if form == "json":
            head = {"id": self.id, "type": self.type, "time": self.time, "loop": self.loop}
            return "application/json", _json(head | told)
        envelope = {
            "specversion": "1.0",
            "id": self.id,
            "source": f"/visionloop/loops/{self.loop}",
            "type": self.type,
            **({"subject": self.subject} if self.subject else {}),
            "time": self.time,
            "datacontenttype": "application/json",
            "data": told,
        }
        return "application/cloudevents+json; charset=utf-8", _json(envelope)

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def flags_event(
    rows: Sequence[Mapping[str, Any]],
    *,
    loop: str,
    place: str,
    names: Mapping[str, str],
    report: str = "",
    upcoming: str = "",
) -> Event:
    """Return the event that tells of new flags, grouped by kind, the gravest kind first.

    Args:
        rows: Rows of ``flags``, at least one.
        loop: Name of the loop.
        place: Root of the lake.
        names: What people call a subject, such as a file's name for a sample's id.
        report: Where the report lies, empty where there is none.
        upcoming: Id of the round that was not opened yet.
    """
    by_kind: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row)
    groups = [_group(kind, held, names) for kind, held in by_kind.items()]
    groups.sort(key=lambda g: (-SEVERITIES.index(g["severity"]), -g["n"], g["kind"]))
    rounds = sorted({row["round_id"] for row in rows if row["round_id"]})
    newest = rounds[-1] if rounds else ""
    lines = [f"{_where(loop, newest, upcoming)}: {counted(len(rows), 'new flag')}"]
    lines += [f"- {group['text']}" for group in groups]
    lines += [f"Report: {report}"] if report else []
    times = [row["flagged_at"] for row in rows if row["flagged_at"] is not None]
    return Event(
        id=_id(FLAGS, place, loop, *sorted(_key(row) for row in rows)),
        type=FLAGS,
        loop=loop,
        subject=newest,
        time=_time(max(times, default=None)),
        severity=groups[0]["severity"],
        text=redacted("\n".join(lines)),
        data={
            "lake": redacted(place),
            "loop": loop,
            "round_id": newest,
            "n": len(rows),
            "kinds": groups,
            "report": redacted(report),
        },
    )


def decision_event(
    row: Mapping[str, Any], *, loop: str, place: str, report: str = "", upcoming: str = ""
) -> Event:
    """Return the event that tells of a decision.

    Args:
        row: A row of ``decisions``.
        loop: Name of the loop.
        place: Root of the lake.
        report: Where the report lies.
        upcoming: Id of the round that was not opened yet.
    """
    decision, outcome = row["decision"], row["outcome"] or ""
    severity = _DECISIONS.get((decision, outcome)) or _DECISIONS.get((decision, "")) or "info"
    named = f"{decision} {outcome}".replace("_", " ").strip()
    why = row["reason"] or "no reason was written"
    text = redacted(f"{_where(loop, row['round_id'], upcoming)}: {named}: {why}")
    return Event(
        id=_id(DECISION, place, loop, decision, row["subject"], outcome, str(row["decided_at"])),
        type=DECISION,
        loop=loop,
        subject=row["round_id"] or "",
        time=_time(row["decided_at"]),
        severity=severity,
        text=text,
        data={
            "lake": redacted(place),
            "loop": loop,
            "round_id": row["round_id"],
            "run_id": row["run_id"],
            "decision": decision,
            "subject": redacted(row["subject"] or ""),
            "outcome": outcome,
            "reason": redacted(row["reason"] or ""),
            "report": redacted(report),
        },
    )


def failed_event(
    stage: str,
    error: Mapping[str, str],
    *,
    loop: str,
    place: str,
    round_id: str,
    run_id: str,
    upcoming: str = "",
) -> Event:
    """Return the event that tells of a stage that failed.

    Args:
        stage: Its name.
        error: ``what``, ``where`` and ``remedy``.
        loop: Name of the loop.
        place: Root of the lake.
        round_id: The round, empty where that is not known.
        run_id: The run, empty where that is not known.
        upcoming: Id of the round that was not opened yet.
    """
    now = datetime.now(UTC)
    # A task that is tried again fails for the same reason; without a run, once an hour is told.
    once = run_id or now.strftime("%Y-%m-%dT%H")
    what = redacted(error["what"])
    lines = [f"{_where(loop, round_id, upcoming)}: the stage {stage} failed: {what}"]
    lines += [redacted(error["remedy"])] if error["remedy"] else []
    told = {name: redacted(value) for name, value in error.items()}
    return Event(
        id=_id(FAILED, place, loop, round_id, once, stage, what),
        type=FAILED,
        loop=loop,
        subject=round_id,
        time=_time(now),
        severity="error",
        text="\n".join(lines),
        data={
            "lake": redacted(place),
            "loop": loop,
            "round_id": round_id,
            "run_id": run_id,
            "stage": stage,
            **told,
        },
    )


def trial_event(loop: str, place: str) -> Event:
    """Return an event that says that somebody tries whether events arrive."""
    now = datetime.now(UTC)
    text = f"{_where(loop, '')}: a test, sent by `visionloop notify --test`; nothing happened"
    data = {"lake": redacted(place), "loop": loop}
    return Event(_id(TEST, place, loop, str(now)), TEST, loop, "", _time(now), "info", text, data)


def _group(kind: str, rows: list[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, Any]:
    known = KINDS.get(kind)
    examples = [_example(row, names) for row in worst(rows)]
    title = known.title if known else kind.replace("_", " ")
    severity = severity_of(kind)
    listed = ", ".join(example["name"] for example in examples)
    more = f" and {len(rows) - len(examples):,} more" if len(rows) > len(examples) else ""
    return {
        "kind": kind,
        "title": title,
        "severity": severity,
        "n": len(rows),
        "standing": bool(known and known.standing),
        **_explained(known),
        "examples": examples,
        "text": redacted(f"{title} ({severity}): {len(rows):,}: {listed}{more}"),
    }


def worst(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the flags of one kind that are an event's examples: farthest from their threshold."""
    return sorted(rows, key=_badness, reverse=True)[:EXAMPLES]


def severity_of(kind: str) -> Severity:
    """Return how grave a kind is; one that a newer visionloop wrote is worth a look."""
    return KINDS[kind].severity if kind in KINDS else "warning"


def _explained(known: Kind | None) -> dict[str, str]:
    return {"meaning": known.meaning, "remedy": known.remedy} if known else {}


def _example(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    evidence = evidence_of(row)
    # A program of another version may have named nothing.
    subject = row["subject"] or f"{row['subject_type'] or 'something'} without a name"
    return {
        "subject": redacted(row["subject"] or ""),
        "subject_type": row["subject_type"],
        "name": redacted(names.get(subject, subject)),
        "score": row["score"],
        "threshold": row["threshold"],
        "unit": evidence.get("unit", ""),
        "reference": redacted(str(evidence.get("reference", ""))),
    }


def _badness(row: Mapping[str, Any]) -> float:
    """Return how far a score is beyond its threshold, whichever side of it is the bad one."""
    score, threshold = row["score"], row["threshold"]
    if score is None or threshold is None or score != score or threshold != threshold:
        return 0.0
    return abs(float(score) - float(threshold)) / (abs(float(threshold)) or 1.0)


def _where(loop: str, round_id: str | None, upcoming: str = "") -> str:
    return f"Loop {loop}, {round_name(round_id, upcoming)}" if round_id else f"Loop {loop}"


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps([row["kind"], row["subject"], row["round_id"]])


def _id(*parts: str | None) -> str:
    return hashlib.sha256("\n".join(part or "" for part in parts).encode()).hexdigest()[:32]


def _time(when: datetime | None) -> str:
    return (when or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    """Return plain values in which what is no finite number is None, as JSON can hold them."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {name: _finite(held) for name, held in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [_finite(held) for held in value]
    return value
