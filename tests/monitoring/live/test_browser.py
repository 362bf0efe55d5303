"""The live view in a headless Chromium: the real server, without an error on the console."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, browser
from tests.monitoring.live.small_lake import SmallLake


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
