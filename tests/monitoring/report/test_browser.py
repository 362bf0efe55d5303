"""The page in a real browser: every width, both schemes, keys alone, strict frames, no error."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser, browser
from tests.monitoring.report.whole_page import whole
from visionloop.monitoring.report.data import ReportData
from visionloop.monitoring.report.page import render

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

TAB, ENTER, RIGHT = ("Tab", 9), ("Enter", 13), ("ArrowRight", 39)

# Contrast of every visible text with what lies behind it, by WCAG 2.2. Text on a picture or in a
# control that is switched off does not count.
CONTRAST = """
(() => {
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const known = new Map();
  const parse = (text) => {
    if (known.has(text)) return known.get(text);
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = text; probe.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
    known.set(text, [r, g, b, a / 255]);
    return known.get(text);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map(
      (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const held = parse(getComputedStyle(one).backgroundColor);
      if (held[3] > 0.99) return held;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const holder = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !holder.checkVisibility()) continue;
    if (holder.closest('script, style')) continue;
    const style = getComputedStyle(holder);
    const ink = parse(holder.closest('svg.chart') ? style.fill : style.color);
    const [dark, bright] = [light(ink), light(ground(holder))].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push([walk.currentNode.data.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return {seen, poor};
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        page.listen()
        yield page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(whole()), encoding="utf-8")
    return path


def show(page: Browser, file: Path, *, width: int = 1280, scheme: str = "light") -> None:
    """Open the page afresh."""
    page.complaints.clear()
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    page.tell("Emulation.setEmulatedMedia", features=features)
    size: dict[str, Any] = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.tell("Emulation.setDeviceMetricsOverride", **size)
    page.tell("Page.navigate", url="about:blank")
    page.open(file.as_uri())


def colours(page: Browser, path: Path) -> int:
    """Take a screenshot and return how many colours it has."""
    page.screenshot(path)
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(image.width * image.height)
    assert found is not None
    return len(found)


@pytest.mark.parametrize(
    ("width", "scheme"), [(360, "light"), (360, "dark"), (768, "dark"), (1280, "light")]
)
def test_it_shows_without_complaint_or_scrolling_sideways(
    chromium: Browser, file: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    show(chromium, file, width=width, scheme=scheme)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    # Lazy pictures are loaded when a person comes near them.
    chromium.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    chromium.wait("[...document.images].every(i => i.complete && i.naturalWidth)")
    assert chromium.evaluate("document.images.length") > 30
    assert colours(chromium, tmp_path / "page.png") > 50
    seen = chromium.evaluate(CONTRAST)
    assert seen["poor"] == []
    assert seen["seen"] > 300
    paper = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 20, 23)" if scheme == "dark" else "rgb(252, 252, 250)")
    assert chromium.complaints == []


@pytest.mark.parametrize("width", [360, 1280])
def test_no_column_of_words_is_squeezed(chromium: Browser, file: Path, width: int) -> None:
    show(chromium, file, width=width)
    chromium.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    narrow = chromium.evaluate(
        "[...document.querySelectorAll('td, th')].filter(c => c.checkVisibility()"
        " && c.innerText.split('\\n').some(line => line.length > 12) && c.clientWidth < 60)"
        ".map(c => c.textContent)"
    )
    assert narrow == []


def test_a_click_on_a_point_shows_its_picture_label_flags_and_why(
    chromium: Browser, file: Path
) -> None:
    show(chromium, file)
    chromium.evaluate("document.querySelector('#map canvas').scrollIntoView({block: 'center',"
                      " behavior: 'instant'})")  # fmt: skip
    # The first point: flagged, chosen, and with a picture.
    x, y = chromium.evaluate(
        "(() => { const d = JSON.parse(document.getElementById('map-data').textContent);"
        "const b = document.querySelector('#map canvas').getBoundingClientRect();"
        "const side = Math.min(b.width - 2, b.height - 2) - 12;"
        "return [b.left + b.width / 2 + (d.x[0] / 10000 - 0.5) * side,"
        " b.top + b.height / 2 - (d.y[0] / 10000 - 0.5) * side] })()"
    )
    chromium.click(x, y)
    card = chromium.wait("document.querySelector('.map-card dl')?.innerText")
    assert "sample-00000" in card
    assert "Blurred: sharpness 0.4, threshold 2.1" in card
    assert "Uncertain: 0.93 of 1." in card
    assert "% sure" in card
    assert chromium.wait("document.querySelector('.map-card img').naturalWidth") == 32
    assert chromium.complaints == []


def test_keys_alone_reach_the_report_and_explore_the_map(chromium: Browser, file: Path) -> None:
    show(chromium, file)
    chromium.press(*TAB)
    assert chromium.evaluate("document.activeElement.className") == "skip"
    assert chromium.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    chromium.press(*ENTER, text="\r")
    assert chromium.evaluate("document.activeElement.id") == "report"
    for _ in range(60):
        chromium.press(*TAB)
        if chromium.evaluate("document.activeElement.tagName") == "CANVAS":
            break
    assert chromium.evaluate("document.activeElement.tagName") == "CANVAS"
    assert chromium.evaluate("document.activeElement.matches(':focus-visible')")
    told = set()
    for _ in range(4):
        chromium.press(*RIGHT)
        told.add(chromium.evaluate("document.querySelector('#map [role=status]').textContent"))
    assert len(told) == 4
    assert all("digit_" in one for one in told)
    chromium.press(*ENTER, text="\r")
    assert "digit_" in chromium.evaluate("document.querySelector('.map-card h3').textContent")
    assert chromium.complaints == []


def test_the_map_is_coloured_by_what_one_asks_for(chromium: Browser, file: Path) -> None:
    show(chromium, file)
    names = "[...document.querySelectorAll('.map-keys button')].map(b => b.textContent)"
    assert len(chromium.evaluate(names)) == 11
    chromium.evaluate(
        "(() => { const s = document.querySelector('#map select'); s.value = 'flag';"
        "s.dispatchEvent(new Event('change')) })()"
    )
    assert chromium.evaluate(names) == ["Blurred (31)", "no flag (369)"]


def test_a_long_table_is_filtered_by_words(chromium: Browser, file: Path) -> None:
    show(chromium, file)
    chromium.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    chromium.evaluate(
        "(() => { const i = document.querySelector('#lineage input'); i.value = 'digit_0003';"
        "i.dispatchEvent(new Event('input')) })()"
    )
    assert "(1 of 60 shown)" in chromium.evaluate(
        "document.querySelector('#lineage .filter').innerText"
    )


@pytest.mark.parametrize("allowed", ["allow-scripts", ""])
def test_a_strict_frame_shows_it_and_its_links_stay_inside(
    chromium: Browser, file: Path, allowed: str, tmp_path: Path
) -> None:
    """As the UI of Kubeflow Pipelines does: a sandboxed frame, filled from a string."""
    text = html.escape(file.read_text(encoding="utf-8"))
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<!doctype html><body><iframe sandbox="{allowed}" srcdoc="{text}" width="1200"'
        ' height="850"></iframe>',
        encoding="utf-8",
    )
    show(chromium, outer)
    tree = chromium.tell("Page.getFrameTree")["frameTree"]
    (inner,) = tree["childFrames"]
    assert colours(chromium, tmp_path / "frame.png") > 50
    frame = inner["frame"]["id"]
    world = chromium.tell("Page.createIsolatedWorld", frameId=frame)["executionContextId"]
    assert "Act now" in chromium.evaluate("document.body.innerText", world=world)
    still, app = (
        chromium.evaluate(f"document.getElementById('{one}').checkVisibility()", world=world)
        for one in ("map-still", "map-app")
    )
    assert (still, app) == ((False, True) if allowed else (True, False))
    if not allowed:
        (blocked,) = chromium.complaints
        assert blocked.startswith("Blocked script execution")
        return  # a browser takes links in such a frame for those of the page around it
    x, y = chromium.evaluate(
        "(() => { const b = document.querySelector('.findings a[href=\"#drift\"]')"
        ".getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2] })()",
        world=world,
    )
    chromium.click(x + 8, y + 8)  # the frame lies within the body's margin
    place = "document.getElementById('drift').getBoundingClientRect().top"
    deadline = time.monotonic() + 20
    while abs(chromium.evaluate(place, world=world)) > 200:
        assert time.monotonic() < deadline, "the link did not lead to its section"
    assert chromium.complaints == []


def test_an_empty_lake_is_a_calm_page(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(render(ReportData()), encoding="utf-8")
    show(chromium, path, width=360)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 360
    assert chromium.complaints == []
    assert json.dumps(chromium.evaluate("document.title")) == '"Nothing yet: visionloop, report"'
