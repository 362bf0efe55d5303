"""The page: self-contained, safe from what data holds, honest about what is missing."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.monitoring.sample_report import full_report
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.charts import Series, efficiency_chart, histogram, ticks
from visionloop.monitoring.report.data import (
    Confusion,
    FlagKind,
    Funnel,
    Gallery,
    Picture,
    ReportData,
    Round,
    Slice,
)
from visionloop.monitoring.report.page import render
from visionloop.monitoring.report.thumbnails import thumbnail
from visionloop.monitoring.report.words import words

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Page(HTMLParser):
    """The tags of a page, checked for balance."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")], "an event handler"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself() -> None:
    text = render(full_report())
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert all(source.startswith("data:") for source in page.sources)
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_the_same_data_gives_the_same_bytes() -> None:
    assert render(full_report()) == render(full_report())


def test_names_from_data_cannot_become_markup() -> None:
    evil = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    data = full_report()
    hostile = replace(
        data,
        loop=evil,
        lake=evil,
        version=evil,
        in_service=evil,
        rounds=(
            replace(
                data.rounds[0],
                model_id=evil,
                gate_reason=evil,
                spaces=((evil, evil),),
                seconds={evil: 1.0},
            ),
        ),
        selections=(Gallery(evil, 1, (Picture(evil, "", evil, (evil,)),), evil),),
        flags=(FlagKind(evil, {"0000": 1}, None, Gallery(evil, 1, (Picture(evil),))),),
        confusion=Confusion((evil, "b"), ((1, 2), (3, 4))),
        slices=(Slice(evil, evil, wilson(1, 2), True),),
        evaluated=evil,
        windows=(replace(data.windows[0], endpoint=evil, model_id=evil, flags=(evil,)),),
        harvest=(replace(data.harvest[0], state=evil, reason=evil),),
    )
    text = render(hostile)
    page = Page(text)
    assert "script" not in page.tags
    assert page.open == []
    assert all(source.startswith("data:") for source in page.sources)
    assert text.count("&lt;script&gt;alert(1)") >= 15
    chart = efficiency_chart([Series(evil, evil, ((1, wilson(1, 2)),))], width=300, height=200)
    assert "<script" not in chart
    assert "<img" not in chart


def test_an_empty_lake_says_why_each_part_is_empty() -> None:
    text = render(ReportData())
    assert text.count('<p class="empty">') == 10
    assert "<h1>An empty lake.</h1>" in text
    assert Page(text).open == []


def test_counts_that_do_not_add_up_are_announced() -> None:
    data = ReportData(rounds=(Round("0000", funnel=Funnel(found=10, ok=7, flagged=1)),))
    (notice,) = words(data).notices
    assert "add up to 8, not to the 10 found" in notice
    assert html.escape(notice) in render(data)


def test_the_funnel_of_every_round_is_shown() -> None:
    text = render(full_report())
    row = re.search(r'<th scope="row">0001</th>\s*<td class="n">420.*?</tr>', text, re.DOTALL)
    assert row is not None
    numbers = re.findall(r"<td class=\"n\">(\d+)", row.group())
    assert numbers == ["420", "380", "28", "12", "0", "360", "20", "20", "40"]


def test_found_stands_beside_what_was_put_in() -> None:
    text = render(full_report())
    assert '<th scope="row">near duplicate</th><td class="n">19</td><td class="n">18</td>' in text
    nobody = replace(full_report().flags[0], planted=None)
    assert "Put in" not in render(replace(full_report(), flags=(nobody,)))


def test_the_comparison_with_random_claims_no_more_than_the_intervals_allow() -> None:
    data = full_report()
    assert "9.5 points ahead, and the intervals do not overlap" in words(data).efficiency
    assert "ahead in 3 of 3 rounds" in words(data).efficiency
    last = replace(data.rounds[-1], random_accuracy=wilson(545, 597))
    close = replace(data, rounds=(*data.rounds[:-1], last))
    assert "The intervals overlap: this may be chance." in words(close).efficiency
    alone = replace(data, rounds=tuple(replace(r, random_accuracy=None) for r in data.rounds))
    assert "no random arm" in words(alone).efficiency
    assert "dashed line" not in render(alone)


def test_a_waiting_round_is_the_headline_until_there_is_a_model() -> None:
    waiting = Round("0000", state="waiting", missing_labels=20)
    assert words(ReportData(rounds=(waiting,), n_samples=5)).headline == "Waiting for 20 labels."


def test_a_round_that_stopped_says_after_which_stage() -> None:
    stopped = Round("0001", state="running", seconds={"ingest": 1.0, "select": 0.2})
    (notice,) = words(ReportData(rounds=(stopped,))).notices
    assert notice == "Round 0001 is not finished; the last stage that ended was select."


def test_both_lines_bands_and_axes_are_drawn_and_read_out() -> None:
    points = ((20, wilson(70, 100)), (40, wilson(85, 100)))
    chart = efficiency_chart(
        [Series("chosen", "loop", points), Series("random", "random", points)],
        width=600,
        height=300,
    )
    assert chart.count("<polyline") == chart.count("<polygon") == 2
    assert chart.count("<circle") == 4
    assert "labels the model learned from" in chart
    assert "accuracy on the holdout" in chart
    assert 'aria-label="Accuracy against labels. chosen: 70.0% at 20 labels' in chart
    names = [float(y) for y in re.findall(r'class="name [a-z]+" x="[\d.]+" y="([\d.]+)"', chart)]
    assert abs(names[0] - names[1]) >= 15


@pytest.mark.parametrize("labels", [1, 7, 20, 60, 999, 12_345])
def test_points_lie_within_the_chart_at_any_scale(labels: int) -> None:
    for width, height in ((936, 400), (358, 300)):
        points = tuple((max(1, labels * k // 3), wilson(k, 4)) for k in (1, 2, 3))
        chart = efficiency_chart([Series("chosen", "loop", points)], width=width, height=height)
        for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', chart):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


def test_ticks_are_round_and_few() -> None:
    assert ticks(0, 60, 6) == [0, 20, 40, 60]
    assert ticks(0.5, 1.0, 6) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert len(ticks(0, 12_345, 6)) <= 6
    assert ticks(3, 3, 5) == [3]


def test_histograms_side_by_side_share_one_scale() -> None:
    low = histogram([0.1] * 10, [], highest=0.5)
    high = histogram([0.5] + [0.05] * 9, [], highest=0.5)
    tallest = [max(float(h) for h in re.findall(r'height="([\d.]+)" rx', c)) for c in (low, high)]
    assert tallest[0] == pytest.approx(tallest[1] / 5, abs=0.1)


def test_a_thumbnail_is_new_pixels_never_the_file() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "secret")
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, "PNG", pnginfo=info)
    assert b"secret" in out.getvalue()
    made = thumbnail(out.getvalue())
    assert made is not None
    assert made.small
    assert b"secret" not in base64.b64decode(made.uri.partition(",")[2])
    assert thumbnail(b"no image") is None


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_errors_and_without_sideways_scrolling(
    width: int, scheme: str, tmp_path: Path
) -> None:
    """As the KFP UI does: in an iframe, from a string."""
    frame = html.escape(render(full_report()))
    page = tmp_path / "page.html"
    page.write_text(
        f'<body><iframe id=f srcdoc="{frame}" style="width:{width}px;height:800px;border:0">'
        "</iframe><p id=o></p><script>onload = () => {"
        "const d = document.getElementById('f').contentDocument;"
        "const broken = [...d.images].filter(i => !i.naturalWidth).length;"
        "const paper = getComputedStyle(d.body).backgroundColor;"
        "document.getElementById('o').textContent ="
        "`scroll=${d.documentElement.scrollWidth} broken=${broken} images=${d.images.length}"
        " paper=${paper}`}"
        "</script>",
        encoding="utf-8",
    )
    result = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            "--enable-logging=stderr",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seen = re.search(r"scroll=(\d+) broken=(\d+) images=(\d+)", result.stdout.split('id="o"')[-1])
    assert seen is not None
    assert int(seen.group(1)) <= width
    assert (int(seen.group(2)), int(seen.group(3)) > 20) == (0, True)
    paper = re.search(r"paper=rgb\((\d+), (\d+), (\d+)\)", result.stdout)
    assert paper is not None
    bright = sum(int(part) for part in paper.groups()) / 3
    assert bright < 60 if scheme == "dark" else bright > 200
    assert "CONSOLE" not in result.stderr
