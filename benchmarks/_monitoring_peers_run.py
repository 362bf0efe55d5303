"""Runs peers by a Python of their own: Datalab and Evidently, alibi-detect."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np


@dataclass
class Peers:
    """What some packages find that rule out ours, or ours them.

    Attributes:
        python: The interpreter that has them.
        script: The file beside this one that asks them.
        imports: What has to be there, separated by commas.
        names: What they are called where it is told that they are not there.
        versions: Of each, once they were asked.
    """

    python: str
    script: str
    imports: str
    names: str
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look whether they are there."""
        command = [self.python, "-c", f"import {self.imports}"]
        self.there = (
            bool(self.python) and not subprocess.run(command, capture_output=True).returncode
        )
        if not self.there:
            why = (
                f"{self.python} does not have them"
                if self.python
                else "no Python of theirs is named"
            )
            print(f"without {self.names}: {why} (see --help)", file=sys.stderr)

    def found(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Return what each case's peer flags; nothing where the peers are not there.

        Args:
            arrays: As the script takes them.
        """
        if not self.there:
            return {}
        with TemporaryDirectory() as folder:
            path = Path(folder) / "work.npz"
            np.savez(path, **arrays)
            script = Path(__file__).with_name(self.script)
            done = subprocess.run(
                [self.python, str(script), str(path)], capture_output=True, text=True
            )
        if done.returncode:
            raise RuntimeError(f"{self.names} failed: {done.stderr[-2000:]}")
        # Some tell on the same stream what else they miss.
        told = json.loads(done.stdout.splitlines()[-1])
        self.versions |= told["versions"]
        found: dict[str, Any] = told["found"]
        return found


@dataclass
class AllPeers:
    """Those that are asked by Pythons of their own.

    Attributes:
        datalab: Cleanlab's Datalab, and Evidently.
        alibi: alibi-detect.
    """

    datalab: Peers
    alibi: Peers


def peers_of(python: str, alibi: str) -> AllPeers:
    """Return the peers, given the Python that has Datalab and Evidently, and alibi-detect's."""
    return AllPeers(
        Peers(
            python,
            "_monitoring_peers.py",
            "cleanlab.datalab.datalab, datasets, evidently",
            "Datalab and Evidently",
        ),
        Peers(alibi, "_alibi.py", "alibi_detect.cd", "alibi-detect"),
    )
