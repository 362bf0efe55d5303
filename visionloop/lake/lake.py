"""The lake: one root, one catalog, the tables of a loop."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from visionloop.errors import InputError, VisionloopError
from visionloop.lake import migration, tables, vector_files, versions
from visionloop.lake.catalog import catalog_errors, catalog_uri, open_catalog, sqlite_file
from visionloop.lake.rounds import Rounds
from visionloop.lake.run import Run
from visionloop.lake.schemas import EMBEDDINGS_PREFIX, arrow_schema
from visionloop.lake.storage import Storage, join, local_path, normalise, open_storage, scheme_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table


class Lake:
    """All durable state of a loop: tables in Iceberg, and files beside them.

    Make one with `Lake.open`.

    Attributes:
        uri: Root of the lake, ``file://…`` or ``gs://…``.
        loop: Name of the loop: the namespace of its tables.
        catalog_uri: Its catalog, which may hold a password: not for messages.
        rounds: The loop's rounds.
    """

    def __init__(self, uri: str, catalog: str, loop: str) -> None:
        self.uri = uri
        self.loop = loop
        self.catalog_uri = catalog_uri(uri, catalog)
        self._catalog_setting = catalog
        self.rounds = Rounds(self)

    @classmethod
    def open(cls, uri: str, *, catalog: str = "", loop: str = "default") -> Lake:
        """Open a lake; tables are made when they are first written to.

        Args:
            uri: Root of the lake: a path, ``file://…`` or ``gs://…``.
            catalog: Empty for SQLite inside a ``file://`` root, else ``sqlite:///…`` or
                ``postgresql+psycopg2://…``.
            loop: Name of the loop; several loops can share a lake.

        Raises:
            InputError: The root, the catalog or the name cannot be used.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", loop):
            raise InputError(
                f"{loop!r} cannot name a loop",
                where="name",
                remedy="Use at most 63 lower-case letters, digits, _ and -",
            )
        return cls(normalise(uri), catalog, loop)

    @classmethod
    def loops(cls, uri: str, *, catalog: str = "") -> list[str]:
        """Return the names of the loops in a lake, none where there is no lake; makes nothing.

        Args:
            uri: Root of the lake.
            catalog: See `Lake.open`.
        """
        place = catalog_uri(normalise(uri), catalog)
        database = sqlite_file(place)
        if database is not None and not database.exists():
            return []
        with catalog_errors(place):
            opened = open_catalog(normalise(uri), catalog)
            return sorted(".".join(namespace) for namespace in opened.list_namespaces())

    @property
    def place(self) -> str:
        """The root as messages name it: a path on a disk, the URI elsewhere."""
        return self.uri if scheme_of(self.uri) == "gs" else str(local_path(self.uri))

    @cached_property
    def catalog(self) -> Catalog:
        """The Iceberg catalog, opened (and an older lake migrated) when it is first needed."""
        catalog = open_catalog(self.uri, self._catalog_setting)
        with catalog_errors(self.catalog_uri, files=self.place):
            migration.prepare(self.uri, catalog, self.catalog_uri, self.loop)
        return catalog

    def exists(self) -> bool:
        """Whether the lake is there: reading one that is not makes none.

        Raises:
            VisionloopError: It was there when this process opened it and is not any more.
        """
        file = sqlite_file(self.catalog_uri)
        if file is None or file.is_file():
            return True
        if "catalog" in self.__dict__:
            raise absent(self.place)
        return False

    def table(self, name: str) -> Table | None:
        """Return an Iceberg table of the loop, None where nothing has been written to it yet."""
        return tables.load_table(self.catalog, self.loop, name) if self.exists() else None

    @cached_property
    def storage(self) -> Storage:
        """The storage of the lake's root."""
        return open_storage(self.uri)

    def path(self, *parts: str) -> str:
        """Return the URI of a file beside the tables."""
        return join(self.uri, *parts)

    def version(self) -> str:
        """Return the newest version, empty for a lake that holds nothing."""
        return self._version(None).id

    def history(self) -> pa.Table:
        """Return every stage run with the version that it made, the oldest first."""
        return self.stage_runs().sort_by("sequence")

    def read(
        self,
        table: str,
        *,
        columns: list[str] | None = None,
        where: Any = None,
        version: str | None = None,
    ) -> pa.Table:
        """Read a table.

        Args:
            table: Name of a table, see `visionloop.lake.schemas`.
            columns: Columns to read, all by default.
            where: A row filter in pyiceberg's syntax, for example ``"round_id == '0002'"``.
            version: Lake version to read at, the newest by default.

        Raises:
            InputError: The table or the version does not exist.
        """
        schema = None if table.startswith(EMBEDDINGS_PREFIX) else arrow_schema(table)
        snapshot = self._version(version).tables.get(table)
        with catalog_errors(f"table {table} of {self.place}"):
            found = tables.load_table(self.catalog, self.loop, table) if snapshot else None
            if found is None or snapshot is None:
                empty = (schema or arrow_schema(table, dimension=0)).empty_table()
                return empty.select(columns) if columns else empty
            return tables.read(found, snapshot, columns=columns, where=where)

    def snapshot(self, table: str, *, version: str | None = None) -> int:
        """Return the snapshot of a table at a version: it changes whenever the table does."""
        return self._version(version).tables.get(table, 0)

    def batches(
        self, table: str, *, columns: list[str] | None = None, version: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield a table's rows some at a time, in no order; it is never all in memory.

        Args:
            table: Name of a table.
            columns: Columns to read, all by default.
            version: Lake version to read at, the newest by default.
        """
        snapshot = self._version(version).tables.get(table)
        with catalog_errors(f"table {table} of {self.place}"):
            found = tables.load_table(self.catalog, self.loop, table) if snapshot else None
            if found is not None and snapshot is not None:
                yield from tables.batches(found, snapshot, columns=columns)

    def stage_runs(self, *, where: Any = None) -> pa.Table:
        """Return the rows of `stage_runs`, which stands outside the versions that it records."""
        with catalog_errors(f"table stage_runs of {self.place}"):
            found = self.table("stage_runs")
            snapshot = tables.snapshot_of(found) if found else None
            if found is None or snapshot is None:
                return arrow_schema("stage_runs").empty_table()
            return tables.read(found, snapshot, where=where)

    def embeddings(
        self, space: str, sample_ids: list[str] | None = None, *, version: str | None = None
    ) -> tuple[list[str], np.ndarray]:
        """Read an embedding space, or some samples of it.

        Args:
            space: Name of the space.
            sample_ids: Samples to read, all by default: a few of a million cost little.
            version: Lake version to read at, the newest by default.

        Returns:
            Sample ids in ascending order, and float32 ``[n, d]`` in the same order; samples without
            a vector are left out. None and ``[0, 0]`` for a space that does not exist.
        """
        with self._space(space, version) as held:
            if held is None:
                return [], np.zeros((0, 0), np.float32)
            return vector_files.read(*held, wanted=sample_ids)

    def embedding_blocks(
        self, space: str, *, version: str | None = None
    ) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """Yield an embedding space a part at a time, in no order; it is never all in memory.

        Yields:
            Sample ids, and read-only float32 ``[n, d]`` in the same order.
        """
        with self._space(space, version) as held:
            if held is not None:
                yield from vector_files.blocks(*held)

    def embedded(self, space: str, *, version: str | None = None) -> tuple[set[str], set[str]]:
        """Return which samples an embedding space holds; its vectors are never all in memory.

        Returns:
            Ids of the samples with a finite vector, and of those with one that is not finite.
        """
        sound: set[str] = set()
        broken: set[str] = set()
        for ids, vectors in self.embedding_blocks(space, version=version):
            bad = ids.take(pa.array(vector_files.not_finite(vectors))).to_pylist()
            broken.update(bad)
            sound.update(ids.to_pylist())
            sound.difference_update(bad)
        return sound, broken

    @contextlib.contextmanager
    def _space(self, space: str, version: str | None) -> Iterator[tuple[Table, int] | None]:
        """Yield an embedding space's table and the snapshot of it to read; None where it is not."""
        name = EMBEDDINGS_PREFIX + space
        snapshot = self._version(version).tables.get(name)
        with catalog_errors(f"table {name} of {self.place}"):
            found = tables.load_table(self.catalog, self.loop, name) if snapshot else None
            yield None if found is None or snapshot is None else (found, snapshot)

    def spaces(self, *, version: str | None = None) -> list[str]:
        """Return the names of the embedding spaces."""
        named = self._version(version).tables
        return sorted(
            name.removeprefix(EMBEDDINGS_PREFIX)
            for name in named
            if name.startswith(EMBEDDINGS_PREFIX)
        )

    def media(
        self, sample_ids: list[str] | None = None, *, version: str | None = None
    ) -> dict[str, str]:
        """Return where the bytes of samples lie: ``{sample_id: uri}``, all samples by default."""
        rows = self.read("samples", columns=["sample_id", "uri"], version=version)
        found = dict(zip(rows["sample_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
        if sample_ids is None:
            return found
        return {sample_id: found[sample_id] for sample_id in sample_ids if sample_id in found}

    def run(
        self,
        *,
        stage: str,
        round_id: str = "",
        run_id: str = "",
        base_version: str | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> Run:
        """Begin a stage's run, to be used in a ``with`` block.

        Args:
            stage: Name of the stage.
            round_id: Its round; empty for the open one, or the one that comes next.
            run_id: The run; empty for the one that holds the round.
            base_version: Version to read at; empty for the newest.
            inputs: What the stage was given, for the record.
        """
        return Run(
            self,
            stage=stage,
            round_id=round_id,
            run_id=run_id,
            base_version=base_version,
            inputs=inputs,
        )

    def _version(self, wanted: str | None) -> versions.Version:
        with catalog_errors(self.catalog_uri, files=self.place):
            stage_runs = self.table("stage_runs")
        return versions.newest(stage_runs) if not wanted else versions.find(stage_runs, wanted)


def absent(place: str) -> VisionloopError:
    """Return the error of a lake that was there and is not any more."""
    return VisionloopError(
        "the lake is not there any more",
        where=place,
        remedy="Mount it, or bring it back to its place, and start the same command again: what "
        "was finished is kept",
    )
