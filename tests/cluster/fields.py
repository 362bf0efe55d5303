"""Server-side apply as Kubernetes does it: who owns which field, and what happens when two differ.

Owned fields are kept as in `metadata.managedFields`: a nested mapping of ``f:name``, ``k:{keys}``
and ``v:value``. Lists are atomic unless the schema says ``map`` or ``set``. Without a schema (of
built-in kinds) a list whose entries all have a name is a map by name, as containers and env are.
"""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

Path = tuple[str, ...]


def leaves(value: Any, schema: dict[str, Any] | None, at: Path = ()) -> dict[Path, Any]:
    """Return what can be owned: each leaf's path and value."""
    schema = schema or {}
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        found: dict[Path, Any] = {}
        for name, inner in value.items():
            found |= leaves(inner, _property(schema, name), (*at, f"f:{name}"))
        return found
    keys = list_keys(value, schema) if isinstance(value, list) and value else None
    if keys:
        found = {}
        for item in value:
            found |= {(*at, item_key(item, keys), "."): {}}
            found |= leaves(item, schema.get("items"), (*at, item_key(item, keys)))
        return found
    if isinstance(value, list) and schema.get("x-kubernetes-list-type") == "set":
        return {(*at, f"v:{json.dumps(item)}"): item for item in value}
    return {at: value}


def list_keys(value: list[Any], schema: dict[str, Any]) -> list[str] | None:
    """Return the keys of a list of the kind ``map``; None for others."""
    if schema.get("x-kubernetes-list-type") == "map":
        return list(schema["x-kubernetes-list-map-keys"])
    if not schema and all(isinstance(item, dict) and "name" in item for item in value):
        return ["name"]
    return None


def item_key(item: dict[str, Any], keys: list[str]) -> str:
    """Return how managedFields names an entry of a map list."""
    return "k:" + json.dumps({k: item[k] for k in keys if k in item}, separators=(",", ":"))


def merge(live: Any, applied: Any, schema: dict[str, Any] | None) -> Any:
    """Return the live value with what is applied laid over it."""
    schema = schema or {}
    if isinstance(live, dict) and isinstance(applied, dict):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return copy.deepcopy(applied)
        merged = dict(live)
        for name, inner in applied.items():
            merged[name] = merge(live.get(name), inner, _property(schema, name))
        return merged
    if isinstance(live, list) and isinstance(applied, list):
        keys = list_keys([*live, *applied], schema)
        if keys:
            items = {item_key(item, keys): item for item in live}
            for item in applied:
                key = item_key(item, keys)
                items[key] = merge(items.get(key), item, schema.get("items"))
            return list(items.values())
        if schema.get("x-kubernetes-list-type") == "set":
            return [*live, *(item for item in applied if item not in live)]
    return copy.deepcopy(applied)


def remove(value: Any, path: Path) -> None:
    """Take a leaf out of an object, and the maps that it leaves empty."""
    if not path or path == (".",):
        return
    step, rest = path[0], path[1:]
    if step.startswith("f:") and isinstance(value, dict) and step[2:] in value:
        inner = value[step[2:]]
        if rest:
            remove(inner, rest)
        if not rest or inner in ({}, []):
            del value[step[2:]]
    elif step.startswith("k:") and isinstance(value, list):
        keys = json.loads(step[2:])
        for item in [i for i in value if all(i.get(k) == v for k, v in keys.items())]:
            remove(item, rest)
            if rest == (".",) or set(item) <= set(keys):
                value.remove(item)
    elif step.startswith("v:") and isinstance(value, list):
        value[:] = [item for item in value if f"v:{json.dumps(item)}" != step]


def shown(path: Path) -> str:
    """Return a path as Kubernetes writes it: ``.spec.containers[name="a"].image``."""
    words = ""
    for step in path:
        if step.startswith("f:"):
            words += f".{step[2:]}"
        elif step.startswith("k:"):
            keys = json.loads(step[2:])
            words += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in keys.items()) + "]"
        elif step.startswith("v:"):
            words += f"[={step[2:]}]"
    return words


def entry(
    manager: str, operation: str, api_version: str, owned: set[Path], subresource: str = ""
) -> dict[str, Any]:
    """Return an entry of managedFields."""
    fields: dict[str, Any] = {}
    for path in sorted(owned):
        at = fields
        for step in path:
            at = at.setdefault(step, {})
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {
        "manager": manager, "operation": operation, "apiVersion": api_version, "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }  # fmt: skip
    return found | ({"subresource": subresource} if subresource else {})


def owned(found: dict[str, Any]) -> set[Path]:
    """Return the leaves of an entry of managedFields."""

    def walk(at: dict[str, Any], path: Path) -> set[Path]:
        if not at:
            return {path}
        return set().union(*(walk(inner, (*path, step)) for step, inner in at.items()))

    return walk(found["fieldsV1"], ()) - {()}


def described(found: dict[str, Any]) -> str:
    """Return a manager as the message of a conflict names it."""
    words = json.dumps(found["manager"])
    if found.get("subresource"):
        words += f" with subresource {json.dumps(found['subresource'])}"
    if found["operation"] == "Update":
        words += f" using {found['apiVersion']} at {found['time']}"
    return words


def _property(schema: dict[str, Any], name: str) -> dict[str, Any] | None:
    extra = schema.get("additionalProperties")
    other = extra if isinstance(extra, dict) else None
    return (schema.get("properties") or {}).get(name, other)
