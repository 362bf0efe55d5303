"""Real servers that tests start and stop: a Cloud Storage emulator, PostgreSQL."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def answering(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Answer HTTP requests in a thread of this process; yields host and port.

    Args:
        handler: Answers; it logs nothing.
        port: Where; 0 takes a free port.
    """

    class Quiet(handler):  # type: ignore[valid-type, misc]
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def storage_emulator(folder: Path | None = None) -> Iterator[str]:
    """Run a Cloud Storage emulator and yield its address.

    Args:
        folder: What it holds is kept there for the next one; None keeps it in memory.
    """
    port = free_port()
    where = "in_memory=True" if folder is None else f"data_dir={str(folder)!r}"
    program = (
        "from gcp_storage_emulator.server import create_server\n"
        f"create_server('127.0.0.1', {port}, {where}).run()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: urllib.request.urlopen(f"{address}/storage/v1/b?project=p").read())
        yield address
    finally:
        child.terminate()
        child.wait()


def postgresql_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, None where it is not installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    return Path(found[-1]).parent if found else None


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server of its own, and yield the address of an empty database."""
    programs = postgresql_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    port = free_port()
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    os.chown(folder, user.pw_uid, user.pw_gid)

    def run(*arguments: str) -> None:
        subprocess.run(
            arguments,
            check=True,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    data, log = folder / "data", folder / "log"
    run(str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "lake", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    run(str(programs / "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg2://lake@127.0.0.1:{port}/postgres"
    finally:
        run(str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _wait(attempt: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            attempt()  # type: ignore[operator]
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
