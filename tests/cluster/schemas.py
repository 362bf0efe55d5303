"""What a CustomResourceDefinition refuses, in the API server's words.

Unknown fields, types, required fields, enums, patterns and limits are checked; CEL rules are not.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import yaml

# A C loader: the CRD of InferenceService has two megabytes.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
    "number": (int, float),
}  # fmt: skip


@functools.cache
def read_crds(folder: Path) -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions of a folder."""
    found = []
    for file in sorted(folder.glob("*.yaml")):
        documents = yaml.load_all(file.read_text(encoding="utf-8"), _LOADER)
        found += [d for d in documents if d and d["kind"] == "CustomResourceDefinition"]
    return found


def schema_of(crd: dict[str, Any], version: str) -> dict[str, Any]:
    """Return the schema of one version."""
    served = next(v for v in crd["spec"]["versions"] if v["name"] == version)
    schema: dict[str, Any] = served.get("schema", {}).get("openAPIV3Schema", {})
    return schema


def untyped(value: Any, schema: dict[str, Any], at: str = "") -> list[str]:
    """Return what the typed form of an object does not allow: unknown fields and wrong types."""
    if value is None:
        return []
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, (int, str)) else [f"{at}: expected int or string"]
    wanted = schema.get("type")
    wrong = wanted and not isinstance(value, _TYPES[wanted])
    if wrong or (wanted in ("integer", "number") and isinstance(value, bool)):
        return [
            f"{at}: expected {_expected(wanted)}, got &value.valueUnstructured{{Value:{value!r}}}"
        ]
    found: list[str] = []
    if isinstance(value, dict):
        known = schema.get("properties") or {}
        extra = schema.get("additionalProperties")
        free = schema.get("x-kubernetes-preserve-unknown-fields") or extra is True
        for name, inner in value.items():
            if at == "" and name in ("apiVersion", "kind", "metadata"):
                continue
            if schema.get("x-kubernetes-embedded-resource") and name in ("kind", "metadata"):
                continue
            if name in known:
                found += untyped(inner, known[name], f"{at}.{name}")
            elif isinstance(extra, dict):
                found += untyped(inner, extra, f"{at}.{name}")
            elif not free:
                found.append(f"{at}.{name}: field not declared in schema")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            found += untyped(item, schema["items"], f"{at}[{number}]")
    return found


def invalid(value: Any, schema: dict[str, Any], at: str = "") -> list[dict[str, str]]:
    """Return what the schema's values do not allow, as the causes of a Status object."""
    found: list[dict[str, str]] = []
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(json.dumps(v) for v in schema["enum"])
        words = f"Unsupported value: {json.dumps(value)}: supported values: {allowed}"
        found.append(_cause("FieldValueNotSupported", words, at))
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        words = (
            f"Invalid value: {json.dumps(value)}: {at} in body should match '{schema['pattern']}'"
        )
        found.append(_cause("FieldValueInvalid", words, at))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            words = f"should be greater than or equal to {schema['minimum']}"
            found.append(_cause("FieldValueInvalid", f"Invalid value: {value}: {words}", at))
        if "maximum" in schema and value > schema["maximum"]:
            words = f"should be less than or equal to {schema['maximum']}"
            found.append(_cause("FieldValueInvalid", f"Invalid value: {value}: {words}", at))
    if isinstance(value, dict):
        for name in schema.get("required") or []:
            if name not in value:
                found.append(_cause("FieldValueRequired", "Required value", _join(at, name)))
        extra = schema.get("additionalProperties")
        for name, inner in value.items():
            inner_schema = (schema.get("properties") or {}).get(name, extra)
            if isinstance(inner_schema, dict) and inner is not None:
                found += invalid(inner, inner_schema, _join(at, name))
    if isinstance(value, list) and "items" in schema:
        if "maxItems" in schema and len(value) > schema["maxItems"]:
            words = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
            found.append(_cause("FieldValueTooMany", words, at))
        for number, item in enumerate(value):
            found += invalid(item, schema["items"], f"{at}[{number}]")
    return found


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """Return a value with the defaults that its schema gives."""
    if isinstance(value, dict):
        known = schema.get("properties") or {}
        filled = {
            name: with_defaults(inner, known[name]) if name in known else inner
            for name, inner in value.items()
        }
        missing = {n: s["default"] for n, s in known.items() if "default" in s and n not in value}
        return filled | missing
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(item, schema["items"]) for item in value]
    return value


def _expected(wanted: str) -> str:
    return {"object": "map", "array": "list", "integer": "numeric (int or float)"}.get(
        wanted, wanted
    )


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _cause(reason: str, message: str, field: str) -> dict[str, str]:
    return {"reason": reason, "message": message, "field": field}
