"""A rate never stands alone: its interval and what it is a rate of stand beside it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.monitoring.metrics.test_metrics import sample_health, told_by, value
from tests.monitoring.report.test_verdict import GATED, healthy
from tests.monitoring.report.whole_page import whole
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.data import Funnel, HarvestCount
from visionloop.monitoring.report.data_funnel import Account, Step
from visionloop.monitoring.report.data_models import SliceRow
from visionloop.monitoring.report.page import render
from visionloop.monitoring.report.summary import summary
from visionloop.monitoring.report.verdict import verdict
from visionloop.monitoring.report.words import calibration

SPAN = r"\d+\.\d% to \d+\.\d%"


@pytest.mark.parametrize("label", ["Rounds", "Models", "Annotators"])
def test_each_rate_of_a_table_has_its_interval_and_n(label: str) -> None:
    text = render(whole())
    table = text[text.index(f'aria-label="{label}"') :]
    table = table[: table.index("</table>")]
    # Macro F1 is no rate: it stands alone.
    cells = [cell for cell in re.findall(r'<td class="n">(.*?)</td>', table) if "<small>" in cell]
    rates = [cell for cell in cells if "%" in cell]
    assert len(rates) >= 2
    for cell in rates:
        assert re.fullmatch(rf"\d+\.\d%<small>{SPAN}</small><small>n = [\d,]+</small>", cell), cell


def test_the_calibration_error_and_the_brier_score_have_intervals_too() -> None:
    data = whole()
    newest = data.models[-1]
    assert re.search(rf"\({SPAN}, n = 597\) on average", calibration(newest))
    assert "<small>0.07 to 0.15</small>" in render(data)
    brier = summary(data)["models"][-1]["brier"]
    assert brier["low"] < brier["value"] < brier["high"] and brier["n"] == 597
    told = told_by(replace(sample_health(), data=replace(data, in_service=newest.model_id)))
    assert newest.ece is not None
    assert value(told, "calibration_error_ratio") == newest.ece.value
    assert value(told, "calibration_error_low_ratio") == newest.ece.low
    assert value(told, "calibration_error_high_ratio") == newest.ece.high
    assert value(told, "calibration_error_answers") == newest.ece.n


def test_findings_that_tell_a_rate_tell_its_interval() -> None:
    data = healthy()
    funnel = Funnel(found=100, ok=60, unreadable=40)
    slices = (SliceRow("light", "night", wilson(30, 80), worse=True),)
    logged = Step("logged", "Events logged", "events", 1000)
    odd = replace(
        data,
        rounds=(replace(data.rounds[0], funnel=funnel),),
        models=(replace(data.models[0], slices=slices),),
        total=Account("", (), (logged,)),
        harvest=(HarvestCount("orphan", "never came", 200),),
    )
    said = {one.key: one.text for one in verdict(odd, GATED).findings}
    for key in ("unreadable_share", "events_lost", "worse_slices"):
        assert re.search(SPAN, said[key]), said[key]
    assert "light night: 37.5%" in said["worse_slices"] and "n = 80" in said["worse_slices"]
