"""YAML of anybody is read, or refused in one sentence, and never for long."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest

from visionloop.config import load_config
from visionloop.documents import absolute_under, parse_document
from visionloop.errors import InputError
from visionloop.selection.config import parse_selection_config


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


def test_json_may_have_the_comments_of_javascript() -> None:
    text = """// made by hand: {don't}
    {
      "uri": "http://host//a", // the "server"
      "n": 3, /* of
      many */ "glob": "a/*.png", "more": "b*/", # said /* so
      'kept': 'a // b', "plain": [x://y], // the last, with a comma
    }"""
    found = parse_document(text, where="test.json")
    assert found == {
        "uri": "http://host//a",
        "n": 3,
        "glob": "a/*.png",
        "more": "b*/",
        "kept": "a // b",
        "plain": ["x://y"],
    }
    with pytest.raises(InputError, match="line 3"):
        parse_document('{ // one\n"a": 1, /* two */\n "a": 2}', where="test.json")
    assert parse_document("a: //server/x\nb: c // d", where="x") == {
        "a": "//server/x",
        "b": "c // d",
    }


def test_the_files_of_queries_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    query = ["file:ids.csv", "file:gs://b/ids.csv", "flag:file:x", "0001"]
    line = {
        "input": {"type": "EMBEDDINGS", "query": query},
        "strategy": {"type": "SIMILARITY"},
    }
    path = tmp_path / "loop.yaml"
    path.write_text(
        json.dumps({"name": "x", "lake": "lake", "classes": ["a", "b"], "sources": [{"uri": "s"}],
                    "selection": {"strategies": [line]}})
    )  # fmt: skip
    read = load_config(str(path)).selection
    expected = (f"file:{tmp_path}/ids.csv", *query[1:])
    assert read.strategies[0].input.query == expected
    assert read.strategy == "custom"
    alone = parse_selection_config({"strategies": [line]})
    assert alone.with_files(partial(absolute_under, tmp_path)).strategies == read.strategies
