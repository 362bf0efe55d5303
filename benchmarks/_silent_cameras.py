"""Cameras that stop, and whole lives of cameras that do not: who calls them silent, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks._injected import START, arrivals
from benchmarks._rows import Row
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.silence import silences

Moments = NDArray[np.datetime64]
Hours = NDArray[np.float64]
Silent = Callable[[Mapping[str, Moments], datetime], set[str]]
KNOWN_DAYS, LOOKED_DAYS, EVERY_HOURS, TIME_OUT = 40, 14, 6, 24
LIFE, LIVES, QUICK_LIVES = 150, 60, 5
# The peer of whole lives has seen as many gaps before it judges as ours has.
SEEN = MonitoringConfig().silence_min_gaps
TIMES = 2
# Gaps of a life, in hours; of those that are heard many times a day a life has as many days.
PATTERNS: dict[str, Callable[[np.random.Generator], Hours]] = {
    "every night": lambda rng: 24 + rng.normal(0, 0.1, LIFE),
    "on working days": lambda rng: (
        np.where(np.arange(LIFE) % 5 == 4, 72.0, 24.0) + rng.normal(0, 0.1, LIFE)
    ),
    "20 times a day, by day": lambda rng: np.diff(
        np.concatenate([24 * day + 8 + np.sort(rng.uniform(0, 10, 20)) for day in range(LIFE)])
    ),
    "at any time, every other day": lambda rng: rng.exponential(48, LIFE),
    "after log-normal gaps": lambda rng: 24 * rng.lognormal(0, 1, LIFE),
    "at any time, 20 times a day": lambda rng: rng.exponential(1.2, 20 * LIFE),
    "after Pareto's gaps": lambda rng: 6 * (1 + rng.pareto(1.5, LIFE)),
}


def silence_rows(*, quick: bool) -> list[Row]:
    """Return the rows of cameras of which one stops, and of those of which none does."""
    return stopped_rows(10 if quick else 60) + life_rows(QUICK_LIVES if quick else LIVES)


def stopped_rows(number: int) -> list[Row]:
    """Look at cameras every few hours while none stops, and while one of them has."""
    limits: dict[str, Silent] = {"ours": _our_silent, f"a time-out of {TIME_OUT} h": _timed_out}
    false = {who: 0 for who in limits}
    told: dict[str, list[float]] = {who: [] for who in limits}
    for seed in range(number):
        heard, stops = arrivals(seed, KNOWN_DAYS + LOOKED_DAYS)
        begins = START + timedelta(days=KNOWN_DAYS)
        cut = np.datetime64(begins.replace(tzinfo=None), "us")
        ended = {**heard, stops: heard[stops][heard[stops] <= cut]}
        looks = [begins + timedelta(hours=h) for h in range(0, LOOKED_DAYS * 24, EVERY_HOURS)]
        for who, silent in limits.items():
            false[who] += any(silent(heard, now) for now in looks)
            first = next((now for now in looks if stops in silent(ended, now)), None)
            last = ended[stops][-1].astype(datetime).replace(tzinfo=UTC)
            hours = (first - last).total_seconds() / 3600 if first else np.inf
            told[who].append(hours)
    case = f"camera_silent: 5 cameras, {LOOKED_DAYS} days of looks, {number} runs"
    (_, mine), (who, theirs) = told.items()
    wrong = [false[name] / number for name in limits]
    found = [float(np.mean(np.isfinite(hours))) for hours in (mine, theirs)]
    until = [float(np.median(hours)) for hours in (mine, theirs)]
    return [
        Row(f"{case}: false alarm", wrong[0], who, wrong[1], ""),
        Row(f"{case}: found", found[0], who, found[1], "", None, False),
        Row(f"{case}: silence until told, median", until[0], who, until[1], "h"),
    ]


def life_rows(lives: int) -> list[Row]:
    """Let cameras keep their pace for a whole life, and tell who accuses them, and how late.

    Each gap is looked at just before it ends, so that looking more often would alarm no more. The
    camera stops at the end of its life. The peer takes what is more than twice the longest gap so
    far for silence.
    """
    who = f"{TIMES} times the longest gap so far"
    rows = []
    for name, draw in PATTERNS.items():
        accused = np.zeros(2)
        late: list[tuple[float, float]] = []
        for seed in range(lives):
            gaps = draw(np.random.Generator(np.random.PCG64(seed)))
            longest = np.maximum.accumulate(gaps)
            accused += _accused(gaps), bool((gaps[SEEN:] > TIMES * longest[SEEN - 1 : -1]).any())
            late.append((_limit(gaps), TIMES * float(longest[-1])))
        hours = np.median(late, axis=0)
        case = f"camera_silent, heard {name}, {lives} lives of {LIFE}"
        rows += [
            Row(f"{case}: accused", accused[0] / lives, who, accused[1] / lives, ""),
            Row(f"{case}: silence until told, median", float(hours[0]), who, float(hours[1]), "h"),
        ]
    return rows


def _accused(gaps: Hours) -> bool:
    """Return whether ours calls a camera silent in any of its gaps."""
    moments = _moments(gaps)
    # Where there are many a day, only the longest of a day or two can be longer than those before.
    longest = np.sort(np.argsort(-gaps, kind="stable")[: 2 * LIFE])
    for i in longest[longest >= SEEN].tolist():
        now = moments[i] + np.timedelta64(int(gaps[i] * 0.999 * 3.6e9), "us")
        (one,) = silences({"c": moments[: i + 1]}, _aware(now), MonitoringConfig())
        if one.state == "silent":
            return True
    return False


def _limit(gaps: Hours) -> float:
    """Return after how many hours ours calls a camera silent that stops now."""
    moments = _moments(gaps)
    (one,) = silences({"c": moments}, _aware(moments[-1]), MonitoringConfig())
    return one.threshold_hours


def _moments(gaps: Hours) -> Moments:
    start = np.datetime64(START.replace(tzinfo=None), "us")
    return start + (np.cumsum(np.r_[0.0, gaps]) * 3.6e9).astype("timedelta64[us]")


def _aware(moment: np.datetime64) -> datetime:
    naive: datetime = moment.astype(datetime)
    return naive.replace(tzinfo=UTC)


def _our_silent(heard: Mapping[str, Moments], now: datetime) -> set[str]:
    judged = silences(heard, now, MonitoringConfig())
    return {one.camera for one in judged if one.state == "silent"}


def _timed_out(heard: Mapping[str, Moments], now: datetime) -> set[str]:
    until = np.datetime64(now.replace(tzinfo=None), "us")
    out = np.timedelta64(TIME_OUT, "h")
    return {name for name, at in heard.items() if until - at[at <= until][-1] > out}
