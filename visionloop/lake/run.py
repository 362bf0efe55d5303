"""One stage's run: reads the lake at one version, writes, and records a new version last."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from visionloop import __version__
from visionloop.errors import InputError, StaleRead, VisionloopError
from visionloop.lake import data_files, rounds, tables, vector_files, versions
from visionloop.lake.catalog import catalog_errors
from visionloop.lake.erasing.tombstones import erased_between
from visionloop.lake.lock import writer_lock
from visionloop.lake.schemas import EMBEDDINGS_PREFIX, ERASED, arrow_schema

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from visionloop.lake.lake import Lake

HEARTBEAT_SECONDS = 30.0


class Run(AbstractContextManager["Run"]):
    """What a stage does to the lake, all of it visible or none.

    Made by `Lake.run`. Nothing is visible to anyone until `commit`; leaving the ``with`` block
    without it leaves the lake as it was. The writer's lock is taken at the first write, so that a
    stage computes without keeping others waiting.

    Attributes:
        round_id: The round that the rows belong to.
        run_id: The run that wrote them.
        base: The version that the stage reads at.
    """

    def __init__(
        self,
        lake: Lake,
        *,
        stage: str,
        round_id: str = "",
        run_id: str = "",
        base_version: str | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> None:
        self._lake = lake
        self._stage = stage
        self._inputs = inputs or {}
        self._written: dict[str, Table] = {}
        self._lock: AbstractContextManager[None] | None = None
        self._head = versions.NOTHING
        self._done = False
        self._started_at = datetime.now(UTC)
        self._heart = threading.Event()
        self.base = base_version or lake.version()
        self.round_id = round_id or lake.rounds.current_or_next()
        held = lake.rounds.get(self.round_id)
        self.run_id = run_id or (held.run_id if held else "")

    def __enter__(self) -> Self:
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._heart.set()
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None

    def _beat(self) -> None:
        # A long stage shows that its round is alive; a short one never gets to write.
        while not self._heart.wait(HEARTBEAT_SECONDS):
            rounds.heartbeat(self._lake, self.round_id, self.run_id, self._stage)

    def read(self, table: str, *, columns: list[str] | None = None, where: Any = None) -> pa.Table:
        """Read a table at the run's base version; see `Lake.read`."""
        return self._lake.read(table, columns=columns, where=where, version=self.base)

    def append(self, table: str, rows: pa.Table) -> None:
        """Add rows; missing columns become null, round and run are filled in.

        Raises:
            InputError: Rows do not fit the table's schema.
            StaleRead: Another run has written the table since this one read it: what is new may
                not be new any more.
            VisionloopError: The lake cannot be written.
        """
        if rows.num_rows:
            self._write(table, rows, None)

    def refuse_stale(self, *names: str) -> None:
        """Begin to write, unless another run has written one of some tables since this one read.

        Args:
            names: Tables of which this run replaces rows by what it has read.

        Raises:
            StaleRead: One has been written.
        """
        self._begin()
        with catalog_errors(self._lake.catalog_uri):
            for name in names:
                table = self._lake.table(name)
                if table is not None and name not in self._written:
                    self._refuse_stale(name, table)

    def replace(self, table: str, rows: pa.Table, where: Any) -> None:
        """Put rows in the place of those that a filter names.

        Args:
            table: Table name.
            rows: The new rows, possibly none.
            where: A row filter by the rows' nature, for example ``"round_id == '0002'"``, as text
                or expression.
        """
        if table in self._written or table in self._latest().tables or rows.num_rows:
            self._write(table, rows, where)

    def append_embeddings(
        self, space: str, ids: list[str], vectors: np.ndarray, *, anew: bool = False
    ) -> None:
        """Add vectors to an embedding space.

        Args:
            space: Name of the space; its table is ``embeddings_<space>``.
            ids: Sample ids, length n.
            vectors: float32 ``[n, d]``; every space has one d.
            anew: Put them in the place of what the space holds of these samples.

        Raises:
            InputError: A vector is not finite, or has another dimension than the space.
        """
        if not len(ids):
            return
        vectors = np.ascontiguousarray(vectors, dtype="<f4")
        if vectors.ndim != 2 or len(ids) != len(vectors):
            raise InputError(
                f"{len(ids)} sample ids for vectors of shape {vectors.shape}",
                where=f"space {space}",
            )
        bad = [ids[i] for i in vector_files.not_finite(vectors)]
        if bad:
            raise InputError(
                f"{len(bad)} embeddings hold NaN or infinity",
                where=f"space {space}, samples {', '.join(bad[:3])}{'…' if len(bad) > 3 else ''}",
                remedy="Check the model or the weights that made them; nothing was stored",
            )
        width = 4 * vectors.shape[1]
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width), len(ids), [None, pa.py_buffer(vectors)]
        )
        self._write(
            EMBEDDINGS_PREFIX + space,
            pa.table({"sample_id": pa.array(ids, pa.string()), "vector": column}),
            None,
            anew=anew,
        )

    def rewrite(
        self,
        table: str,
        change: Callable[[Table, dict[str, str]], None],
        *,
        same_rows: bool = True,
    ) -> None:
        """Let a function put a table's rows into other files.

        Args:
            table: Table name, ``stage_runs`` too.
            change: Called with the table, and with the properties that its snapshot is to have.
            same_rows: Whether it leaves the same rows: whoever has read them may go on.
        """
        self._begin()
        lake = self._lake
        with catalog_errors(f"table {table} of {lake.place}"):
            held = tables.load_table(lake.catalog, lake.loop, table)
            if held is None:
                return
            properties = {data_files.SAME_ROWS: "true"} if same_rows else {}
            if table == "stage_runs":
                # Its newest snapshot tells the newest version, which stays the same.
                change(held, properties | versions.summary(self._head))
                return
            before = self._head.tables.get(table)
            tables.reset(held, before)
            held.refresh()
            change(held, properties)
            if tables.snapshot_of(held) != before:
                self._written[table] = held

    def set_round(
        self,
        *,
        state: str | None = None,
        outcome: str | None = None,
        counts: dict[str, Any] | None = None,
    ) -> None:
        """Change the state of this run's round, as part of this run.

        Args:
            state: ``running``, ``waiting`` or ``done``.
            outcome: ``published`` or ``kept`` once it is done.
            counts: Merged into the round's counts.
        """
        held = self._lake.rounds.get(self.round_id)
        if held is None:
            return  # a stage run by hand, outside any round
        changed = held.changed(state=state, outcome=outcome, counts=counts)
        self.replace("rounds", changed.row(), f"round_id == '{self.round_id}'")

    def commit(
        self, *, outputs: dict[str, Any] | None = None, counts: dict[str, int] | None = None
    ) -> str:
        """Record the version that makes this run's rows visible, and return it.

        The version equals the base when nothing was written.

        Args:
            outputs: What the stage returns.
            counts: What the stage counted.

        Raises:
            VisionloopError: It was called twice, or the lake cannot be written.
        """
        if self._done:
            raise VisionloopError(f"stage {self._stage} committed twice")
        self._begin()
        mapping = dict(self._head.tables)
        for name, table in self._written.items():
            snapshot = tables.snapshot_of(table)
            if snapshot is not None:
                mapping[name] = snapshot
        base = versions.find(self._stage_runs, self.base)
        # A stage that wrote nothing hands on what it read at, so that what follows can be cached.
        version = versions.version_id(mapping) if self._written else base.id
        row = {
            "sequence": self._head.sequence + 1,
            "version": version,
            "tables": json.dumps(mapping),
            "stage": self._stage,
            "base_version": self.base,
            "started_at": self._started_at,
            "finished_at": datetime.now(UTC),
            "inputs": json.dumps(self._inputs, default=str),
            "outputs": json.dumps(outputs or {}, default=str),
            "counts": json.dumps(counts or {}),
            "round_id": self.round_id,
            "run_id": self.run_id,
            "program": __version__,
        }
        recorded = versions.Version(versions.version_id(mapping), mapping, self._head.sequence + 1)
        with catalog_errors(self._lake.catalog_uri):
            self._refuse_overtaken()
            stage_runs = self._stage_runs or tables.create_table(
                self._lake.catalog, self._lake.loop, "stage_runs", arrow_schema("stage_runs")
            )
            stage_runs.append(
                pa.Table.from_pylist([row], schema=arrow_schema("stage_runs")),
                snapshot_properties=versions.summary(recorded),
            )
        self._done = True
        self.__exit__(None, None, None)
        return version

    @property
    def _stage_runs(self) -> Table | None:
        return self._lake.table("stage_runs")

    def _latest(self) -> versions.Version:
        return self._head if self._lock else versions.newest(self._stage_runs)

    def _begin(self) -> None:
        if self._lock is not None:
            return
        # Made by its first writer, before the lock beside it; nobody writes to one that went away.
        self._lake.exists()
        _ = self._lake.catalog
        lock = writer_lock(self._lake.catalog_uri, self._lake.loop)
        with catalog_errors(self._lake.catalog_uri):
            lock.__enter__()
        self._lock = lock
        with catalog_errors(self._lake.catalog_uri, files=self._lake.place):
            self._head = versions.newest(self._stage_runs)
            self._refuse_erased()

    def _refuse_erased(self) -> None:
        """Refuse what was read before samples were erased: it may tell of them."""
        head = self._head
        if ERASED not in head.tables or self.base == head.id:
            return
        if erased_between(self._lake, self.base, head.id):
            raise StaleRead(
                f"samples were erased while the stage {self._stage} worked",
                where=f"loop {self._lake.loop} of {self._lake.place}",
                remedy="Start the pipeline again: it goes on without them",
            )

    def _write(self, name: str, rows: pa.Table, where: Any, *, anew: bool = False) -> None:
        self._begin()
        lake = self._lake
        with catalog_errors(f"table {name} of {lake.place}"):
            table = self._written.get(name) or tables.load_table(lake.catalog, lake.loop, name)
            rows = tables.conform(name, self._signed(rows), table)
            if table is None:
                table = tables.create_table(lake.catalog, lake.loop, name, rows.schema)
            if name not in self._written:
                if where is None and not anew:
                    self._refuse_stale(name, table)
                tables.reset(table, self._head.tables.get(name))
                table.refresh()
            if name.startswith(EMBEDDINGS_PREFIX):
                self._check_dimension(name, table, rows)
            elif name in tables.EVOLVING or set(rows.column_names) - set(
                table.schema().column_names
            ):
                tables.evolve(name, table, rows.schema)
            if anew:
                vector_files.replace(table, rows)
            elif where is None and name.startswith(EMBEDDINGS_PREFIX):
                vector_files.append(table, rows)
            elif where is None:
                table.append(rows)
            else:
                tables.overwrite(table, rows, where)
            self._written[name] = table

    def _refuse_overtaken(self) -> None:
        # A database that dropped the connection has freed the lock, and told nobody.
        if versions.newest(self._stage_runs).sequence != self._head.sequence:
            raise StaleRead(
                f"the writer's lock was lost while the stage {self._stage} wrote",
                where=f"loop {self._lake.loop} of {self._lake.place}",
                remedy="Start the pipeline again; nothing of this run is visible",
            )

    def _refuse_stale(self, name: str, table: Table) -> None:
        read = versions.find(self._stage_runs, self.base).tables.get(name)
        if not data_files.holds_the_same(table, read, self._head.tables.get(name)):
            raise StaleRead(
                f"another run wrote the table {name} while the stage {self._stage} worked",
                where=f"loop {self._lake.loop} of {self._lake.place}",
                remedy="Start the pipeline again: it goes on from what both have written",
            )

    def _signed(self, rows: pa.Table) -> pa.Table:
        for name, value in (("round_id", self.round_id), ("run_id", self.run_id)):
            if name not in rows.column_names:
                column = pa.repeat(pa.scalar(value, pa.string()), rows.num_rows)
                rows = rows.append_column(name, column)
            elif rows[name].null_count:
                place = rows.schema.get_field_index(name)
                rows = rows.set_column(place, name, rows[name].fill_null(value))
        return rows

    @staticmethod
    def _check_dimension(name: str, table: Table, rows: pa.Table) -> None:
        held = tables.vector_dimension(table)
        given = rows.schema.field("vector").type.byte_width // 4
        if held != given:
            raise InputError(
                f"vectors of {given} components in a space of {held}",
                where=f"table {name}",
                remedy="One space holds the vectors of one model: give the other model's a space "
                "of its own",
            )


def process_identity() -> dict[str, Any]:
    """Return what tells this machine's processes apart: host and boot."""
    boot = "/proc/sys/kernel/random/boot_id"
    try:
        with open(boot, encoding="ascii") as file:
            started = file.read().strip()
    except OSError:
        started = ""
    return {"host": os.uname().nodename, "boot": started}
