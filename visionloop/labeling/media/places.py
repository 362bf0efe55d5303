"""Where the samples of a lake lie, for a server that is asked of one at a time.

Those that people are asked about are kept in memory; any other is looked up. Both are forgotten
with each new version of the lake, which is looked for every two seconds: a sample that was erased
is gone by then, and as soon as the new version is read.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.errors import VisionloopError

if TYPE_CHECKING:
    from visionloop.lake import Lake

LOOK_SECONDS = 2.0
# Places of samples that were looked up one by one.
_LOOKED_UP = 100_000


@dataclass(frozen=True)
class _Held:
    """What is known of one state of the lake.

    Attributes:
        versions: Version by loop.
        asked: Places of the samples that people are asked about, by id.
        looked_up: Places of others, None where there is no such sample.
    """

    versions: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    looked_up: dict[str, str | None] = field(default_factory=dict)


class Places:
    """Finds samples in the loops of a lake.

    One thread at a time looks for a new version and reads it; the others go on with what is known.

    Args:
        lake: Root of the lake; it need not be there yet.
        catalog: Its catalog.
        loop: The only loop to look in; empty: all.
    """

    def __init__(self, lake: str, catalog: str = "", loop: str = "") -> None:
        self._lake, self._catalog, self._loop = lake, catalog, loop
        self._looking = threading.Lock()
        self._lakes: dict[str, Lake] = {}
        self._held: _Held | None = None
        self._failed: VisionloopError | None = None
        self._looked = float("-inf")

    def find(self, sample_id: str) -> str | None:
        """Return where a sample lies, None where the lake has none of that id.

        May be called by several threads.

        Raises:
            VisionloopError: The lake cannot be read.
        """
        held = self._current()
        if sample_id in held.asked:
            return held.asked[sample_id]
        try:
            return held.looked_up[sample_id]
        except KeyError:  # asked for once: another thread may forget it at any time
            place = self._look_up(held, sample_id)
        if len(held.looked_up) >= _LOOKED_UP:
            held.looked_up.clear()
        held.looked_up[sample_id] = place
        return place

    def loops(self) -> int:
        """Return how many loops there are to look in, none where the lake is not there yet.

        Raises:
            VisionloopError: The lake cannot be read.
        """
        return len(self._current().versions)

    def _current(self) -> _Held:
        """Return what is known of the newest version that was seen."""
        if self._is_due() and self._looking.acquire(blocking=self._held is None):
            try:
                if self._is_due():
                    self._look()
            finally:
                self._looking.release()
        # A catalog that is away is asked every two seconds, and not by each request.
        if self._failed is not None:
            # Without where it was raised before, which would grow with each request.
            raise self._failed.with_traceback(None)
        assert self._held is not None
        return self._held

    def _is_due(self) -> bool:
        return time.monotonic() - self._looked >= LOOK_SECONDS

    def _look(self) -> None:
        from visionloop.lake import Lake

        try:
            names = Lake.loops(self._lake, catalog=self._catalog)
            for name in names:
                if name not in self._lakes and self._loop in ("", name):
                    self._lakes[name] = Lake.open(self._lake, catalog=self._catalog, loop=name)
            versions = {name: self._lakes[name].version() for name in names if name in self._lakes}
            if self._held is None or versions != self._held.versions:
                self._held = _Held(versions, self._asked(versions))
            self._failed = None
        except VisionloopError as error:
            self._failed = error
        finally:
            self._looked = time.monotonic()

    def _asked(self, versions: dict[str, str]) -> dict[str, str]:
        """Return where the samples lie that people are asked about."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found: dict[str, str] = {}
        for name, version in versions.items():
            if not version:
                continue
            lake = self._lakes[name]
            asked = lake.read("label_requests", columns=["sample_id"], version=version)
            wanted = pc.unique(asked["sample_id"])
            if not len(wanted):
                continue
            columns = ["sample_id", "uri"]
            for batch in lake.batches("samples", columns=columns, version=version):
                mine = pa.Table.from_batches([batch])
                mine = mine.filter(pc.is_in(mine["sample_id"], value_set=wanted))
                found.update(
                    zip(mine["sample_id"].to_pylist(), mine["uri"].to_pylist(), strict=True)
                )
        return found

    def _look_up(self, held: _Held, sample_id: str) -> str | None:
        from visionloop.media.records import among

        for name, version in held.versions.items():
            if version:
                where = among("sample_id", [sample_id])
                found = self._lakes[name].read(
                    "samples", columns=["uri"], where=where, version=version
                )
                if found.num_rows:
                    return str(found["uri"][0].as_py())
        return None
