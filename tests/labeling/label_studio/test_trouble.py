"""Servers that are away, refuse, or are something else: a clear message, and nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT
from tests.labeling.label_studio.conftest import Loop, answer, choice
from tests.labeling.label_studio.real_server import LabelStudio, label_studio
from tests.servers import answering, free_port
from visionloop.errors import InputError, VisionloopError
from visionloop.labeling.label_studio import check
from visionloop.labeling.label_studio import tasks as reading
from visionloop.labeling.label_studio.server import AT_ONCE, OLDEST, Server

Loops = Callable[..., Loop]


def test_a_wrong_token_is_refused_and_not_told(
    loop: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets = loop()
    wrong = "not-the-token-of-anybody"
    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", wrong)
    with pytest.raises(InputError, match="refuses the token") as caught:
        Loop(pets.server, pets.folder, "x y z").provider.request("r1", pets.asks(1))
    assert wrong not in str(caught.value) and "sessionid" not in str(caught.value)
    assert "VISIONLOOP_LABELSTUDIO_TOKEN" in caught.value.remedy
    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", "")
    with pytest.raises(InputError, match="no token"):
        Loop(pets.server, pets.folder, "x y z")


def test_calls_are_made_side_by_side_in_order_and_the_first_error_ends_them() -> None:
    server = Server("http://127.0.0.1:9", "token")
    together = threading.Barrier(AT_ONCE, timeout=10)

    def wait(number: int) -> int:
        together.wait()
        return number

    count = 2 * AT_ONCE
    assert server.side_by_side(partial(wait, one) for one in range(count)) == list(range(count))
    made = []

    def fail(number: int) -> None:
        made.append(number)
        time.sleep(0.01)
        if number == 1:
            raise InputError("refused")

    with pytest.raises(InputError, match="refused"):
        server.side_by_side(partial(fail, one) for one in range(500))
    assert len(made) < 100


def test_a_personal_access_token_works_as_well(
    loop: Loops, server: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.api() as admin:
        admin.post("/api/jwt/settings", json={"api_tokens_enabled": True})
        token = admin.post("/api/token/").json()["token"]
    loop()  # takes the token of the environment
    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", token)
    title = "personal access token"
    pets = Loop(server, loop().folder, title)
    assert len(pets.provider.request("r1", pets.asks(2))) == 2
    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", token[:-4] + "AAAA")
    with pytest.raises(InputError, match="refuses the token"):
        Loop(server, pets.folder, title).provider.poll("r1", {})


def test_a_project_that_was_deleted_is_named_and_made_anew_on_request(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(2))
    start = pets.provider.collect("r1", requests, "")
    with server.api() as admin:
        admin.delete(f"/api/projects/{pets.project['id']}/")
    for act in (
        lambda: pets.provider.poll("r1", requests),
        lambda: pets.provider.collect("r1", requests, start.cursor),
        lambda: pets.provider.recall("r1", requests),
    ):
        with pytest.raises(InputError, match="is not there: it was deleted") as caught:
            act()
        assert "visionloop labels request" in caught.value.remedy
    anew = pets.provider.request("r1", pets.asks(2))
    assert len(pets.tasks()) == 2
    told = pets.provider.collect("r1", anew, start.cursor)
    assert told.samples == set(anew) == set(requests), "the other project's cursor says nothing"


def test_a_server_that_is_down_is_waited_for_and_then_named(loop: Loops, tmp_path: Path) -> None:
    pets = loop()
    server = Server(f"http://127.0.0.1:{free_port()}", "token", patience=1.5)
    with pytest.raises(VisionloopError, match="does not answer") as caught:
        server.version()
    assert not isinstance(caught.value, InputError) and caught.value.where == server.url
    with pytest.raises(InputError, match="no address"):
        Server("http://[::1", "token").version()
    assert pets.server.url != server.url


class _Page(BaseHTTPRequestHandler):
    """A proxy's login page, whatever is asked."""

    status = 200

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Sign in</title>")

    def do_POST(self) -> None:
        """Answer."""
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize("status", [200, 400, 405])
def test_a_page_of_html_is_no_label_studio(status: int) -> None:
    handler = type("Page", (_Page,), {"status": status})
    with answering(handler) as address:
        with pytest.raises(VisionloopError, match="no Label Studio, or a proxy") as caught:
            Server(f"http://{address}", "token", patience=1).version()
        assert "labeling.label_studio.url" in caught.value.remedy


def test_a_personal_token_behind_a_proxy_page_is_no_riddle() -> None:
    import jwt

    token = jwt.encode({"exp": 4_000_000_000}, "k" * 32)
    with (
        answering(_Page) as address,
        pytest.raises(VisionloopError, match="no Label Studio, or a proxy"),
    ):
        Server(f"http://{address}", token, patience=1).version()
    expired = jwt.encode({"exp": 1_000_000_000}, "k" * 32)
    with pytest.raises(InputError, match="has expired"):
        Server("http://127.0.0.1:9", expired, patience=1).version()


def test_a_label_studio_that_is_too_old_is_named() -> None:
    class Old(_Page):
        def do_GET(self) -> None:
            """Answer as an old server."""
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"release": "1.7.3"}).encode())

    with answering(Old) as address, pytest.raises(InputError, match=r"1\.7\.3 is too old") as told:
        Server(f"http://{address}", "token", patience=1).version()
    assert ".".join(map(str, OLDEST)) in told.value.remedy


_PUSH = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.labeling.label_studio.conftest import Loop
from visionloop.labeling.label_studio import tasks
tasks._CHUNK = 5
url, folder, title = sys.argv[1:]
pets = Loop(SimpleNamespace(url=url), Path(folder), title)
pets.provider.request("r1", pets.asks(100))
"""


def test_a_push_that_is_killed_and_run_again_pushes_nothing_twice(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    asks = pets.asks(100)
    title = pets.config.labeling.label_studio.project
    command = [sys.executable, "-c", _PUSH, server.url, str(pets.folder), title]
    child = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        if _pushed(pets) >= 10:
            child.kill()
    assert child.wait() == -9, "it was done before it was killed"
    before = pets.tasks()
    assert 10 <= len(before) < 100
    requests = pets.provider.request("r1", asks)
    after = pets.tasks()
    assert [task["data"]["rank"] for task in after] == list(range(100))
    assert {task["id"] for task in before} < {task["id"] for task in after}
    assert {str(task["id"]) for task in after} == set(requests.values())


def _pushed(pets: Loop) -> int:
    try:
        return len(pets.tasks())
    except ValueError:
        return 0  # there is no project yet


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_costs_nothing(
    loop: Loops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK", 10)
    with label_studio(tmp_path / "killed") as server:
        pets = loop(server=server)
        asks = pets.asks(120)
        _kill_when(server, lambda: _pushed(pets) >= 20)
        requests = pets.provider.request("r1", asks)
        assert [task["data"]["rank"] for task in pets.tasks()] == list(range(120))
        assert pets.provider.request("r1", asks) == requests
        with server.api() as person:
            for ask in asks[:10]:
                answer(person, requests[ask.sample_id], choice("cat"))
        start = pets.provider.collect("r1", requests, "")
        server.kill()
        threading.Timer(2, server.begin).start()
        told = pets.provider.collect("r1", requests, start.cursor)
        assert {one.sample_id for one in told.annotations} == {a.sample_id for a in asks[:10]}
        assert "Label Studio 1." in check(pets.config, pets.lake, patience=60)


def _kill_when(server: LabelStudio, reached: Callable[[], bool]) -> None:
    """Kill the server with `kill -9` in the middle of things, and start it again."""

    def watch() -> None:
        while True:
            try:
                if reached():
                    break
            except httpx.HTTPError:
                continue
        server.kill()
        server.begin()

    threading.Thread(target=watch, daemon=True).start()
