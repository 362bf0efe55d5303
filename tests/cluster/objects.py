"""What an API server keeps: objects of any kind, their versions, and what happened to them."""

from __future__ import annotations

import copy
import datetime
import itertools
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import fields
from tests.cluster.schemas import invalid, untyped, with_defaults

Key = tuple[str, str, str]  # group/plural, namespace, name


class Refusal(Exception):
    """An answer that is an error, as a Status object."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = ""
        self.status: dict[str, Any] = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": details, "code": code,
        }  # fmt: skip


@dataclass(frozen=True)
class Resource:
    """One resource of an API: where it is served, and the schema that it is held to."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    schema: dict[str, Any] | None = field(default=None, hash=False, compare=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def key(self, namespace: str, name: str) -> Key:
        return self.full, namespace if self.namespaced else "", name


class Store:
    """Objects, a log of their changes, and the callbacks that play the controllers."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[Key, dict[str, Any]] = {}
        self.log: list[tuple[int, str, Key, dict[str, Any]]] = []
        self.oldest = 0  # changes up to this version are forgotten: a watch from there is Gone
        self.controllers: list[Callable[[str, dict[str, Any]], None]] = []
        self.versions = itertools.count(1001)
        self.version = 1000

    def read(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        found = self.objects.get(resource.key(namespace, name))
        if found is None:
            raise Refusal(
                404, "NotFound", f'{resource.full} "{name}" not found',
                name=name, group=resource.group, kind=resource.plural,
            )  # fmt: skip
        return found

    def write(
        self,
        resource: Resource,
        namespace: str,
        document: dict[str, Any],
        manager: str,
        subresource: str = "",
    ) -> dict[str, Any]:
        """Replace an object, as an Update does: who changes a field owns it."""
        with self.changed:
            name = document["metadata"]["name"]
            before = self.objects.get(resource.key(namespace, name)) or {}
            changed = _changed(before, document, resource.schema)
            entries = []
            for found in (before.get("metadata") or {}).get("managedFields") or []:
                same = (found["manager"], found["operation"]) == (manager, "Update")
                kept = fields.owned(found) - (set() if same else changed)
                if same and found.get("subresource", "") == subresource:
                    changed |= kept
                elif kept:
                    entries.append({**found, "fieldsV1": _tree(kept)})
            if changed:
                updated = fields.entry(
                    manager, "Update", resource.api_version, changed, subresource
                )
                entries.append(updated)
            document = copy.deepcopy(document)
            document["metadata"]["managedFields"] = entries
            return self._keep(resource, namespace, before, document, check=not subresource)

    def apply(
        self,
        resource: Resource,
        namespace: str,
        document: dict[str, Any],
        manager: str,
        *,
        force: bool,
        dry_run: bool,
    ) -> tuple[dict[str, Any], bool]:
        """Server-side apply; returns the object, and whether it was made."""
        with self.changed:
            name = document["metadata"]["name"]
            before = self.objects.get(resource.key(namespace, name)) or {}
            wrong = untyped(document, resource.schema) if resource.schema else []
            if wrong:
                words = (
                    wrong[0]
                    if len(wrong) == 1
                    else "errors:\n" + "".join(f"  {w}\n" for w in wrong)
                )
                where = f"{namespace}/{name}; {resource.api_version}, Kind={resource.kind}"
                raise Refusal(500, "", f"failed to create typed patch object ({where}): {words}")
            body = {k: v for k, v in document.items() if k not in ("apiVersion", "kind", "status")}
            told = ("labels", "annotations", "finalizers", "ownerReferences")
            body["metadata"] = {k: v for k, v in body["metadata"].items() if k in told}
            mine = fields.leaves(body, resource.schema) if any(body.values()) else {}
            mine.pop(("f:metadata",), None)
            live = fields.leaves(before, resource.schema)
            entries, conflicts, former = [], [], set()
            for found in (before.get("metadata") or {}).get("managedFields") or []:
                theirs = fields.owned(found)
                if (found["manager"], found["operation"]) == (manager, "Apply"):
                    former = theirs
                    continue
                taken = {p for p in theirs & set(mine) if p in live and live[p] != mine[p]}
                conflicts += [(found, path) for path in sorted(taken)]
                if theirs - taken:
                    entries.append({**found, "fieldsV1": _tree(theirs - taken)})
            if conflicts and not force:
                raise _conflict(conflicts)
            merged = copy.deepcopy(before) or {"metadata": {"name": name}}
            others = set().union(*(fields.owned(e) for e in entries)) if entries else set()
            for path in sorted(former - set(mine) - others, reverse=True):
                fields.remove(merged, path)
            merged = fields.merge(merged, body, resource.schema)
            merged |= {"apiVersion": resource.api_version, "kind": resource.kind}
            mark = fields.entry(manager, "Apply", resource.api_version, set(mine))
            merged["metadata"]["managedFields"] = [mark, *entries]
            return self._keep(resource, namespace, before, merged, dry_run=dry_run), not before

    def delete(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        with self.changed:
            gone = copy.deepcopy(self.read(resource, namespace, name))
            del self.objects[resource.key(namespace, name)]
            self._note("DELETED", resource.key(namespace, name), gone)
            for key, other in list(self.objects.items()):
                owners = other["metadata"].get("ownerReferences") or []
                if any(owner.get("uid") == gone["metadata"]["uid"] for owner in owners):
                    del self.objects[key]
                    self._note("DELETED", key, copy.deepcopy(other))
        return gone

    def forget(self) -> None:
        """Compact: a watch from a version before now is answered with 410 Gone."""
        with self.changed:
            self.oldest = self.version
            self.log.clear()
            self.changed.notify_all()

    def _keep(
        self,
        resource: Resource,
        namespace: str,
        before: dict[str, Any],
        document: dict[str, Any],
        *,
        check: bool = True,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        name = document["metadata"]["name"]
        if resource.schema and check:
            document = with_defaults(document, resource.schema)
            causes = invalid({k: v for k, v in document.items() if k != "status"}, resource.schema)
            if causes:
                raise unprocessable(resource, name, causes)
        old, metadata = before.get("metadata") or {}, document["metadata"]
        if resource.namespaced:
            metadata["namespace"] = namespace
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for word, value in (("uid", str(uuid.uuid4())), ("creationTimestamp", now)):
            metadata[word] = old.get(word, value)
        metadata["generation"] = old.get("generation", 0) + (
            document.get("spec") != before.get("spec")
        )
        metadata["generation"] = metadata["generation"] or 1
        metadata["resourceVersion"] = old.get("resourceVersion", "")
        if before and _without_times(document) == _without_times(before):
            return copy.deepcopy(before)
        if dry_run:
            return copy.deepcopy(document)
        key = resource.key(namespace, name)
        self.objects[key] = document
        self._note("MODIFIED" if before else "ADDED", key, document)
        return copy.deepcopy(document)

    def _note(self, event: str, key: Key, document: dict[str, Any]) -> None:
        self.version = next(self.versions)
        document["metadata"]["resourceVersion"] = str(self.version)
        seen = copy.deepcopy(document)
        self.log.append((self.version, event, key, seen))
        self.changed.notify_all()
        for controller in self.controllers:
            threading.Thread(
                target=controller, args=(event, copy.deepcopy(seen)), daemon=True
            ).start()


def unprocessable(resource: Resource, name: str, causes: list[dict[str, str]]) -> Refusal:
    """Return the 422 that names each invalid field."""
    words = [f"{cause['field']}: {cause['message']}" for cause in causes]
    whole = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return Refusal(
        422, "Invalid", f'{kind} "{name}" is invalid: {whole}',
        name=name, group=resource.group, kind=resource.kind, causes=causes,
    )  # fmt: skip


def _conflict(conflicts: list[tuple[dict[str, Any], fields.Path]]) -> Refusal:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {fields.described(found)}",
            "field": fields.shown(path),
        }
        for found, path in conflicts
    ]
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    if len(causes) == 1:
        words = f"{causes[0]['message']}: {causes[0]['field']}"
    else:
        words = "\n".join(f"{c['message']}: {c['field']}" for c in causes)
    return Refusal(409, "Conflict", f"Apply failed with {count}: {words}", causes=causes)


def _tree(owned: set[fields.Path]) -> dict[str, Any]:
    tree: dict[str, Any] = fields.entry("", "", "", owned)["fieldsV1"]
    return tree


def _changed(
    before: dict[str, Any], after: dict[str, Any], schema: dict[str, Any] | None
) -> set[fields.Path]:
    def body(of: dict[str, Any]) -> dict[fields.Path, Any]:
        kept = {k: v for k, v in of.items() if k not in ("apiVersion", "kind", "metadata")}
        metadata = of.get("metadata") or {}
        told = {k: metadata[k] for k in ("labels", "annotations") if metadata.get(k)}
        return fields.leaves(kept | ({"metadata": told} if told else {}), schema)

    old, new = body(before), body(after)
    return {path for path, value in new.items() if path and old.get(path, ...) != value}


def _without_times(document: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(document)
    for entry in found["metadata"].get("managedFields") or []:
        entry.pop("time", None)
    found["metadata"]["managedFields"] = sorted(
        found["metadata"].get("managedFields") or [], key=lambda entry: str(entry)
    )
    return found
