"""Where the samples of a lake lie, for a server that is asked of one at a time.

Those that people are asked about are kept in memory; any other is looked up. Both are forgotten
with each new version of the lake, which is looked for every two seconds: a sample that was erased
is gone by then.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.lake import Lake

LOOK_SECONDS = 2.0
# Places of samples that were looked up one by one.
_LOOKED_UP = 100_000


class Places:
    """Finds samples in the loops of a lake.

    Args:
        lake: Root of the lake; it need not be there yet.
        catalog: Its catalog.
        loop: The only loop to look in; empty: all.
    """

    def __init__(self, lake: str, catalog: str = "", loop: str = "") -> None:
        self._lake, self._catalog, self._loop = lake, catalog, loop
        self._lock = threading.Lock()
        self._lakes: dict[str, Lake] = {}
        self._versions: dict[str, str] = {}
        self._known: dict[str, str | None] = {}
        self._asked = 0
        self._looked = float("-inf")

    def find(self, sample_id: str) -> str | None:
        """Return where a sample lies, None where the lake has none of that id.

        May be called by several threads.

        Raises:
            VisionloopError: The lake cannot be read.
        """
        with self._lock:
            self._look()
            if sample_id not in self._known:
                if len(self._known) > self._asked + _LOOKED_UP:
                    self._learn(self._versions)
                self._known[sample_id] = self._look_up(sample_id)
            return self._known[sample_id]

    def loops(self) -> int:
        """Return how many loops there are to look in, none where the lake is not there yet.

        Raises:
            VisionloopError: The lake cannot be read.
        """
        with self._lock:
            self._look()
            return len(self._versions)

    def _look(self) -> None:
        from visionloop.lake import Lake

        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        names = Lake.loops(self._lake, catalog=self._catalog)
        for name in names:
            if name not in self._lakes and self._loop in ("", name):
                self._lakes[name] = Lake.open(self._lake, catalog=self._catalog, loop=name)
        versions = {name: self._lakes[name].version() for name in names if name in self._lakes}
        if versions != self._versions:
            self._known, self._versions = {}, {}
            self._learn(versions)
            self._versions = versions
        self._looked = time.monotonic()

    def _learn(self, versions: dict[str, str]) -> None:
        """Forget what is known, and read where the samples lie that people are asked about."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._known = {}
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
                places = zip(mine["sample_id"].to_pylist(), mine["uri"].to_pylist(), strict=True)
                self._known.update(places)
        self._asked = len(self._known)

    def _look_up(self, sample_id: str) -> str | None:
        from visionloop.media.records import among

        for name, version in self._versions.items():
            if version:
                where = among("sample_id", [sample_id])
                found = self._lakes[name].read("samples", columns=["uri"], where=where)
                if found.num_rows:
                    return str(found["uri"][0].as_py())
        return None
