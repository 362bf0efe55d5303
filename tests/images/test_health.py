"""What a container's health check says of the server that runs beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def health(port_file: Path) -> subprocess.CompletedProcess[str]:
    """Run the image's health check as a container does: without an argument."""
    return subprocess.run(
        [sys.executable, "-m", "visionloop", "health"],
        env={**os.environ, "VISIONLOOP_PORT_FILE": str(port_file)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["serve", "collect"])
def test_a_server_is_alive_until_it_is_killed(command: str, tmp_path: Path) -> None:
    ports = tmp_path / "ports.json"
    about = {
        # A predictor is alive before its first model is published, and not ready.
        "serve": ["--model", str(tmp_path / "no-model-yet.json"), "--grpc-port", "-1"],
        "collect": ["--lake", str(tmp_path / "lake")],
    }
    with subprocess.Popen(
        [sys.executable, "-m", "visionloop", command, *about[command], "--port", "0"],
        env={**os.environ, "VISIONLOOP_PORT_FILE": str(ports)},
    ) as server:
        until = time.monotonic() + 60
        while not ports.exists() and time.monotonic() < until:
            time.sleep(0.05)
        alive = health(ports)
        os.kill(server.pid, signal.SIGKILL)
    port = json.loads(ports.read_text(encoding="utf-8"))["http"]
    assert alive.returncode == 0 and f"alive on port {port}" in alive.stdout
    dead = health(ports)
    assert dead.returncode == 1 and "does not answer" in dead.stderr


def test_a_server_that_hangs_counts_as_dead(tmp_path: Path) -> None:
    ports = tmp_path / "ports.json"
    with subprocess.Popen(
        [sys.executable, "-m", "visionloop", "collect", "--lake", str(tmp_path), "--port", "0"],
        env={**os.environ, "VISIONLOOP_PORT_FILE": str(ports)},
    ) as server:
        until = time.monotonic() + 60
        while not ports.exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(server.pid, signal.SIGSTOP)
        answer = subprocess.run(
            [sys.executable, "-m", "visionloop", "health", "--timeout", "0.5"],
            env={**os.environ, "VISIONLOOP_PORT_FILE": str(ports)},
            capture_output=True,
            text=True,
            check=False,
        )
        os.kill(server.pid, signal.SIGKILL)
    assert answer.returncode == 1 and "timed out" in answer.stderr


def test_a_container_without_a_server_is_healthy_when_it_can_be_started(tmp_path: Path) -> None:
    answer = health(tmp_path / "nothing.json")
    assert answer.returncode == 0 and "no server here" in answer.stdout
