"""How a benchmark tells what it measured: one row a case, ours and the peer side by side."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        case: What was measured.
        ours: Our figure.
        peer_name: Whom we compare with, with its version and settings.
        peer: Its figure, from the same run on the same machine.
        unit: Unit of both.
        goal: The ratio that we want; None where none is set.
        smaller_is_better: Whether less is better, as for seconds.
    """

    case: str
    ours: float
    peer_name: str
    peer: float
    unit: str
    goal: float | None = None
    smaller_is_better: bool = True

    @property
    def ratio(self) -> float:
        """How much better than the peer: above 1 is better, whatever the unit."""
        better, worse = (self.peer, self.ours) if self.smaller_is_better else (self.ours, self.peer)
        return better / worse if worse else float("inf")

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None where none is set."""
        return None if self.goal is None else self.ratio >= self.goal


def arguments(
    description: str | None, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Parse the options that every benchmark has, and those that `more` adds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller cases, within a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if more:
        more(parser)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, Python."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    except OSError:
        memory = 0.0
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
    }


def report(benchmark: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows, as a table or as one JSON object."""
    if as_json:
        plain = [asdict(row) | {"ratio": row.ratio, "holds": row.holds} for row in rows]
        print(json.dumps({"benchmark": benchmark, "machine": machine(), "rows": plain}))
        return
    told = machine()
    print(f"{benchmark}: {told['processor']}, {told['cores']} cores, Python {told['python']}")
    width = max(len(row.case) for row in rows)
    for row in rows:
        goal = (
            "" if row.goal is None else f"  goal {row.goal:g} {'holds' if row.holds else 'MISSED'}"
        )
        print(
            f"{row.case:<{width}}  ours {row.ours:>9.3f} {row.unit:<6} "
            f"{row.peer_name} {row.peer:.3f} {row.unit}  ratio {row.ratio:.2f}{goal}"
        )
