"""Publishes that are killed while they try a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.servers import wait_until
from tests.serving.inference_service.conftest import World

PROGRAM = """
import json, sys
from visionloop.stages.publish import publish
publish(**json.loads(sys.argv[1]))
"""


def start_trial(world: World, model_id: str) -> subprocess.Popen[bytes]:
    """Publish in a process of its own, and return once the model gets a part of the traffic."""
    uri = f"file://{world.folder / 'lake' / 'models' / model_id}"
    arguments = {"config": world.config(), "model_id": model_id, "model_uri": uri, "passed": True}
    arguments["round_id"] = f"{world.round:04d}"
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(arguments)])

    def tries() -> bool:
        assert child.poll() is None, "the publish ended before it tried the model"
        return '"tried_since": "2' in text(world.record())

    wait_until(tries)
    return child


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a publish."""
    child.kill()
    child.wait()


def text(path: Path) -> str:
    """Return what a file holds; nothing where it is not there."""
    return path.read_text() if path.exists() else ""
