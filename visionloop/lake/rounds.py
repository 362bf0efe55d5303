"""Rounds: one turn of the loop each, one at a time, resumed after a failure."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop import environment
from visionloop.errors import StaleRead, VisionloopError
from visionloop.lake.schemas import arrow_schema
from visionloop.lake.storage import StorageError
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

RUNNING, WAITING, DONE = "running", "waiting", "done"
LEASE_MINUTES = 30.0


@dataclass(frozen=True)
class Round:
    """One turn of the loop.

    Attributes:
        round_id: ``0000``, ``0001``, …
        state: ``running``, ``waiting`` (for labels) or ``done``.
        outcome: ``published`` or ``kept`` (the model in service stays) once it is done.
        run_id: The run that opened it or resumed it last.
        holder: Who runs it: host, boot and process of a local runner, or empty when it was let go.
        opened_at: UTC.
        updated_at: UTC.
        counts: What its stages counted.
    """

    round_id: str
    state: str
    outcome: str
    run_id: str
    holder: dict[str, Any]
    opened_at: datetime
    updated_at: datetime
    counts: dict[str, Any] = field(default_factory=dict)

    def changed(
        self,
        *,
        state: str | None = None,
        outcome: str | None = None,
        counts: dict[str, Any] | None = None,
    ) -> Round:
        """Return the round with another state, and with counts merged in.

        Args:
            state: Its new state; None keeps it.
            outcome: Its outcome; None keeps it.
            counts: Counts that are added, or take the place of those of the same name.
        """
        state = state or self.state
        return replace(
            self,
            state=state,
            outcome=self.outcome if outcome is None else outcome,
            holder=self.holder if state == RUNNING else {},
            counts=self.counts | (counts or {}),
            updated_at=datetime.now(UTC),
        )

    def row(self) -> pa.Table:
        """Return the round as its row of the table `rounds`."""
        row = {
            "round_id": self.round_id,
            "run_id": self.run_id,
            "state": self.state,
            "outcome": self.outcome,
            "holder": json.dumps(self.holder),
            "opened_at": self.opened_at,
            "updated_at": self.updated_at,
            "counts": json.dumps(self.counts),
        }
        return pa.Table.from_pylist([row], schema=arrow_schema("rounds"))


class Rounds:
    """The rounds of a loop; an attribute of `Lake`."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def all(self) -> list[Round]:
        """Return every round, the oldest first."""
        rows = self._lake.read("rounds").to_pylist()
        return sorted((_round(row) for row in rows), key=lambda held: held.round_id)

    def get(self, round_id: str) -> Round | None:
        """Return a round by its id."""
        return next((held for held in self.all() if held.round_id == round_id), None)

    def current(self) -> Round | None:
        """Return the round that is not done, if there is one."""
        return next((held for held in self.all() if held.state != DONE), None)

    def current_or_next(self) -> str:
        """Return the id of the open round, or of the one that comes next."""
        opened = self.current()
        return opened.round_id if opened else self.upcoming()

    def upcoming(self) -> str:
        """Return the id of the round that comes next: what runs between two rounds carries it."""
        return _id(len(self.all()))

    def open(
        self, run_id: str, *, take_over: bool = False, lease_minutes: float = LEASE_MINUTES
    ) -> Round:
        """Open a new round, or resume the one that is open.

        Args:
            run_id: The run that asks.
            take_over: Take the round from whoever holds it.
            lease_minutes: How long a holder on another machine counts as alive after its last sign.

        Raises:
            StaleRead: Another run has just ended the round.
            VisionloopError: Another live run holds the round.
        """
        held = self.current()
        now = datetime.now(UTC)
        if held is None:
            opened = Round(_id(len(self.all())), RUNNING, "", run_id, _holder(), now, now)
        else:
            if not take_over:
                self._refuse_if_held(held, run_id, lease_minutes)
            opened = replace(held, run_id=run_id, state=RUNNING, holder=_holder(), updated_at=now)
        with self._lake.run(stage="open_round", round_id=opened.round_id, run_id=run_id) as run:
            # Read again under the lock: two runs may have asked at once.
            run.replace("rounds", opened.row(), f"round_id == '{opened.round_id}'")
            latest = self.get(opened.round_id)
            if latest is not None and latest != held:
                if latest.state == DONE:
                    raise StaleRead(
                        f"another run has just ended {round_name(latest.round_id)}",
                        where=f"loop {self._lake.loop} of {self._lake.place}",
                        remedy="Start the pipeline again for the next round",
                    )
                if not take_over:
                    self._refuse_if_held(latest, run_id, lease_minutes)
            run.commit(outputs={"round_id": opened.round_id})
        return opened

    def release(self, run_id: str) -> None:
        """Let go of the round that a run holds and did not finish: the next run resumes it."""
        held = self.current()
        if held is None or held.run_id != run_id or not held.holder:
            return
        with self._lake.run(stage="release_round", round_id=held.round_id, run_id=run_id) as run:
            let_go = replace(held, holder={}, updated_at=datetime.now(UTC))
            run.replace("rounds", let_go.row(), f"round_id == '{held.round_id}'")
            run.commit()

    def live_holder(
        self, held: Round, run_id: str = "", *, lease_minutes: float = LEASE_MINUTES
    ) -> str:
        """Say which live run other than one's own holds a round, in words; empty when none does.

        Args:
            held: The round.
            run_id: The run that asks.
            lease_minutes: How long a holder on another machine counts as alive after its last sign.
        """
        if held.state != RUNNING or not held.holder or held.run_id == run_id:
            return ""
        mine = _holder()
        local = held.holder.get("pid") and all(
            held.holder.get(key) == mine[key] for key in ("host", "boot")
        )
        if local:
            # The same machine: no lease has to expire, the process is there or it is not.
            if held.holder["pid"] == mine["pid"] or not _alive(held.holder):
                return ""
            return f"process {held.holder['pid']} of this machine"
        seen = self._last_seen(held)
        lease, now = timedelta(minutes=lease_minutes), datetime.now(UTC)
        if now - seen > lease:
            return ""
        who = f"run {held.run_id!r} on {held.holder.get('host', 'another machine')}"
        if seen - now > lease:
            who += ", whose clock or this one's is wrong (it was last seen in the future)"
        return f"{who}, last seen {seen:%Y-%m-%d %H:%M:%S} UTC"

    def _refuse_if_held(self, held: Round, run_id: str, lease_minutes: float) -> None:
        who = self.live_holder(held, run_id, lease_minutes=lease_minutes)
        if who:
            raise VisionloopError(
                f"{round_name(held.round_id)} is being run by {who}",
                where=f"loop {self._lake.loop} of {self._lake.place}",
                remedy="Wait for it to end, or pass take_over=true if it is dead",
            )

    def _last_seen(self, held: Round) -> datetime:
        seen = [held.updated_at]
        # Only its own stages: a harvest or a watch beside a dead run must not keep it alive.
        rows = self._lake.stage_runs(where=f"round_id == '{held.round_id}'").to_pylist()
        seen += [r["finished_at"] for r in rows if r["finished_at"] and r["run_id"] == held.run_id]
        try:
            beat = json.loads(self._lake.storage.read(_heartbeat_uri(self._lake)))
            if (beat["round_id"], beat["run_id"]) == (held.round_id, held.run_id):
                seen.append(datetime.fromisoformat(beat["seen_at"]))
        except (StorageError, ValueError, KeyError):
            pass  # no stage of it ran long enough to leave one
        return max(seen)


def heartbeat(lake: Lake, round_id: str, run_id: str, stage: str) -> None:
    """Leave a sign of life of a long stage.

    Args:
        lake: The loop's lake.
        round_id: The round that lives.
        run_id: The run that holds it.
        stage: The stage at work.
    """
    beat = {"round_id": round_id, "run_id": run_id, "stage": stage, "seen_at": _now_text()}
    try:
        lake.storage.write(_heartbeat_uri(lake), json.dumps(beat).encode())
    except StorageError:
        return  # the stage itself will meet the fault and report it


def _heartbeat_uri(lake: Lake) -> str:
    return lake.path("leases", f"{lake.loop}.json")


def _now_text() -> str:
    return datetime.now(UTC).isoformat()


def _id(number: int) -> str:
    return f"{number:04d}"


def _round(row: dict[str, Any]) -> Round:
    return Round(
        row["round_id"],
        row["state"],
        row["outcome"] or "",
        row["run_id"] or "",
        json.loads(row["holder"] or "{}"),
        row["opened_at"],
        row["updated_at"],
        json.loads(row["counts"] or "{}"),
    )


def _holder() -> dict[str, Any]:
    from visionloop.lake.run import process_identity

    pid = environment.runner_pid()
    return process_identity() | {"pid": pid, "started": _start_time(pid)}


def _start_time(pid: int) -> str:
    # Field 22 of /proc/PID/stat: without it a recycled process id would keep a dead round alive.
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(holder: dict[str, Any]) -> bool:
    pid = int(holder["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return bool(_start_time(pid) == holder.get("started", ""))


def is_alive(holder: dict[str, Any]) -> bool | None:
    """Return whether a round's holder lives; None for one on another machine."""
    mine = _holder()
    if not holder.get("pid") or any(holder.get(key) != mine[key] for key in ("host", "boot")):
        return None
    return _alive(holder)
