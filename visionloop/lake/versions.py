"""Lake versions: ``{table: snapshot id}``, written last by each stage.

Iceberg commits one table at a time. A stage's rows are invisible until its version row is there, so
a stage that was killed half way has done nothing, whatever it wrote. The newest version also stands
in the summary of the snapshot that holds its row: finding it reads no data file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionloop.errors import InputError

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

EMPTY = ""
_VERSION, _TABLES, _SEQUENCE = "visionloop.version", "visionloop.tables", "visionloop.sequence"


@dataclass(frozen=True)
class Version:
    """A state of all tables of a loop.

    Attributes:
        id: Content hash of `tables`; empty for the lake that holds nothing.
        tables: Snapshot id of each table.
        sequence: Place among the loop's stage runs.
    """

    id: str
    tables: dict[str, int]
    sequence: int


NOTHING = Version(EMPTY, {}, -1)


def version_id(tables: dict[str, int]) -> str:
    """Return the content hash that names a version."""
    if not tables:
        return EMPTY
    return hashlib.sha256(json.dumps(sorted(tables.items())).encode()).hexdigest()[:16]


def summary(version: Version) -> dict[str, str]:
    """Return the snapshot properties that record a version."""
    return {
        _VERSION: version.id,
        _TABLES: json.dumps(version.tables),
        _SEQUENCE: str(version.sequence),
    }


def newest(stage_runs: Table | None) -> Version:
    """Return the newest version that a loop's `stage_runs` records."""
    snapshot = stage_runs.current_snapshot() if stage_runs else None
    return of(snapshot) if snapshot else NOTHING


def find(stage_runs: Table | None, wanted: str) -> Version:
    """Return a recorded version by its id.

    Raises:
        InputError: No version of that id is recorded.
    """
    if wanted == EMPTY:
        return NOTHING
    for snapshot in reversed(stage_runs.snapshots() if stage_runs else []):
        version = of(snapshot)
        if version.id == wanted:
            return version
    if stage_runs is not None and _was_recorded(stage_runs, wanted):
        raise InputError(
            f"the rows of version {wanted} are gone: a vacuum removed them, samples of it were "
            "erased, or the lake was restored from a backup of a later version",
            remedy="Choose one that `visionloop lake versions` lists as readable",
        )
    raise InputError(
        f"the lake has no version {wanted!r}",
        remedy="Leave the version empty for the newest one, or look it up with "
        "`visionloop lake versions`",
    )


def of(snapshot: Snapshot) -> Version:
    """Return the version that a snapshot of `stage_runs` records."""
    properties = snapshot.summary.additional_properties if snapshot.summary else {}
    if _VERSION not in properties:
        return NOTHING
    tables = {name: int(snapshot) for name, snapshot in json.loads(properties[_TABLES]).items()}
    return Version(properties[_VERSION], tables, int(properties[_SEQUENCE]))


def _was_recorded(stage_runs: Table, wanted: str) -> bool:
    from pyiceberg.expressions import EqualTo

    matching = stage_runs.scan(
        row_filter=EqualTo(term="version", value=wanted), selected_fields=("version",), limit=1
    )
    return bool(matching.to_arrow().num_rows)
