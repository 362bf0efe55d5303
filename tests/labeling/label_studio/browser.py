"""A headless Chromium that a test steers through its DevTools."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    # Pages may load from this machine and from nowhere else.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class Browser:
    """A page of the browser.

    Args:
        socket: Connection to the page's DevTools.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            told = json.loads(self._socket.recv())
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        """Return the value of JavaScript in the page."""
        told = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of JavaScript as soon as it is true; the page may still be loading."""
        attempt = f"(() => {{ try {{ return ({expression}) }} catch {{ return null }} }})()"
        deadline = time.monotonic() + seconds
        while True:
            value = self.evaluate(attempt)
            if value:
                return value
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                raise AssertionError(f"never true: {expression}; the page says: {text[:2000]}")
            time.sleep(0.2)

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browser(folder: Path, size: tuple[int, int] = (1280, 900)) -> Iterator[Browser]:
    """Run a browser of one's own.

    Args:
        folder: Its profile.
        size: Of the window, in pixels.
    """
    assert CHROMIUM is not None
    window = f"--window-size={size[0]},{size[1]}"
    command = [CHROMIUM, *_FLAGS, window, f"--user-data-dir={folder}", "about:blank"]
    with (folder.parent / "chromium.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        port = _port(folder / "DevToolsActivePort", child)
        pages = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json").read())
        address = next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
        socket = websocket.create_connection(address, timeout=60)
        try:
            yield Browser(socket)
        finally:
            socket.close()
    finally:
        child.terminate()
        child.wait()


def _port(file: Path, child: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = file.read_text().splitlines()
            if len(lines) > 1:
                return lines[0]
        time.sleep(0.1)
    raise AssertionError("the browser did not start")
