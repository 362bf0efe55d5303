"""The live view in a headless Chromium: the real server, without an error on the console."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn

from tests.browser import CHROMIUM, browser
from tests.monitoring.live.small_lake import START, SmallLake
from visionloop.monitoring.live.app import live_app
from visionloop.monitoring.live.following import Following, Report
from visionloop.monitoring.live.guard import Guard
from visionloop.monitoring.live.pictures import Pictures


@contextlib.contextmanager
def serving(place: Path, folder: Path) -> Iterator[str]:
    """Run `visionloop report --serve` and yield its address."""
    ports = folder / "ports.json"
    command = [sys.executable, "-m", "visionloop", "report", "--lake", str(place), "--serve"]
    command += ["--port", "0", "--port-file", str(ports)]
    with (folder / "live.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not ports.exists():
            assert child.poll() is None, (folder / "live.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{json.loads(ports.read_text())['http']}"
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            assert child.wait(30) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.slow
def test_a_person_pages_filters_and_opens_an_image_without_an_error(tmp_path: Path) -> None:
    small = SmallLake(tmp_path, 70)
    small.learn()
    (tmp_path / "browser").mkdir()
    with (
        serving(tmp_path / "lake", tmp_path) as address,
        browser(tmp_path / "browser" / "profile") as page,
    ):
        page.listen()
        page.tell("Page.navigate", url=f"{address}/images")
        # The lake may still be read for the first time: the page asks again by itself.
        page.wait("document.querySelector('.number').innerText === '70'")
        page.wait("[...document.images].every(i => i.complete && i.naturalWidth === 24)")
        assert page.evaluate("document.images.length") == 60
        page.evaluate("document.querySelector('a[rel=next]').click()")
        page.wait("location.search === '?page=2' && document.images.length === 10")
        # Filters are links and a form: counts beside the images, and three fields.
        page.evaluate("[...document.links].find(a => a.innerText === 'Dark').click()")
        page.wait("document.querySelector('.number').innerText === '2'")
        page.evaluate(
            "const form = document.forms[0];"
            "form.querySelector('select[name=column]').value = 'flags';"
            "form.querySelector('input[name=value]:not([type=hidden])').value = 'blurred';"
            "form.querySelector('button').click()"
        )
        page.wait("document.querySelector('.number').innerText === '1'")
        assert page.evaluate("document.querySelectorAll('.lv-chips li').length") == 2
        page.evaluate("document.querySelector('.lv-wall a').click()")
        page.wait(f"location.pathname === '/images/{small.ids[3]}'")
        page.wait("document.querySelector('.lv-whole').naturalWidth === 24")
        assert "sharpness 0.25 ratio" in page.evaluate("document.body.innerText")
        page.screenshot(tmp_path / "image.png")
        page.tell(
            "Emulation.setDeviceMetricsOverride",
            width=360, height=740, deviceScaleFactor=1, mobile=True,
        )  # fmt: skip
        for path in ("/images", f"/images/{small.ids[3]}"):
            page.open(address + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.tell("Emulation.clearDeviceMetricsOverride")
        page.tell("Page.navigate", url=f"{address}/")
        page.wait("!!document.querySelector('iframe')", seconds=120)
        assert page.evaluate("document.body.dataset.version") == small.lake.version()
        page.wait("document.readyState === 'complete'")
        time.sleep(0.5)
        page.screenshot(tmp_path / "report.png")
        small.add(3)
        page.wait("!document.getElementById('newer').hidden", seconds=120)
        assert page.complaints == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.slow
def test_an_open_page_tells_that_its_report_was_made_anew(tmp_path: Path) -> None:
    small = SmallLake(tmp_path, 3)
    following, pictures = Following(str(tmp_path / "lake"), reports=False), Pictures()
    app = Guard(live_app(following, pictures), None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    (tmp_path / "browser").mkdir()
    with (
        contextlib.closing(following),
        contextlib.closing(pictures),
        browser(tmp_path / "browser" / "profile") as page,
    ):
        following.start()
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not (server.started and following.shown.index):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            port = server.servers[0].sockets[0].getsockname()[1]
            version = small.lake.version()
            old = Report(version, b"<p>old</p>", time.monotonic(), START)
            following._put(report=old)
            page.listen()
            page.open(f"http://127.0.0.1:{port}/")
            # It looks every five seconds, and what is shown is the newest.
            page.wait("performance.getEntriesByName(location.origin + '/version').length > 0")
            page.evaluate("new Promise(then => setTimeout(then, 200))")
            assert page.evaluate("document.getElementById('newer').hidden") is True
            made = START + timedelta(minutes=10)
            following._put(report=Report(version, b"<p>new</p>", time.monotonic(), made))
            page.wait("!document.getElementById('newer').hidden")
            page.evaluate("document.getElementById('newer').click()")
            page.wait(f"document.body.dataset.made === '{made.isoformat()[:-6]}Z'")
            assert page.complaints == []
        finally:
            server.should_exit = True
            thread.join(30)
