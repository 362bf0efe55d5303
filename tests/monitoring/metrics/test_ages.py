"""What time alone changes is told, though nobody writes to the lake."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.monitoring.notifying.receiving import flag, write
from visionloop.lake import Lake
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.metrics.health import TOLD_ANEW_SECONDS, read_health


def test_of_a_lake_that_nobody_writes_to_ages_are_told_anew_after_some_minutes(
    lake: Lake,
) -> None:
    began = datetime.now(UTC)
    since = {"since": began.isoformat(), "unit": "hours", "reference": "a pace"}
    silent = flag("stale_label", "dock") | {"subject_type": "camera", "evidence": json.dumps(since)}
    write(lake, "flags", silent | {"score": 0.0, "threshold": 0.0})
    first = read_health(lake, MonitoringConfig(), now=began)
    soon = read_health(lake, MonitoringConfig(), first, began + timedelta(minutes=1))
    assert soon.data is first.data and soon.told == first.told
    # Some minutes later, by the clock that tells how long something took.
    some = replace(soon, told=soon.told - TOLD_ANEW_SECONDS)
    later = read_health(lake, MonitoringConfig(), some, began + timedelta(hours=1))
    (told,) = later.data.standing
    assert told.score == pytest.approx(1)
    assert later.told > some.told
    # The clock on the wall was set back meanwhile.
    back = read_health(lake, MonitoringConfig(), some, began - timedelta(hours=1))
    assert back.data is not some.data
