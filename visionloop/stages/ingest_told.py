"""What an ingest could not use, for a person: reasons with their counts and first files, or all."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionloop.interchange.records import Problems

_SHOWN = 3
_BATCH = 10_000


class _Files:
    """The artifact that the stage writes a row for each file to."""

    def __init__(self, path: Path) -> None:
        self.path = self.uri = str(path)
        self.metadata: dict[str, Any] = {}


class Told:
    """What was not taken in.

    Args:
        problems: Receives each file.
        folder: Where the stage may write.

    Attributes:
        files: What the stage `ingest` takes as `files`.
        reasons: Number of files by outcome and reason.
        first: Their first files, below their source.
        details: What was said of the very first.
    """

    def __init__(self, problems: Problems, folder: Path) -> None:
        self._problems = problems
        self.files = _Files(folder / "files.parquet")
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.first: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.details: dict[tuple[str, str], str] = {}

    def read(self) -> None:
        """Take in what the stage wrote; nothing where it did not come so far."""
        if not Path(self.files.path).exists():
            return
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(self.files.path).iter_batches(_BATCH):
            for row in batch.to_pylist():
                if row["outcome"] in ("unreadable", "skipped"):
                    self._add(row)

    def _add(self, row: dict[str, Any]) -> None:
        what = (row["outcome"], row["reason"] or "no reason")
        place = "" if row["offset"] is None else f"byte {row['offset']}"
        self._problems.add(what[1], row["uri"], place, row["detail"] or "")
        self.reasons[what] += 1
        if len(self.first[what]) < _SHOWN:
            below = row["uri"].removeprefix(row["source"].rstrip("/") + "/")
            self.first[what].append(below)
            detail = ", ".join(filter(None, (row["detail"], place and f"at {place}")))
            self.details.setdefault(what, detail)

    def result(self) -> dict[str, Any]:
        """Return it for a program."""
        found: dict[str, dict[str, Any]] = {"unreadable": {}, "skipped": {}}
        for (outcome, reason), n in sorted(self.reasons.items()):
            first = self.first[outcome, reason]
            found[outcome][reason] = {"files": n, "first": first}
        return {"reasons": found}

    def lines(self) -> list[str]:
        """Return a line a reason."""
        found = []
        for what, n in sorted(self.reasons.items(), reverse=True):
            names = ", ".join(self.first[what]) + (", …" if n > _SHOWN else "")
            detail = f" ({self.details[what]})" if self.details[what] else ""
            found.append(f"{what[0]}, {what[1]}: {n:,}: {names}{detail}")
        tables = [
            name
            for name in self.first["unreadable", "not_an_image"]
            if name.rpartition("/")[2] in ("metadata.csv", "metadata.jsonl", "metadata.parquet")
        ]
        found += [
            f"{name} is not at the root of its source: name it in the source's metadata_table"
            for name in tables
        ]
        return found
