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
    # A sandboxed frame stays in the page's process, so that one connection reaches both.
    "--disable-features=IsolateSandboxedIframes",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    # Pages may load from this machine and from nowhere else.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class Browser:
    """A page of the browser.

    Args:
        socket: Connection to the page's DevTools.

    Attributes:
        complaints: What the page's console, its exceptions and the browser itself complained of
            since `listen`, a broken content security policy among them.
        worlds: Id of the JavaScript world of each frame since `listen`, by the frame's id.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0
        self.complaints: list[str] = []
        self.worlds: dict[str, int] = {}

    def listen(self) -> None:
        """Keep what the page complains of, also what it will complain of."""
        for domain in ("Runtime", "Log", "Page"):
            self.tell(f"{domain}.enable")

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
            self._note(told.get("method", ""), told.get("params", {}))

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(event["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.complaints.append(event["entry"]["text"])
        elif method == "Runtime.executionContextCreated":
            context = event["context"]
            if context.get("auxData", {}).get("isDefault"):
                self.worlds[context["auxData"]["frameId"]] = context["id"]

    def open(self, address: str) -> None:
        """Open a page and wait until all of it is there."""
        self.tell("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({json.dumps(address)})")
        self.wait("document.readyState === 'complete'")

    def press(self, key: str, code: int = 0, text: str = "", shift: bool = False) -> None:
        """Press and let go of a key, as a person does.

        Args:
            key: Its name, for example ``ArrowRight``.
            code: Its Windows virtual key code.
            text: What it types.
            shift: Whether shift is held.
        """
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        common["modifiers"] = 8 if shift else 0
        down = {"type": "keyDown" if text else "rawKeyDown", "text": text}
        self.tell("Input.dispatchKeyEvent", **common, **{k: v for k, v in down.items() if v})
        self.tell("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, x: float, y: float) -> None:
        """Click with the left button at a place of the window, in CSS pixels."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
            self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def evaluate(self, expression: str, *, world: int | None = None) -> Any:
        """Return the value of JavaScript in the page, or in the world of one of its frames."""
        where = {} if world is None else {"contextId": world}
        told = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, **where)
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
