"""Opens the Iceberg catalog of a lake: SQLite in a file lake, PostgreSQL on a cluster."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
                "postgresql+psycopg2://user@host/db",
            )
        return f"sqlite:///{local_path(join(root, 'catalog.sqlite'))}"
    if uri.startswith("postgresql://"):
        uri = uri.replace("postgresql://", "postgresql+psycopg2://", 1)
    kind = urlsplit(uri).scheme
    if kind in ("http", "https"):
        raise InputError(
            "an Iceberg REST catalog has no lock that a single writer could hold, so it is not "
            "supported yet",
            where=without_password(uri),
            remedy="Use a PostgreSQL database: postgresql+psycopg2://user@host/db",
        )
    if kind not in ("sqlite", "postgresql+psycopg2"):
        raise InputError(
            f"catalog kind {kind!r} is not supported",
            where=without_password(uri),
            remedy="Use sqlite:///path or postgresql+psycopg2://user@host/db",
        )
    return uri


def without_password(uri: str) -> str:
    """Return a URI that is fit for a message: without the password, if it holds one."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


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
    properties = {"warehouse": warehouse, "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
    properties |= _storage_properties(root)
    with catalog_errors(uri):
        from pyiceberg.catalog.sql import SqlCatalog
        from sqlalchemy.exc import DatabaseError

        if uri.startswith("sqlite:///"):
            path = local_path(uri.removeprefix("sqlite:///").split("?")[0])
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

            options = {"timeout": str(SQLITE_TIMEOUT_SECONDS)}
            uri = URL.create("sqlite", database=str(path), query=options).render_as_string()
        try:
            return SqlCatalog("visionloop", uri=uri, **properties)
        except DatabaseError as error:
            if "already exists" not in str(error.orig):
                raise
            # Two processes opened a new lake at once, and the other one made its tables first.
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


@contextlib.contextmanager
def catalog_errors(where: str) -> Iterator[None]:
    """Turn what the catalog's and the file system's libraries raise into a `VisionloopError`."""
    from pyiceberg.exceptions import CommitFailedException
    from sqlalchemy.exc import DatabaseError, OperationalError

    place = without_password(where)
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
        elif "full" in cause:
            remedy = "Free some space and run this again; what was stored is intact"
        else:
            remedy = "Check that the database is up and that `catalog:` names it"
        raise VisionloopError(
            f"the lake's catalog does not answer: {cause.strip()}", where=place, remedy=remedy
        ) from error
    except DatabaseError as error:
        raise VisionloopError(
            f"the lake's catalog is not usable: {str(error.orig).strip()}",
            where=place,
            remedy="Restore the catalog from a backup, or name the right database",
        ) from error
    except CommitFailedException as error:
        raise VisionloopError(
            f"another writer was faster: {error}", where=place, remedy="Run the stage again"
        ) from error
    except OSError as error:
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        raise VisionloopError(
            f"the lake cannot be read or written: {error.strerror or error}",
            where=place,
            remedy="Free some space and run this again; what was stored is intact"
            if full
            else "Check that the lake is reachable and may be written, and run this again",
        ) from error
