"""How numbers are read beside a chart, in its table and in its description."""

from __future__ import annotations

from visionloop.monitoring import telling
from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.report.data_models import SIGNIFICANCE, Difference

# An en dash, where a figure does not exist.
NONE = "\u2013"


def percent(value: float) -> str:
    """Return a share as it is read: ``93.1%``."""
    return f"{100 * value:.1f}%"


def interval(rate: Rate) -> str:
    """Return a rate's interval as it is read: ``90.8% to 94.9%``."""
    return f"{percent(rate.low)} to {percent(rate.high)}"


def told(rate: Rate) -> str:
    """Return a rate with its interval and n, as it is read aloud."""
    return f"{percent(rate.value)} ({interval(rate)}, n = {rate.n:,})"


def points(value: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * value:+.1f}"


def difference(value: Difference) -> str:
    """Return a difference with its interval: ``+2.1 points (+0.4 to +3.9)``."""
    return f"{points(value.value)} points ({points(value.low)} to {points(value.high)})"


def chance(value: Difference) -> str:
    """Return why a difference proves nothing: ``may be chance (p = 0.07)``.

    The interval is approximate and the test is exact: where one of them sees a difference that the
    other does not, both are told.
    """
    if value.p is None:
        return "may be chance"
    if value.low > 0 or value.high < 0:
        return (
            f"may be chance: the exact test gives p = {value.p:.2g}, and the interval, which is "
            "approximate, is a little too narrow where few pictures tell two models apart"
        )
    if value.p < SIGNIFICANCE:
        return f"may be chance: the interval holds 0, though the exact test gives p = {value.p:.2g}"
    return f"may be chance (p = {value.p:.2g})"


def figure(value: float) -> str:
    """Return a measure with three digits that count, without an exponent where it can be read."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return text
    return f"{value:.2e}"


def apart(value: float | None, threshold: float | None, unit: str = "") -> tuple[str, str]:
    """Return a measure and its threshold, with the digits that tell them apart; a dash for none.

    Args:
        value: What was measured.
        threshold: What it is held against.
        unit: Of both.
    """
    if value is None or threshold is None:
        one, other = (
            NONE if held is None else telling.measured(held, unit) for held in (value, threshold)
        )
        return one, other
    return telling.measured_apart(value, threshold, unit)


def duration(seconds: float) -> str:
    """Return a time span in the unit that it is read in: ``4.2 s``, ``12 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
