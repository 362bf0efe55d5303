"""Runs Datalab and Evidently by a Python of their own (`benchmarks._monitoring_peers`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np


class Peers:
    """What Datalab and Evidently find.

    Args:
        python: The interpreter that has them.
    """

    def __init__(self, python: str) -> None:
        self._python = python
        test = subprocess.run(
            [python, "-c", "import cleanlab.datalab.datalab, datasets, evidently"],
            capture_output=True,
        )
        self.there = test.returncode == 0
        self.versions: dict[str, str] = {}
        if not self.there:
            print(
                f"{python} has no Datalab or no Evidently: their rows are left out (see --help)",
                file=sys.stderr,
            )

    def found(self, arrays: Mapping[str, Any]) -> dict[str, list[int]]:
        """Return what each case's peer flags; nothing where the peers are not there.

        Args:
            arrays: As `benchmarks._monitoring_peers` takes them.
        """
        if not self.there:
            return {}
        with TemporaryDirectory() as folder:
            path = Path(folder) / "work.npz"
            np.savez(path, **arrays)
            script = Path(__file__).with_name("_monitoring_peers.py")
            done = subprocess.run(
                [self._python, str(script), str(path)], capture_output=True, text=True
            )
        if done.returncode:
            raise RuntimeError(f"the peers failed: {done.stderr[-2000:]}")
        told = json.loads(done.stdout)
        self.versions = told["versions"]
        found: dict[str, list[int]] = told["found"]
        return found
