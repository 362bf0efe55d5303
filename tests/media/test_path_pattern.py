"""Patterns of paths: what names say, typed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visionloop.config import load_config
from visionloop.path_pattern import PathPattern


@pytest.mark.parametrize(
    ("pattern", "path", "told"),
    [
        (
            "{camera}/{date:%Y-%m-%d}/{name}",
            "dock 3/2026-03-02/a.jpg",
            {"camera": "dock 3", "date": "2026-03-02T00:00:00+00:00", "name": "a.jpg"},
        ),
        (
            "{camera}/{date:%Y/%m/%d}/**",
            "dock/2026/03/02/x/y.png",
            {"camera": "dock", "date": "2026-03-02T00:00:00+00:00"},
        ),
        (
            "**/{at:%Y%m%dT%H%M%S%z}_{shot:int}_{gain:float}.{}",
            "a/b/20260302T101500+0200_0012_1.5e1.jpeg",
            {"at": "2026-03-02T08:15:00+00:00", "shot": 12, "gain": 15.0},
        ),
        ("{a}/{}", "x/y/z", None),
        ("{a:int}/{}", "x/y", None),
        ("{d:%Y-%m-%d}/{}", "2026-02-30/y", None),
        ("cam.{n}/{}", "camx1/y", None),
    ],
)
def test_a_path_is_read_by_its_pattern(
    pattern: str, path: str, told: dict[str, Any] | None
) -> None:
    assert PathPattern(pattern).values(path) == told


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("photos/*.jpg", "names no field"),
        ("{a}{b}", "between {a} and {b}"),
        ("{a}/{a}", "twice"),
        ("{a:date}", "no type"),
        ("{a:%Q}", "%Q"),
        ("{a", "no partner"),
        ("{a b}", "no name"),
        ("**/{a}/**", "twice"),
        ("{a}_{b}_{c}_{d}_{e}", "more than 4"),
    ],
)
def test_what_is_no_pattern_is_refused_with_words(pattern: str, told: str) -> None:
    with pytest.raises(ValueError) as error:
        PathPattern(pattern)
    assert told in str(error.value)


def test_a_pattern_is_checked_with_the_configuration() -> None:
    from visionloop.errors import InputError

    for source in (
        {"uri": "x", "pattern": "{a"},
        {"uri": "x", "pattern": "{a}/{}", "metadata": "none"},
        {"uri": "x", "pattern": "{a}/{}", "format": "coco"},
        {"uri": "x.csv", "metadata_table": "m.csv"},
    ):
        with pytest.raises(InputError):
            load_config(json.dumps({"name": "t", "lake": "l", "sources": [source]}))
