"""A real Label Studio server: installed once into an environment of its own, run on SQLite."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import free_port

VERSION = "1.23.0"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
ADMIN, PASSWORD = "admin@example.com", "a-password-of-tests"
# Beside what the tests themselves run in: it pins other versions of numpy, and takes 1 GB.
FOLDER = Path(sys.prefix) / f"label-studio-{VERSION}"
# Words of pip and uv where a registry cannot be reached.
_AWAY = ("connect", "resolve", "network", "timed out", "dns", "unreachable")


class LabelStudio:
    """A server with an administrator and nothing else.

    Args:
        folder: Where it keeps its database.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.token = TOKEN
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 240) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        self.wait(seconds)

    def begin(self) -> None:
        """Start it."""
        port = self.url.rpartition(":")[2]
        command = [str(FOLDER / "bin" / "label-studio"), "start", "--no-browser", "--port", port]
        command += ["--internal-host", "127.0.0.1", "--username", ADMIN, "--password", PASSWORD]
        with (self.folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [*command, "--user-token", TOKEN],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(self.folder),
                start_new_session=True,
            )

    def wait(self, seconds: float) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).read()
                return
            except (OSError, urllib.error.URLError):
                assert self._child is not None
                alive = self._child.poll() is None
                if not alive or time.monotonic() > deadline:
                    log = (self.folder / "log").read_text(errors="replace")[-2000:]
                    raise AssertionError(f"Label Studio did not start: {log}") from None
                time.sleep(0.2)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it as `kill -9` does."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, how)
            self._child.wait()
            self._child = None

    def api(self, token: str = TOKEN, scheme: str = "Token") -> httpx.Client:
        """Return a client that acts as the user of a token."""
        headers = {"Authorization": f"{scheme} {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    @contextlib.contextmanager
    def member(self, name: str) -> Iterator[httpx.Client]:
        """Yield a client of another annotator, who joins the organization by its link."""
        email = f"{name}@example.com"
        with self.api() as admin:
            known = {one["email"]: one["id"] for one in admin.get("/api/users").json()}
            link = admin.get("/api/invite").json()["invite_url"]
        with httpx.Client(base_url=self.url, follow_redirects=True, timeout=60) as browser:
            if email not in known:
                page = browser.get(link)
                form = {"email": email, "password": PASSWORD, "allow_newsletters": "false"}
                _post_form(browser, str(page.url), form)
            else:
                sign_in(browser, email)
            browser.headers["X-CSRFToken"] = browser.cookies["csrftoken"]
            browser.headers["Referer"] = self.url
            assert browser.get("/api/current-user/whoami").json()["email"] == email
            yield browser


def sign_in(browser: httpx.Client, email: str = ADMIN) -> None:
    """Sign in as a person does, so that the client has a session's cookie."""
    browser.get("/user/login/")
    _post_form(browser, "/user/login/", {"email": email, "password": PASSWORD})


@contextlib.contextmanager
def label_studio(folder: Path) -> Iterator[LabelStudio]:
    """Run a server of one's own; a test is skipped where it cannot be installed."""
    install()
    shutil.copytree(_template(), folder, dirs_exist_ok=True)
    server = LabelStudio(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def install() -> None:
    """Install the server, once for all test runs of this environment."""
    with _alone():
        done = FOLDER / "complete"
        if done.exists():
            return
        shutil.rmtree(FOLDER, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        package, python = f"label-studio=={VERSION}", str(FOLDER / "bin" / "python")
        uv = Path(sys.prefix) / "bin" / "uv"
        pip = [str(uv), "pip", "install", "--python", python]
        if not uv.exists():
            pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
        found = subprocess.run([*pip, "--quiet", package], capture_output=True, text=True)
        if found.returncode:
            words = found.stderr[-2000:]
            if any(word in words.lower() for word in _AWAY):
                pytest.skip(f"Label Studio cannot be installed, PyPI is out of reach: {words}")
            raise AssertionError(words)
        done.touch()


def _template() -> Path:
    """Return a folder with a database whose tables are made: that takes most of a first start."""
    template = FOLDER / "template"
    with _alone():
        if not template.exists():
            making = FOLDER / "making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            server = LabelStudio(making)
            server.start()
            server.kill(signal.SIGTERM)
            making.rename(template)
    return template


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep the test workers of this machine from doing the same at once."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _post_form(browser: httpx.Client, url: str, form: dict[str, Any]) -> None:
    token = browser.cookies["csrftoken"]
    answer = browser.post(
        url, data={**form, "csrfmiddlewaretoken": token}, headers={"Referer": str(browser.base_url)}
    )
    assert answer.status_code == 200, answer.text[:500]


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        # Calls of webhooks to this machine itself.
        "SSRF_PROTECTION_ENABLED": "false",
        "LOG_LEVEL": "WARNING",
    }
