"""YAML of anybody is read, or refused in one sentence, and never for long."""

from __future__ import annotations

import time

import pytest

from visionloop.documents import parse_document
from visionloop.errors import InputError


@pytest.mark.parametrize(
    "text",
    ["a: [1", "? [a, b]\n: c\n", "a: 2026-99-99", "[" * 5000, "a: 1\na: 2", "a: !!python/x y"],
)
def test_what_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_document(text, where="test.yaml")


def test_a_few_lines_of_aliases_do_not_take_for_ever() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    began = time.process_time()
    found = parse_document("\n".join([*lines, "names: [cat]"]), where="test.yaml")
    assert found["names"] == ["cat"]
    assert time.process_time() - began < 5
