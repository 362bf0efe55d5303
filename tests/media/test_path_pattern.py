"""Patterns of paths: what names say, typed."""

from __future__ import annotations

import json
import time
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
        ("{name}.jpg", "my.photo.jpg", {"name": "my.photo"}),
        ("{a}_{b}.{}", "x_y_z.tar.gz", {"a": "x", "b": "y_z"}),
        ("{a}_{n:int}_{b}.jpg", "x_y_7_z.jpg", {"a": "x_y", "n": 7, "b": "z"}),
        ("{a}_{n:int}.jpg", "x_1_2.jpg", {"a": "x_1", "n": 2}),
        ("**/{a}.{}", "x.jpg", {"a": "x"}),
        ("{c}/**/{a}.jpg", "u/v/w/x.jpg", {"c": "u", "a": "x"}),
        ("{c}/**/{a}.jpg", "u/x.jpg", {"c": "u", "a": "x"}),
        ("{a}(x)[0]+.*|^${n:int}", "q(x)[0]+.*|^$7", {"a": "q", "n": 7}),
        ("{a}/{}", "Köln ☂/..", {"a": "Köln ☂"}),
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
        ("a**/{b}", "whole folders"),
    ],
)
def test_what_is_no_pattern_is_refused_with_words(pattern: str, told: str) -> None:
    with pytest.raises(ValueError) as error:
        PathPattern(pattern)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{a}_{b}_{c}_{d}_{e}.jpg", "_" * 1000 + ".png"),
        ("**/{a}-{b}-{c}/{d}_{e}_{f}.jpg", ("-" * 99 + "/") * 9 + "_" * 99),
        ("{a:float}_{b:float}_{c:float}_{d:float}.jpg", "_".join(["1" * 99] * 4)),
    ],
)
def test_no_name_takes_long_to_be_refused(pattern: str, path: str) -> None:
    begun = time.process_time()
    assert PathPattern(pattern).values(path) is None
    assert time.process_time() - begun < 0.5


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
