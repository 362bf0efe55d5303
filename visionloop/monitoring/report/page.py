"""The report as one self-contained page: nothing is fetched, and without scripts it says the same.

The page is opened inside of other pages, in frames that forbid much. So its style and its script
stand in it and are named by their hashes in a content security policy; it has no event-handler and
no style attribute, and keeps nothing in the browser.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from visionloop import words
from visionloop.monitoring.report.charts import reading
from visionloop.monitoring.report.data import ReportData
from visionloop.monitoring.report.sections import prepare

if TYPE_CHECKING:
    from jinja2 import Environment

_CODE = re.compile(r"`([^`\n]+)`")


def render(data: ReportData) -> str:
    """Return the page for a report's data: the same bytes for the same data.

    Every word that comes from data is escaped by the template or the chart that shows it.
    """
    style, script = style_sheet(), _text("script.js") + _text("map.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    return (
        _environment(data.upcoming)
        .get_template("page.html.j2")
        .render(
            data=data,
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            **prepare(data),
        )
    )


def style_sheet() -> str:
    """Return the style sheet, which other pages of monitoring use too."""
    return _text("style.css")


def coded(text: str) -> Markup:
    """Return text for the page in which what stands between backticks is code.

    Args:
        text: Words of a remedy or a reason, which may hold anything.
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _environment(upcoming: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["spaced"] = lambda name: str(name).replace("_", " ")
    made.filters["coded"] = coded
    for read in (
        reading.percent,
        reading.interval,
        reading.chance,
        reading.difference,
        reading.figure,
        reading.apart,
        reading.duration,
    ):
        made.filters[read.__name__] = read
    for name in (words.round_name, words.round_number, words.in_round):
        made.filters[name.__name__] = partial(name, upcoming=upcoming)
    return made


def _text(name: str) -> str:
    assert __package__
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    made = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(made).decode('ascii')}"
