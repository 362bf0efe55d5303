"""A real browser loads the images of a Label Studio page from the media endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from tests.browser import CHROMIUM, browser
from tests.labeling.label_studio.conftest import Loop
from tests.labeling.label_studio.real_server import LabelStudio
from tests.labeling.label_studio.test_browser import open_labelling
from tests.labeling.media.test_endpoint import KEY, endpoint

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.mark.slow
@pytest.mark.parametrize("ask", ["classes", "boxes"])
def test_a_browser_shows_a_file_and_a_tiff_of_the_lake(
    ask: str,
    loop: Callable[..., Loop],
    server: LabelStudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", KEY)
    with endpoint(tmp_path, f"--lake={tmp_path / 'lake'}", f"--origin={server.url}") as media:
        address = f"http://127.0.0.1:{media.port}"
        pets = loop(ask=ask, studio={"media": "endpoint", "media_url": address})
        path = tmp_path / "first.tif"
        Image.new("RGB", (40, 20), (200, 30, 30)).save(path)
        first = replace(
            pets.ask(0, label=None),
            sample_id=hashlib.sha256(path.read_bytes()).hexdigest(),
            uri=path.as_uri(),
        )
        asks = [first, pets.ask(1, label=None)]
        with pets.lake.run(stage="ingest") as run:
            ids, uris = [one.sample_id for one in asks], [one.uri for one in asks]
            run.append("samples", pa.table({"sample_id": ids, "uri": uris}))
            run.commit()
        pets.provider.request("0000", asks)
        with browser(tmp_path / "profile") as page:
            open_labelling(page, server, pets.project["id"])
            page.wait("document.body.innerText.includes('Reason 0.')")
            # The page loads an image itself where it may, and shows what it has loaded.
            shown = (
                "[...document.images].some(one => "
                "one.naturalWidth == 40 && one.naturalHeight == 20)"
            )
            try:
                page.wait(shown, 25)
            except AssertionError:
                srcs = page.evaluate(
                    "[...document.images].map(one => [one.src.slice(0, 60), one.naturalWidth,"
                    " one.naturalHeight].join(' ')).join('; ')"
                )
                raise AssertionError(f"{srcs} {media.ask('/metrics').body.decode()}") from None
            if ask == "classes":
                page.evaluate("document.querySelector('input').click()")
            page.evaluate(
                "[...document.querySelectorAll('button')].find(b => b.innerText == 'Submit')"
                ".click()"
            )
            page.wait("document.body.innerText.includes('Reason 1.')")
            page.wait(shown)
        assert media.counted("shown") + media.counted("partial") >= 2
        assert not any(media.counted(why) for why in ("forged", "expired", "unknown", "changed"))
