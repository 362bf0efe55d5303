"""The media endpoint as a process of its own, asked over real HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.test_ingest import Loop, picture
from visionloop.cli import main
from visionloop.labeling.media.places import LOOK_SECONDS
from visionloop.labeling.media.ranges import Unsatisfiable, range_of
from visionloop.labeling.media.running import origin_of
from visionloop.labeling.media.signatures import Keys

KEY = "0123456789abcdef-key"
LABELS = "http://labels.example:8080"


@dataclass
class Reply:
    """What a browser gets."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass
class Endpoint:
    """A running media endpoint."""

    port: int
    process: subprocess.Popen[bytes]

    def ask(self, path: str, method: str = "GET", **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, answer.read(), found)

    def counted(self, outcome: str) -> float:
        wanted = f'visionloop_media_requests_total{{outcome="{outcome}"}} '
        lines = self.ask("/metrics").body.decode().splitlines()
        return next((float(line[len(wanted) :]) for line in lines if line.startswith(wanted)), 0.0)


@contextlib.contextmanager
def endpoint(folder: Path, *options: str, key: str = KEY) -> Iterator[Endpoint]:
    """Run `visionloop labels media`."""
    port_file = folder / f"port-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "visionloop", "labels", "media", "--port=0",
         f"--port-file={port_file}", *options],
        env={**os.environ, "VISIONLOOP_MEDIA_KEY": key},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists():
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it does not come up"
            time.sleep(0.05)
        yield Endpoint(json.loads(port_file.read_text())["http"], process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def link(sample: str, *, seconds: float = 600, key: str = KEY) -> str:
    whole = Keys((key.encode(),)).link("http://x", sample, int(time.time() + seconds))
    return whole.removeprefix("http://x")


def form(name: str, **settings: Any) -> bytes:
    into = io.BytesIO()
    Image.open(io.BytesIO(picture(7))).save(into, name, **settings)
    return into.getvalue()


def deep_tiff() -> bytes:
    """A grey TIFF of 16 bits that gets brighter from left to right."""
    into = io.BytesIO()
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (16, 1))).save(into, "TIFF")
    return into.getvalue()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A loop with a picture of each kind."""
    made = Loop(tmp_path_factory.mktemp("loop"))
    made.put("a.png", picture(1))
    made.put("b.jpg", form("JPEG"))
    made.put("c.webp", form("WEBP"))
    made.put("deep.tif", deep_tiff())
    made.put("old.jp2", form("JPEG2000"))
    made.put("large.png", form_of_size(3000, 1500))
    made.ingest()
    (made.folder / "loop.yaml").write_text(
        json.dumps(
            made.settings
            | {"labeling": {"provider": "label_studio", "label_studio": {"url": LABELS}}}
        )
    )
    return made


def form_of_size(width: int, height: int) -> bytes:
    into = io.BytesIO()
    across = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    Image.fromarray(across).convert("RGB").save(into, "PNG")
    return into.getvalue()


@pytest.fixture(scope="module")
def samples(loop: Loop) -> dict[str, str]:
    """Sample ids by the name of their file."""
    return {uri.rpartition("/")[2]: sample for sample, uri in loop.lake.media().items()}


@pytest.fixture(scope="module")
def running(loop: Loop) -> Iterator[Endpoint]:
    with endpoint(loop.folder, f"--config={loop.folder / 'loop.yaml'}") as found:
        yield found


def test_a_valid_link_gets_the_file_as_it_is(
    running: Endpoint, loop: Loop, samples: dict[str, str]
) -> None:
    for name, kind in (("a.png", "png"), ("b.jpg", "jpeg"), ("c.webp", "webp")):
        reply = running.ask(link(samples[name]))
        assert (reply.status, reply.headers["content-type"]) == (200, f"image/{kind}")
        assert reply.body == (loop.source / name).read_bytes()
        assert hashlib.sha256(reply.body).hexdigest() == samples[name]
        assert reply.headers["etag"] == f'"{samples[name]}"'
        assert reply.headers["cache-control"].startswith("private")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "x-visionloop-shown" not in reply.headers


def test_nothing_is_shown_without_a_valid_link(running: Endpoint, samples: dict[str, str]) -> None:
    sample, other = samples["a.png"], samples["b.jpg"]
    good = link(sample)
    cases = {
        good.partition("?")[0]: (403, b"unsigned\n"),
        good[:-1] + ("0" if good[-1] != "0" else "1"): (403, b"forged\n"),
        good.replace(sample, other): (403, b"forged\n"),
        good.replace("expires=", "expires=1"): (403, b"unsigned\n"),
        link(sample, key="another-key-of-sixteen"): (403, b"forged\n"),
        link(sample, seconds=-5): (403, b"expired\n"),
        # An id that is none of the lake's is told only to who has a link to it.
        link("0" * 64): (404, b"unknown\n"),
        link("0" * 64)[:-2]: (403, b"forged\n"),
    }
    for path, expected in cases.items():
        reply = running.ask(path)
        assert (reply.status, reply.body) == expected, path
    assert running.counted("forged") >= 4 and running.counted("expired") == 1


@pytest.mark.parametrize(
    "path",
    ["/media/../catalog.sqlite", "/media/%2e%2e/%2e%2e/etc/passwd", "/media//etc/passwd", "/media/",
     "/etc/passwd", "/media/" + "A" * 64, "/media/" + "a" * 63 + "%00", "/loop.yaml"],
)  # fmt: skip
def test_no_path_leads_out_of_the_lake(running: Endpoint, path: str) -> None:
    assert running.ask(f"{path}?expires=9999999999&signature={'0' * 64}").status in (403, 404)


def test_what_stands_before_the_path_is_a_proxys(
    running: Endpoint, samples: dict[str, str]
) -> None:
    assert running.ask("/vision/loop" + link(samples["a.png"])).status == 200


def test_what_no_browser_shows_is_made_anew_and_says_so(
    running: Endpoint, samples: dict[str, str]
) -> None:
    reply = running.ask(link(samples["deep.tif"]))
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    assert reply.headers["x-visionloop-shown"] == "tiff made PNG of 256x16 pixels"
    shown = np.asarray(Image.open(io.BytesIO(reply.body)).convert("L"))
    # Of 16 bits the upper 8, as the model sees it.
    assert np.array_equal(shown[0], np.linspace(0, 65535, 256).astype(np.uint16) >> 8)
    reply = running.ask(link(samples["old.jp2"]))
    assert reply.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(reply.body)).size == (64, 48)


def test_a_range_is_answered_with_it(
    running: Endpoint, loop: Loop, samples: dict[str, str]
) -> None:
    whole = (loop.source / "a.png").read_bytes()
    path, tag = link(samples["a.png"]), f'"{samples["a.png"]}"'
    reply = running.ask(path, Range="bytes=10-19")
    assert (reply.status, reply.body) == (206, whole[10:20])
    assert reply.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert running.ask(path, Range="bytes=-5").body == whole[-5:]
    assert running.ask(path, Range=f"bytes={len(whole)}-").status == 416
    assert running.ask(path, Range="bytes=0-1,5-6").status == 200
    assert running.ask(path, Range="bytes=0-1", If_Range=tag).status == 206
    assert running.ask(path, Range="bytes=0-1", If_Range='"other"').status == 200
    head = running.ask(path, "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(whole)))


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", None), ("bytes=0-", (0, 10)), ("bytes=3-3", (3, 4)), ("bytes=8-99", (8, 10)),
     ("bytes=-3", (7, 10)), ("bytes=-99", (0, 10)), ("bytes=-", None), ("bytes=5-4", None),
     ("items=0-1", None), ("bytes=0-1,3-4", None)],
)  # fmt: skip
def test_one_range_is_read_as_the_standard_has_it(
    header: str, expected: tuple[int, int] | None
) -> None:
    assert range_of(header, 10) == expected
    with pytest.raises(Unsatisfiable):
        range_of("bytes=10-", 10)
    with pytest.raises(Unsatisfiable):
        range_of("bytes=-0", 10)


def test_a_browser_that_has_it_gets_it_no_second_time(
    running: Endpoint, samples: dict[str, str]
) -> None:
    path, tag = link(samples["a.png"]), f'"{samples["a.png"]}"'
    for given in (tag, f'"x", W/{tag}', "*"):
        reply = running.ask(path, If_None_Match=given)
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", tag)
    assert running.ask(link("0" * 64), If_None_Match="*").status == 404
    assert running.ask(path, If_None_Match='"other"').status == 200


def test_scripts_of_label_studio_may_read_images_and_those_of_other_pages_may_not(
    running: Endpoint, samples: dict[str, str]
) -> None:
    path = link(samples["a.png"])
    reply = running.ask(path, Origin=LABELS)
    assert reply.headers["access-control-allow-origin"] == LABELS
    assert reply.headers["vary"] == "Origin"
    # Also a refusal: the page then knows why.
    assert running.ask(path[:-1], Origin=LABELS).headers["access-control-allow-origin"] == LABELS
    for other in ("http://labels.example", "https://evil.example", "null"):
        assert "access-control-allow-origin" not in running.ask(path, Origin=other).headers
    asked = running.ask(path, "OPTIONS", Origin=LABELS, Access_Control_Request_Method="GET")
    assert asked.status == 204
    assert asked.headers["access-control-allow-methods"] == "GET, HEAD"


def test_nothing_is_taken(running: Endpoint, samples: dict[str, str]) -> None:
    for method in ("POST", "PUT", "DELETE"):
        reply = running.ask(link(samples["a.png"]), method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_health_and_counts(running: Endpoint) -> None:
    assert running.ask("/healthz").body == b"alive\n"
    assert running.ask("/readyz").body == b"ready\n"
    assert running.counted("shown") >= 1
    assert b"visionloop_media_seconds_bucket" in running.ask("/metrics").body


def test_many_browsers_at_once_get_what_they_asked_for(
    running: Endpoint, loop: Loop, samples: dict[str, str]
) -> None:
    names = ["a.png", "b.jpg", "c.webp", "large.png"]
    wanted = {name: (loop.source / name).read_bytes() for name in names}
    wrong: list[str] = []

    def look(name: str) -> None:
        for _ in range(5):
            reply = running.ask(link(samples[name]))
            if reply.status != 200 or reply.body != wanted[name]:
                wrong.append(f"{name}: {reply.status}")

    threads = [threading.Thread(target=look, args=(name,)) for name in names * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_large_images_are_made_smaller_where_that_is_asked_for(
    loop: Loop, samples: dict[str, str]
) -> None:
    # Without a configuration the samples of every loop of the lake are served.
    with endpoint(loop.folder, f"--lake={loop.settings['lake']}", "--max-side=1000") as small:
        reply = small.ask(link(samples["large.png"]))
        assert Image.open(io.BytesIO(reply.body)).size == (1000, 500)
        assert reply.headers["x-visionloop-shown"].startswith("png made PNG of 1000x500")
        assert reply.headers["etag"] == f'"{samples["large.png"]}-1000"'
        assert small.ask(link(samples["a.png"])).body == (loop.source / "a.png").read_bytes()


def test_a_file_that_is_another_now_is_not_shown_and_an_erased_one_is_unknown(
    tmp_path: Path,
) -> None:
    loop = Loop(tmp_path)
    paths = {name: loop.put(name, picture(n)) for n, name in enumerate(("a.png", "b.png", "c.png"))}
    loop.ingest()
    samples = {uri.rpartition("/")[2]: sample for sample, uri in loop.lake.media().items()}
    with endpoint(tmp_path, f"--lake={loop.settings['lake']}") as running:
        for sample in samples.values():
            assert running.ask(link(sample)).status == 200
        paths["a.png"].write_bytes(picture(99))
        reply = running.ask(link(samples["a.png"]))
        assert (reply.status, reply.body) == (410, b"changed\n")
        paths["b.png"].unlink()
        assert running.ask(link(samples["b.png"])).body == b"gone\n"
        erased = main(["erase", "--lake", loop.settings["lake"], "--yes", samples["c.png"]])
        assert erased == 0
        time.sleep(LOOK_SECONDS + 0.1)
        assert running.ask(link(samples["c.png"])).status == 404
        # Not even to a browser that has it in its cache.
        tag = f'"{samples["c.png"]}"'
        assert running.ask(link(samples["c.png"]), If_None_Match=tag).status == 404


def test_a_lake_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with endpoint(tmp_path, f"--lake={tmp_path / 'lake'}") as running:
        assert running.ask("/healthz").status == 200
        assert running.ask("/readyz").status == 503
        assert not (tmp_path / "lake").exists()
        loop = Loop(tmp_path)
        loop.put("a.png", picture(1))
        loop.ingest()
        (sample,) = loop.lake.media()
        time.sleep(LOOK_SECONDS + 0.1)
        assert running.ask("/readyz").status == 200
        assert running.ask(link(sample)).body == picture(1)


def test_without_a_key_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, words in (("", "no key is there"), ("short", "fewer than 16 characters")):
        monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", key)
        assert main(["labels", "media", "--lake", str(tmp_path)]) == 2
        told = capsys.readouterr().err
        assert words in told and "openssl rand -hex 32" in told


@pytest.mark.parametrize(
    ("address", "origin"),
    [("https://a.example/x?y", "https://a.example"), ("http://a.example:80", "http://a.example"),
     ("http://[::1]:8080/", "http://[::1]:8080"), ("*", "*")],
)  # fmt: skip
def test_an_origin_is_written_as_browsers_do(address: str, origin: str) -> None:
    assert origin_of(address) == origin
