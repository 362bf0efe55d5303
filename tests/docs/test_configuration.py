"""The schema for editors and the reference for people say what the program checks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from visionloop import schema
from visionloop.config import LoopConfig, load_config
from visionloop.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def test_the_schema_and_the_reference_are_fresh(tmp_path: Path) -> None:
    (tmp_path / schema.REFERENCE_FILE).write_bytes((DOCS / schema.REFERENCE_FILE).read_bytes())
    for path in schema.write(tmp_path):
        stored = (DOCS / path.name).read_text(encoding="utf-8")
        assert path.read_text(encoding="utf-8") == stored, "run: python -m visionloop.schema"


def test_refreshing_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / schema.REFERENCE_FILE
    page.write_text(f"# Ours\n\n{schema.MARK}\n\nA table of yore\n", encoding="utf-8")
    schema.write(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Ours\n\n{schema.MARK}\n\n## The whole file\n")
    assert "of yore" not in text


def test_every_field_has_a_meaning_a_type_and_a_place_in_the_reference() -> None:
    document = schema.loop_schema()
    page = (DOCS / schema.REFERENCE_FILE).read_text(encoding="utf-8")
    for section in (document, *document["$defs"].values()):
        for name, field in section["properties"].items():
            assert field.get("description"), name
            assert f"| `{name}` |" in page, name


WRITTEN = [
    "lake: x",
    "{lake: x, sources: [{uri: photos, copy: true}], selection: {n_samples: 5}}",
    "{lake: x, selection: {strategies: [{input: {type: SCORES, score: margin}, "
    "strategy: {type: WEIGHTS}}]}}",
    "{lake: x, cluster: {node_selector: {pool: gpu}, tolerations: [{operator: Exists}]}}",
]
WRONG = [
    "{}",
    "{lake: x, sorces: []}",
    "{lake: x, selection: {n_sample: 5}}",
    "{lake: x, selection: {n_samples: 0}}",
    "{lake: x, holdout: {fraction: 1}}",
    "{lake: x, labeling: {provider: oracl}}",
    "{lake: x, name: Großes}",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_what_the_program_accepts_no_editor_underlines(text: str) -> None:
    load_config(text + "\n")
    jsonschema.validate(yaml.safe_load(text), schema.loop_schema())


@pytest.mark.parametrize("text", WRONG)
def test_what_the_program_refuses_editors_underline(text: str) -> None:
    with pytest.raises(InputError):
        load_config(text + "\n")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema.loop_schema())


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.loop_schema())
    assert json.loads((DOCS / schema.SCHEMA_FILE).read_text())["$id"] == schema.SCHEMA_URL


def test_what_a_configuration_hands_to_a_pipeline_fits_the_schema() -> None:
    config = LoopConfig.model_validate({"lake": "x", "sources": [{"uri": "a", "copy": True}]})
    jsonschema.validate(json.loads(config.text()), schema.loop_schema())


def configurations() -> list[Any]:
    pages = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in pages
        for number, block in enumerate(
            re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
        )
        if re.search(r"^lake:", block, re.M)
    ]


@pytest.mark.parametrize("text", configurations())
def test_every_configuration_on_a_page_is_right(text: str) -> None:
    load_config(text)
    jsonschema.validate(yaml.safe_load(text), schema.loop_schema())


def test_the_page_names_the_schema_of_this_version() -> None:
    assert schema.SCHEMA_URL in (DOCS / schema.REFERENCE_FILE).read_text(encoding="utf-8")
