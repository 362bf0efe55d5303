"""Opens the Iceberg catalog of a lake: SQLite in a file lake, PostgreSQL on a cluster."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from visionloop import environment
from visionloop.errors import InputError, VisionloopError
from visionloop.lake.storage import join, local_path, normalise, scheme_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

# A writer that meets another one's commit tries again: pyiceberg's default of 4 lost 4 of 96
# appends among 8 writers, 30 lost none of 192.
TABLE_PROPERTIES = {
    "commit.retry.num-retries": "30",
    "write.metadata.previous-versions-max": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.parquet.compression-codec": "zstd",
}
# Raw float vectors do not compress: zstd makes them six times slower to write and no smaller.
EMBEDDINGS_PROPERTIES = TABLE_PROPERTIES | {"write.parquet.compression-codec": "uncompressed"}

SQLITE_TIMEOUT_SECONDS = 30

# What a person does whose machine does not reach a lake that pods work with.
IN_THE_CLUSTER = (
    "A pod of the component client reaches what is in a cluster (docs/cluster.md): kubectl exec -i "
    "deployment/visionloop-client -- visionloop COMMAND --config /dev/stdin < loop.yaml"
)


def catalog_uri(root: str, catalog: str) -> str:
    """Return the catalog's URI of a lake.

    Args:
        root: The lake's root URI.
        catalog: What the configuration names; empty means SQLite inside a ``file://`` root. The
            environment variable ``VISIONLOOP_CATALOG`` wins.

    Raises:
        InputError: A ``gs://`` root without a catalog, or a catalog of an unknown kind.
    """
    uri = environment.catalog_uri() or catalog
    if not uri:
        if scheme_of(root) != "file":
            raise InputError(
                "a gs:// lake needs a catalog",
                where=root,
                remedy="Set `catalog:` (or VISIONLOOP_CATALOG) to a PostgreSQL database, "
                "postgresql+psycopg2://user@host/db. "
                f"{IN_THE_CLUSTER}",
            )
        return f"sqlite:///{local_path(join(root, 'catalog.sqlite'))}"
    if uri.startswith("postgresql://"):
        uri = uri.replace("postgresql://", "postgresql+psycopg2://", 1)
    kind = urlsplit(uri).scheme
    if kind in ("http", "https"):
        raise InputError(
            "an Iceberg REST catalog has no lock that a single writer could hold, so it is not "
            "supported yet",
            where=uri,
            remedy="Use a PostgreSQL database: postgresql+psycopg2://user@host/db",
        )
    if kind not in ("sqlite", "postgresql+psycopg2"):
        raise InputError(
            f"catalog kind {kind!r} is not supported",
            where=uri,
            remedy="Use sqlite:///path or postgresql+psycopg2://user@host/db",
        )
    return uri


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite catalog; None for a catalog of another kind."""
    if not uri.startswith("sqlite:///"):
        return None
    return local_path(uri.removeprefix("sqlite:///").split("?")[0])


def _sqlite_timeout(uri: str) -> str:
    """Return the seconds to wait for a locked database: ``?timeout=5`` at the URI's end."""
    given = dict(parse_qsl(urlsplit(uri).query)).get("timeout", str(SQLITE_TIMEOUT_SECONDS))
    if not given.isdigit():
        raise InputError(
            f"the catalog's timeout is {given!r}",
            where=uri,
            remedy="Give whole seconds, as in sqlite:///path?timeout=30",
        )
    return given


def open_catalog(root: str, catalog: str) -> Catalog:
    """Open the catalog of a lake.

    Args:
        root: The lake's root URI.
        catalog: Its catalog's URI, see `catalog_uri`.

    Raises:
        InputError: The root or the catalog cannot be used.
        VisionloopError: The catalog does not answer.
    """
    uri = catalog_uri(root, catalog)
    # pyiceberg takes a file's path as it stands: a quoted one would become another folder.
    warehouse = f"file://{local_path(root)}" if scheme_of(root) == "file" else normalise(root)
    properties = {"warehouse": warehouse, "py-io-impl": "visionloop.lake.file_io.LakeFileIO"}
    properties |= _storage_properties(root)
    with catalog_errors(uri):
        from pyiceberg.catalog.sql import SqlCatalog
        from sqlalchemy.exc import DatabaseError

        if path := sqlite_file(uri):
            options = {"timeout": _sqlite_timeout(uri)}
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"cannot make the lake's folder: {error.strerror}",
                    where=str(path.parent),
                    remedy="Choose a folder that may be written, with `lake:` or --lake",
                ) from error
            # SQLAlchemy's own form: whether it unquotes a path depends on its version.
            from sqlalchemy import URL

            uri = URL.create("sqlite", database=str(path), query=options).render_as_string()
        for _ in range(2):
            try:
                return SqlCatalog("visionloop", uri=uri, **properties)
            except DatabaseError as error:
                # Two processes that open a new catalog at once both make its two tables.
                if "already exists" not in str(error):
                    raise
        return SqlCatalog("visionloop", uri=uri, **properties)


def _storage_properties(root: str) -> dict[str, str]:
    emulator = environment.storage_emulator()
    if scheme_of(root) != "gs" or not emulator:
        return {}
    # Without a token pyarrow asks the metadata server of a machine outside the cloud, and hangs.
    return {
        "gcs.service.host": emulator,
        "gcs.oauth2.token": "emulated",
        "gcs.oauth2.token-expires-at": "4102444800000",
        "gcs.default-bucket-location": "US",
    }


def refuse_another_root(root: str, catalog: Catalog, loop: str) -> None:
    """Refuse a catalog whose tables lie under another root: a lake that was copied or moved.

    A catalog names its tables' files by absolute paths, so that a copy of a lake, made with ``cp``,
    would read and change the files of the lake that it was made from.

    Args:
        root: The lake's root URI.
        catalog: Its catalog, a SQL one as `open_catalog` returns it.
        loop: Name of the loop.

    Raises:
        InputError: A table of the loop lies elsewhere.
    """
    from pyiceberg.catalog.sql import IcebergTables
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    named = select(IcebergTables.metadata_location).where(IcebergTables.table_namespace == loop)
    with Session(catalog.engine) as session:  # type: ignore[attr-defined]
        places = {_root_of_table(place) for place in session.scalars(named) if place}
    for held in sorted(places):
        if not _same_root(root, held):
            raise InputError(
                f"this lake was copied or moved: its catalog names the files of {held}",
                where=root,
                remedy=f"Work with the lake at {held}; make a copy with `visionloop lake backup` "
                "and `visionloop lake restore`. A lake that was moved: put it back, or make its "
                "former place a symbolic link to this one",
            )


def _root_of_table(metadata: str) -> str:
    # root/loop/table/metadata/version.metadata.json
    return metadata.rsplit("/", 4)[0]


def _same_root(root: str, held: str) -> bool:
    if scheme_of(root) != "file" or scheme_of(held) != "file":
        return normalise(root) == held.rstrip("/")
    # A file's path stands unquoted in the catalog.
    mine, other = local_path(root), Path(held.removeprefix("file://"))
    return mine == other or (mine.exists() and other.exists() and mine.samefile(other))


@contextlib.contextmanager
def catalog_errors(where: str, *, files: str = "") -> Iterator[None]:
    """Turn what the catalog's and the file system's libraries raise into a `VisionloopError`.

    Args:
        where: The catalog or the table; an error tells it without its password.
        files: Where the files lie, if that is another place than what is named by `where`.
    """
    from pyiceberg.exceptions import CommitFailedException
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        yield
    except OperationalError as error:
        cause = str(error.orig)
        if "locked" in cause:
            remedy = (
                "Another process holds it: wait for it to end and run this again; "
                "for several writers use a PostgreSQL catalog"
            )
        elif "readonly" in cause or "unable to open" in cause:
            remedy = "Check that the folder exists and may be written"
        elif "could not translate host name" in cause:
            remedy = (
                "Check that `catalog:` names its host; one in a cluster is known there only. "
                f"{IN_THE_CLUSTER}"
            )
        elif "full" in cause:
            remedy = "Free some space and run this again; what was stored is intact"
        else:
            remedy = "Check that the database is up and that `catalog:` names it"
        raise VisionloopError(
            f"the lake's catalog does not answer: {cause.strip()}", where=where, remedy=remedy
        ) from error
    except DatabaseError as error:
        raise VisionloopError(
            f"the lake's catalog is not usable: {str(error.orig).strip()}",
            where=where,
            remedy="Restore the catalog from a backup, or name the right database",
        ) from error
    except CommitFailedException as error:
        raise VisionloopError(
            f"another writer was faster: {error}", where=where, remedy="Run the stage again"
        ) from error
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        raise VisionloopError(
            f"the lake cannot be read or written: {_shortly(error)}",
            where=files or where,
            remedy="Free some space and run this again; what was stored is intact"
            if full
            else "Check that the lake is reachable and may be written, and run this again",
        ) from error


def _shortly(error: OSError) -> str:
    # Google's C++ client repeats itself in braces.
    return (error.strerror or str(error)).partition(" error_info=")[0].strip() or "no reason given"
