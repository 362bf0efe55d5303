"""What an annotator sees: a real browser opens the project's labelling page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.browser import CHROMIUM, Browser, browser
from tests.labeling.label_studio.conftest import Loop
from tests.labeling.label_studio.real_server import LabelStudio, sign_in
from visionloop.labeling.provider import Box

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
Loops = Callable[..., Loop]

SHOWN = "[...document.images].some(one => one.naturalWidth == 40 && one.naturalHeight == 20)"


def open_labelling(page: Browser, server: LabelStudio, project: int) -> None:
    """Sign in and open the page that shows one task after the other."""
    with httpx.Client(base_url=server.url, follow_redirects=True) as person:
        sign_in(person)
        for name, value in person.cookies.items():
            page.tell("Network.setCookie", name=name, value=value, url=server.url)
    page.tell("Page.navigate", url=f"{server.url}/projects/{project}/data?labeling=1")


@pytest.mark.slow
def test_an_annotator_sees_image_reason_and_suggestion_and_submits_with_a_key(
    loop: Loops, server: LabelStudio, tmp_path: Path
) -> None:
    pets = loop(classes=["cat", "dog", "two\nlines", "<b>owl</b>"])
    requests = pets.provider.request("r1", pets.asks(2))
    first, second = requests
    with browser(tmp_path / "profile") as page:
        open_labelling(page, server, pets.project["id"])
        page.wait("document.body.innerText.includes('Reason 0.')")
        page.wait(SHOWN)
        text = page.evaluate("document.body.innerText")
        assert "The model sees: dog (75% sure)" in text and "camera: left" in text
        assert "<b>owl</b>" in text, "a class is text, and no markup"
        page.wait("document.querySelectorAll('input:checked').length == 1")
        chosen = "document.querySelector('input:checked').closest('label').innerText"
        assert page.evaluate(chosen).startswith("dog")
        page.screenshot(tmp_path / "label-studio.png")
        assert (tmp_path / "label-studio.png").stat().st_size > 10_000
        _press(page, "3")
        page.wait(f"{chosen}.startsWith('two')")
        page.evaluate(
            "[...document.querySelectorAll('button')].find(b => b.innerText == 'Submit').click()"
        )
        page.wait("document.body.innerText.includes('Reason 1.')")
    told = pets.provider.collect("r1", requests, "")
    done = [one for one in told.annotations if one.state == "done"]
    assert [(one.sample_id, one.label, one.prelabel) for one in done] == [
        (first, "two\nlines", "dog")
    ]
    assert done[0].seconds is not None and 0 < done[0].seconds < 300
    assert second in told.samples and not told.rejected


@pytest.mark.slow
def test_suggested_boxes_are_drawn_and_can_be_submitted_as_they_are(
    loop: Loops, server: LabelStudio, tmp_path: Path
) -> None:
    pets = loop(ask="boxes")
    box = Box(8, 4, 32, 16, "owl", 0.5)
    requests = pets.provider.request("r1", [pets.ask(0, label=None, boxes=(box,)), pets.ask(1)])
    with browser(tmp_path / "profile") as page:
        open_labelling(page, server, pets.project["id"])
        page.wait("document.body.innerText.includes('The model sees: 1 object')")
        page.wait(SHOWN)
        page.wait("document.querySelectorAll('canvas').length > 0")
        page.evaluate(
            "[...document.querySelectorAll('button')].find(b => b.innerText == 'Submit').click()"
        )
        page.wait("document.body.innerText.includes('Reason 1.')")
    told = pets.provider.collect("r1", requests, "")
    (done,) = [one for one in told.annotations if one.state == "done"]
    assert done.boxes is not None and done.boxes[0].label == "owl"
    (back,) = done.boxes
    edges = (back.x_min, back.y_min, back.x_max, back.y_max)
    assert edges == pytest.approx((8, 4, 32, 16), abs=0.01)


def _press(page: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        page.tell(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            text=key if kind == "keyDown" else "",
            code=f"Digit{key}",
            windowsVirtualKeyCode=ord(key),
        )
