"""What `loop.yaml` may hold, as a JSON Schema for editors and as tables for people.

Both come from `visionloop.config.LoopConfig`, so that they say what the program checks::

    python -m visionloop.schema    # refreshes docs/loop.schema.json and docs/configuration.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visionloop import __version__

SCHEMA_URL = (
    f"https://raw.githubusercontent.com/visionloop/visionloop/v{__version__}/docs/loop.schema.json"
)
SCHEMA_FILE = "loop.schema.json"
REFERENCE_FILE = "configuration.md"
# In the reference everything after this line is generated, everything before it is written by hand.
MARK = "<!-- From here on this page is generated: python -m visionloop.schema -->"

_WORDS = {"integer": "whole number", "string": "text", "boolean": "true/false"}


def loop_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `loop.yaml`, with the names that a person writes."""
    from visionloop.config import LoopConfig

    # Of the two modes only this one names a field as it is written here: selection also *reads*
    # LightlyOne's camelCase, which no editor has to offer.
    schema = LoopConfig.model_json_schema(mode="serialization", by_alias=True)
    for section in schema["$defs"].values():
        del section["title"]
        section["properties"] = {
            name: _without_title(field) for name, field in section["properties"].items()
        }
    schema["properties"] = {
        name: _without_title(field) for name, field in schema["properties"].items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_URL,
        **schema,
        "title": "visionloop loop.yaml",
    }


def reference() -> str:
    """Return every section of `loop.yaml` as Markdown: field, type, default, meaning."""
    schema = loop_schema()
    definitions: dict[str, Any] = schema["$defs"]
    parts = [_section("The whole file", schema, definitions)]
    for path, name in _sections(schema, "", definitions):
        parts.append(_section(f"`{path}`", definitions[name], definitions))
    return "\n\n".join(parts) + "\n"


def write(folder: str | Path) -> list[Path]:
    """Refresh the schema and the reference.

    Args:
        folder: The folder ``docs``, which holds the hand-written part of the reference.

    Returns:
        The two files.
    """
    schema, page = Path(folder) / SCHEMA_FILE, Path(folder) / REFERENCE_FILE
    text = json.dumps(loop_schema(), indent=2, ensure_ascii=False) + "\n"
    schema.write_text(text, encoding="utf-8")
    written = page.read_text(encoding="utf-8").partition(MARK)[0].rstrip() if page.exists() else ""
    page.write_text(f"{written}\n\n{MARK}\n\n{reference()}".lstrip(), encoding="utf-8")
    return [schema, page]


def _without_title(field: dict[str, Any]) -> dict[str, Any]:
    # pydantic's titles are the names again, in capitals.
    return {key: value for key, value in field.items() if key != "title"}


def _sections(
    section: dict[str, Any], prefix: str, definitions: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield the path and the definition's name of every section, in the order of the file."""
    for name, field in section["properties"].items():
        listed = "items" in field and "$ref" in field["items"]
        # One that may be left out altogether is a choice of itself and nothing.
        either = [field["items"] if listed else field, *field.get("anyOf", ())]
        target = next((f["$ref"].rpartition("/")[2] for f in either if "$ref" in f), "")
        if target:
            path = f"{prefix}{name}{'[]' if listed else ''}"
            yield path, target
            yield from _sections(definitions[target], f"{path}.", definitions)


def _section(title: str, section: dict[str, Any], definitions: dict[str, Any]) -> str:
    required = set(section.get("required", ()))
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section["properties"].items():
        default = "**required**" if name in required else _default(field)
        cells = [f"`{name}`", _type(field), default, _sentence(field)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    words = str(section.get("description", "")).replace("``", "`")
    return "\n\n".join([f"## {title}", *([words] if words else []), "\n".join(rows)])


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return (
            " or ".join(_type(kind) for kind in field["anyOf"] if kind.get("type") != "null")
            or "null"
        )
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type", "any")
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}".replace("list of section", "sections")
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"name: {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return _WORDS.get(kind, str(kind)) + _limits(field)


def _limits(field: dict[str, Any]) -> str:
    signs = (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    )
    found = [f"{sign} {field[key]:g}" for key, sign in signs if key in field]
    return f", {' and '.join(found)}" if found else ""


def _default(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "see its section"
    if "default" not in field:
        return "none"
    value = field["default"]
    if value is None:
        return "none"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _sentence(field: dict[str, Any]) -> str:
    text = str(field.get("description", "")).strip().rstrip(".").replace("``", "`")
    first = text.split(" ")[0].rstrip(":")
    # A value is written as it is written in the file.
    return text if first in field.get("enum", ()) else text[:1].upper() + text[1:]


if __name__ == "__main__":
    for path in write(Path(__file__).resolve().parent.parent / "docs"):
        print(path)
