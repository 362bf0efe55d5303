"""The page: self-contained, safe from what data holds, honest about what is missing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitoring.report.whole_page import some_map, whole
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.charts.theme import COLOURS, dressed
from visionloop.monitoring.report.data import Confusion, Gallery, Picture, ReportData
from visionloop.monitoring.report.data_health import Finding, Verdict
from visionloop.monitoring.report.data_models import SliceRow
from visionloop.monitoring.report.page import coded, render, style_sheet
from visionloop.monitoring.report.sections import SECTIONS, SLICE_COLUMNS

ANCHORS = [anchor for _, held in SECTIONS for anchor, _ in held]
LIMIT = 15_000_000


class Page(HTMLParser):
    """The tags of a page, checked for balance and for what a strict policy would refuse."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.policy = ""
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")], "an event handler"
        assert "style" not in held, "a style attribute"
        if held.get("http-equiv") == "Content-Security-Policy":
            self.policy = held["content"] or ""
        if held.get("id"):
            self.ids.append(held["id"] or "")
        if tag == "script":
            self.scripts.append(held)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]].append(data)


@pytest.fixture(scope="module")
def text() -> str:
    return render(whole())


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    for forbidden in ("localStorage", "sessionStorage", "indexedDB", "document.cookie", "fetch("):
        assert forbidden not in text
    assert len(page.ids) == len(set(page.ids))


def test_the_policy_names_the_style_and_the_script_by_their_hash(text: str) -> None:
    page = Page(text)
    data, script = page.scripts
    assert data == {"type": "application/json", "id": "map-data"}
    assert script == {}
    for body, directive in (
        (page.inside["style"][0], "style-src"),
        (page.inside["script"][1], "script-src"),
    ):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in page.policy
    assert "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy


def test_the_same_data_gives_the_same_bytes_in_every_process(text: str) -> None:
    assert render(whole()) == text
    program = (
        "import hashlib;from tests.monitoring.report.whole_page import whole;"
        "from visionloop.monitoring.report.page import render;"
        "print(hashlib.sha256(render(whole()).encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == hashlib.sha256(text.encode()).hexdigest()


EVIL = "</script></style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
# Words of our own, never of data: each stands for a mark, a colour or a place on the page.
OURS = {"severity", "state", "gate", "arm", "section", "thumbnail", "thumbnails", "column"}


def hostile(value: Any, name: str = "") -> Any:
    """Return a value in which every word that could come from data attacks the page."""
    if name in OURS:
        return value
    if isinstance(value, str):
        return EVIL
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {
            f.name: hostile(getattr(value, f.name), f.name) for f in dataclasses.fields(value)
        }
        return replace(value, **changes)
    if isinstance(value, tuple):
        return tuple(hostile(one, name) for one in value)
    if isinstance(value, dict):
        return {hostile(key): hostile(one) for key, one in value.items()}
    return value


def test_names_from_data_cannot_become_markup() -> None:
    text = render(hostile(whole()))
    page = Page(text)
    assert page.open == []
    assert len(page.scripts) == 2
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert "{{7*7}}" in text
    assert text.count("&lt;script&gt;alert(1)") >= 100
    held = json.loads(page.inside["script"][0])
    assert held["name"][0] == EVIL


def test_an_empty_lake_says_why_each_part_is_empty() -> None:
    text = render(ReportData())
    for section in re.findall(r"<section.*?</section>", text, re.DOTALL):
        assert '<p class="empty">' in section
    assert len(re.findall("<section", text)) == len(ANCHORS)
    assert "<h1>Nothing yet</h1>" in text
    assert Page(text).open == []


def test_a_finding_leads_to_the_section_that_shows_it(text: str) -> None:
    page = Page(text)
    assert set(ANCHORS) <= set(page.ids)
    links = [source[1:] for source in page.sources if source.startswith("#")]
    assert set(links) <= set(page.ids)
    head = text[: text.index("<main")]
    for finding in whole().verdict.findings:
        assert f'href="#{finding.section}"' in head


def test_many_findings_stay_reachable_below_the_worst() -> None:
    findings = tuple(Finding("warning", f"finding {i}.", "flags") for i in range(30))
    text = render(ReportData(verdict=Verdict("look", "Look", "why", findings)))
    assert text.index("finding 29.") > text.index("22 more")


def test_each_chart_is_told_in_words_and_as_a_table(text: str) -> None:
    charts = re.findall(r'<svg class="chart" role="img" aria-label="([^"]*)"', text)
    assert len(charts) > 12
    for part in ("Accuracy against labels", "Calibration of the", "Accuracy by camera", "Funnel."):
        assert any(words.startswith(part) for words in charts)
    # A chart of 60 labels says the accuracy that the table beside it says.
    assert any("60 labels: 93.1% (90.8% to 94.9%, n = 597)" in words for words in charts)
    found = re.search(
        r'aria-label="Accuracy against labels" tabindex="0">(.*?)</table>', text, re.DOTALL
    )
    assert found is not None
    assert "93.1%" in found.group(1)
    assert "90.8% to 94.9%" in found.group(1)


def test_text_in_a_chart_stays_text_in_the_colours_of_the_page(text: str) -> None:
    drawn = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)
    assert any(">labels the model learned from</text>" in one for one in drawn)
    for one in drawn:
        assert not re.search(r'(fill|stroke)="#', one), "a colour that does not follow the page"
        assert "font-family" not in one
    used = set(re.findall(r"var\(--(\w+)\)", "".join(drawn)))
    assert used <= set(COLOURS)


def test_a_chart_never_asks_an_address() -> None:
    asked: list[str] = []

    class Ear(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ear) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = (
            "import altair;from visionloop.monitoring.report.charts.theme import svg;"
            f"data = altair.UrlData(url='http://127.0.0.1:{server.server_port}/data.json');"
            "svg(altair.Chart(data).mark_point().encode(x='x:Q'), name='n', words='')"
        )
        # In a process of its own: while it draws, the renderer lets no other thread run.
        subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
        server.shutdown()
    assert asked == []


def test_a_placeholder_in_a_name_stays_what_it_is() -> None:
    drawn = (
        '<svg class="marks" width="1" height="1"><text fill="#fe0001">#fe0001 is red</text></svg>'
    )
    assert dressed(drawn, name="n", words='a "name"').startswith(
        '<svg class="chart" role="img" aria-label="a &#34;name&#34;" width="1" height="1">'
        '<text fill="var(--paper)">#fe0001 is red'
    )


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_code_is_marked_and_everything_else_escaped(words: str) -> None:
    said = coded(words)
    assert re.sub(r"</?code>", "", said).count("<") == 0
    assert said.count("<code>") == said.count("</code>")


def test_a_command_in_a_remedy_is_code(text: str) -> None:
    assert "Look at the camera; <code>visionloop health</code> says what came in." in text
    assert coded("one ` alone") == "one ` alone"


def test_steps_that_do_not_add_up_are_announced() -> None:
    data = whole()
    step = replace(data.total.steps[1], n=5)
    broken = replace(data.total, steps=(data.total.steps[0], step, *data.total.steps[2:]))
    text = render(replace(data, total=broken))
    assert "The steps do not add up" in text
    assert "1,207 unaccounted for" in text
    assert "do not add up" not in render(data)


def test_a_standing_flag_shows_the_pictures_that_the_page_has_of_its_evidence(text: str) -> None:
    row = text[text.index("Camera gone silent") :].partition("</tr>")[0]
    assert re.findall(r'alt="([^"]+)"', row) == ["digit_00001.png", "digit_00000.png"]


def test_drift_is_never_denied_where_nothing_was_compared(text: str) -> None:
    empty = render(ReportData())
    assert "<dt>Drift</dt><dd>cannot tell" in empty
    assert "none seen" not in empty
    assert "<dt>Drift</dt><dd>1<small>of 3 comparisons drifted; 1 cannot be told" in text


def test_drift_that_was_withdrawn_is_not_counted_as_drift() -> None:
    data = whole()
    gone = tuple(replace(one, standing=False) for one in data.drift)
    text = render(replace(data, drift=gone))
    assert "<dt>Drift</dt><dd>none stands<small>1 comparison stable; 1 drifted and was" in text
    assert "drift, its flag was withdrawn since" in text
    few = replace(data.drift[2], standing=True)
    assert "too few to say, its flag stands" in render(replace(data, drift=(few,)))


def test_flags_after_the_newest_round_have_a_column() -> None:
    data = whole()
    assert "Since then" not in render(data)
    kind = replace(data.flags[0], found={**data.flags[0].found, "0009": 7})
    text = render(replace(data, flags=(kind,)))
    assert "Since then</th>" in text and '<td class="n">7</td></tr>' in text


def test_work_outside_of_rounds_is_told_apart() -> None:
    data = whole()
    inside = sum(held.total_seconds for held in data.cost.rounds)
    exact = render(replace(data, cost=replace(data.cost, seconds=inside)))
    assert "outside of these rounds" not in exact
    more = render(replace(data, cost=replace(data.cost, seconds=inside + 13.3)))
    assert "<small>13.3 s outside of these rounds</small>" in more


def test_annotators_have_no_names_and_too_few_answers_say_so(text: str) -> None:
    section = text[text.index('<section id="annotators"') : text.index('<section id="cost"')]
    assert "annotator 2" in section
    assert "too few to say" in section


def test_a_loop_of_years_fits_the_page_and_says_what_it_left_out() -> None:
    data = whole()
    models = tuple(
        replace(data.models[-1], model_id=f"m{i}", round_id=f"{i:04d}", name=f"model of round {i}")
        for i in range(300)
    )
    columns = tuple(
        SliceRow(f"column {i}", f"value {j}", wilson(j + 1, 60))
        for i in range(20)
        for j in range(40)
    )
    models = (*models[:-1], replace(models[-1], slices=columns))
    many = 400
    classes = tuple(f"class {i}" for i in range(many))
    pictures = tuple(
        Picture(f"photo-{i}.jpg", "data:image/jpeg;base64," + "A" * 9_000, "label", ("why",))
        for i in range(24)
    )
    large = some_map(5_000, 0)
    # Every point with a picture, as large as the budget of the map lets them be together.
    thumbs = tuple("data:image/jpeg;base64," + "A" * 1_900 for _ in range(5_000))
    points = tuple(replace(point, thumbnail=i) for i, point in enumerate(large.points))
    text = render(
        replace(
            data,
            rounds=tuple(
                replace(data.rounds[-1], round_id=f"{i:04d}", model_id=f"m{i}") for i in range(300)
            ),
            models=models,
            evaluated="m299",
            accounts=tuple(replace(data.total, round_id=f"{i:04d}") for i in range(300)),
            confusion=Confusion(classes, tuple((1,) * many for _ in range(many))),
            map=replace(large, points=points, thumbnails=thumbs, n_total=1_000_000),
            selections=(Gallery("Round 0299", 24, pictures),) * 2,
            errors=Gallery("errors", 24, pictures),
            flags=tuple(
                replace(flag, kind=f"kind {i}", gallery=Gallery(f"kind {i}", 6, pictures[:6]))
                for i, flag in enumerate([data.flags[0]] * 25)
            ),
            drift=data.drift * 30,
            windows=data.windows * 60,
        )
    )
    assert len(text.encode()) < LIMIT
    assert "The newest 60 of 300 rounds are shown." in text
    assert "The lowest 12 of 40 values." in text
    assert f"{20 - SLICE_COLUMNS} more columns of the metadata are not drawn" in text
    assert "With 400 classes the whole matrix is not drawn" in text
    assert "66 more comparisons without drift are not drawn." in text
    assert "The newest 24 of 120 windows are shown." in text


def channel(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    red, green, blue = (channel(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_have_the_contrast_that_wcag_aa_asks(scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", style_sheet(), re.DOTALL)
    palette = dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6})", blocks[scheme == "dark"]))
    assert set(COLOURS) <= set(palette)
    for text in ("ink", "soft", "faint", "accent", "good", "look", "bad"):
        for ground in ("paper", "tint", "raised"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for state in ("good", "look", "bad"):
        for text in (state, "ink"):
            assert contrast(palette[text], palette[f"{state}-wash"]) >= 4.5, state
    for mark in ("grey", *(f"c{i}" for i in range(10))):
        for ground in ("paper", "raised"):
            assert contrast(palette[mark], palette[ground]) >= 3, mark


def test_what_was_not_judged_stands_under_the_flags_with_what_it_takes(text: str) -> None:
    section = text[text.index('<section id="flags"') : text.index('<section id="drift"')]
    listed = section[section.index("Not judged: too few to say") :]
    assert "9 stages have too few earlier runs to tell a pace, 8 are needed" in listed
    assert "and 6 more" in listed
