"""The demo's two servers: the predictor and the collector, each a process as a team runs it."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visionloop.errors import VisionloopError

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass
class Server:
    """A server process of the demo.

    Attributes:
        name: What it is.
        url: Its address.
        log: The file that it writes to.
        process: Its process.
    """

    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait_until_up(self, path: str) -> None:
        """Wait until it answers at a path.

        Raises:
            VisionloopError: It ended, or did not come up in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self._failure(f"ended with status {self.process.returncode}")
            with contextlib.suppress(OSError):
                # An error status is an answer too: it is up.
                with contextlib.suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(self.url + path, timeout=2).read()
                return
            time.sleep(0.05)
        raise self._failure(f"did not answer within {START_SECONDS:.0f} s")

    def stop(self) -> None:
        """End it as Kubernetes would: ask, wait, kill."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _failure(self, what: str) -> VisionloopError:
        last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
        said = f"; its last line was: {last[0][:200]}" if last else ""
        return VisionloopError(
            f"the demo's {self.name} {what}{said}",
            where=str(self.log),
            remedy="Look at its log, then start the demo again: it goes on where it stopped",
        )


def _end_with_parent() -> None:
    """Ask Linux to end this process when the demo is killed: nobody would know of it."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(name: str, url: str, log: Path, *arguments: str) -> Iterator[Server]:
    """Run a command of visionloop as a server, and stop it at the end.

    Args:
        name: What it is, for messages.
        url: The address that it will answer at.
        log: The file that its output goes to.
        arguments: The command line after ``visionloop``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "visionloop", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,
        )
    server = Server(name, url, log, process)
    try:
        yield server
    finally:
        server.stop()
