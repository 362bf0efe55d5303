"""Brings an older lake's tables to today's schemas, and refuses a newer one.

A lake's schema version is a property of its table `stage_runs`; a lake that has none is of version
1. It is looked at once, when a catalog is opened. The steps only ever add (columns, properties), so
that a version that was written before still reads; they run under the writer's lock, each may be
killed and run again, and the version is raised after each one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from visionloop.errors import InputError, VisionloopError
from visionloop.lake import schemas, tables
from visionloop.lake.catalog import refuse_another_root
from visionloop.lake.lock import writer_lock
from visionloop.lake.storage import join, open_storage

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

FIRST = 1
# Lies in a lake that a restore has not finished.
RESTORING = "restoring.json"


def add_missing_columns(catalog: Catalog, loop: str) -> None:
    """Give every table of a loop the columns of today's schemas that it lacks."""
    for name, table in loop_tables(catalog, loop):
        if not name.startswith(schemas.EMBEDDINGS_PREFIX) and name in schemas.TABLES:
            tables.evolve(name, table, schemas.arrow_schema(name))


# What leads to each version from the one before. A new version of the schemas is a new entry here
# and in `schemas.SCHEMA_VERSION`; for one that only adds columns it is `add_missing_columns`.
STEPS: dict[int, Callable[[Catalog, str], None]] = {
    2: add_missing_columns,  # stage_runs.program
    3: add_missing_columns,  # files.offset; samples: size, colour, entropy, pixels, attached
    4: add_missing_columns,  # the table estimates: a lake that lacks it has none yet
    5: add_missing_columns,  # confidences.linked_by, harvest_ledger.generation
    6: add_missing_columns,  # labels, label_requests; the tables annotations, relabels
}


def loop_tables(catalog: Catalog, loop: str) -> Iterator[tuple[str, Table]]:
    """Yield ``(name, table)`` of each table in a loop's namespace, in the order of the names."""
    from pyiceberg.exceptions import NoSuchNamespaceError

    try:
        names = sorted(identifier[-1] for identifier in catalog.list_tables(loop))
    except NoSuchNamespaceError:
        return
    for name in names:
        table = tables.load_table(catalog, loop, name)
        if table is not None:
            yield name, table


def stored_version(catalog: Catalog, loop: str) -> int:
    """Return a lake's schema version; today's for a loop that holds nothing yet."""
    table = tables.load_table(catalog, loop, "stage_runs")
    return _version_of(table) if table is not None else schemas.SCHEMA_VERSION


def _version_of(stage_runs: Table) -> int:
    return int(stage_runs.properties.get(tables.SCHEMA_PROPERTY, FIRST))


def prepare(root: str, catalog: Catalog, catalog_uri: str, loop: str) -> None:
    """Migrate a lake that is older than this program; refuse one that is not in its place.

    Args:
        root: Root of the lake.
        catalog: Its catalog.
        catalog_uri: The catalog's URI, which names the writer's lock.
        loop: Name of the loop.

    Raises:
        InputError: The lake is newer than this program, or was copied or moved.
        VisionloopError: The lake was not restored whole, or another process writes to it and does
            not end.
    """
    refuse_another_root(root, catalog, loop)
    table = tables.load_table(catalog, loop, "stage_runs")
    if table is None:
        # Only an empty loop can be one whose restore was interrupted: its history comes last.
        if open_storage(root).exists(join(root, RESTORING)):
            raise VisionloopError(
                "a restore of this lake was interrupted: it is not usable",
                where=root,
                remedy="Run `visionloop lake restore` again with the same backup",
            )
        return
    held = _version_of(table)
    if held > schemas.SCHEMA_VERSION:
        raise InputError(
            f"the lake has schema version {held}, this visionloop knows {schemas.SCHEMA_VERSION}",
            where=f"loop {loop} of {root}",
            remedy="Upgrade visionloop here to the version that wrote the lake",
        )
    if held < schemas.SCHEMA_VERSION:
        with writer_lock(catalog_uri, loop):
            _migrate(catalog, loop)


def _migrate(catalog: Catalog, loop: str) -> None:
    # Another process may have been faster while this one waited for the lock.
    for version in range(stored_version(catalog, loop) + 1, schemas.SCHEMA_VERSION + 1):
        STEPS[version](catalog, loop)
        table = catalog.load_table((loop, "stage_runs"))
        with table.transaction() as change:
            change.set_properties({tables.SCHEMA_PROPERTY: str(version)})
