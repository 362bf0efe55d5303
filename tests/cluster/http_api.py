"""The HTTP side of the API server for tests: paths, verbs, streams and injected faults."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from tests.cluster.objects import Refusal, Resource

if TYPE_CHECKING:
    from tests.cluster.api_server import ApiServer, Fault

_BOOKMARK_SECONDS = 1.0


def handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    """Return a handler class that serves one server."""

    class Handler(_Handler):
        api = server

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body go out in two writes: without this each answer waits 40 ms for the other side.
    disable_nagle_algorithm = True
    api: ApiServer
    query: dict[str, str]

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, method: str) -> None:
        from tests.cluster.api_server import Seen

        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        body = yaml.safe_load(raw) if raw else None
        token = (self.headers.get("Authorization") or "").partition(" ")[2]
        agent = self.headers.get("User-Agent") or ""
        self.api.requests.append(Seen(method, url.path, self.query, token, agent, body))
        watching = self.query.get("watch") == "true"
        fault = self.api.take_fault(method, url.path, watching)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            try:
                if fault and fault.cut_after is None and not fault.event:
                    if fault.code == 0:
                        self._reset()
                        return
                    raise _injected(fault)
                # Anybody may ask for the version, as on a cluster with its default roles.
                known = url.path == "/version" or token in self.api.tokens
                if self.api.tokens and not known:
                    raise Refusal(401, "Unauthorized", "Unauthorized")
                self._route(method, [unquote(p) for p in url.path.split("/") if p], body, fault)
            except Refusal as refused:
                self._send(refused.code, refused.status, retry_after=refused.retry_after)

    def _route(self, method: str, parts: list[str], body: Any, fault: Fault | None) -> None:
        match parts:
            case ["version"]:
                self._send(200, {"gitVersion": self.api.version, "major": "1"})
            case ["api"]:
                self._send(200, {"kind": "APIVersions", "versions": ["v1"]})
            case ["apis"]:
                groups = sorted({r.group for r in self.api.resources if r.group})
                found = [self._group(group) for group in groups]
                self._send(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": found})
            case ["apis", group]:
                self._send(200, self._group(group))
            case ["api", version]:
                self._send(200, self._served("", version))
            case ["apis", group, version]:
                self._send(200, self._served(group, version))
            case ["openapi", "v3", "apis", group, version]:
                self._send(200, self._openapi(group, version))
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"]:
                self._review(body, self.api.user)
            case ["apis", "authorization.k8s.io", "v1", "subjectaccessreviews"]:
                reviews = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "", False)
                self.api.demand("create", reviews, "", "", "")
                self._review(body, body["spec"]["user"])
            case ["api", version, *rest]:
                self._resource(method, "", version, rest, body, fault)
            case ["apis", group, version, *rest]:
                self._resource(method, group, version, rest, body, fault)
            case _:
                raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def _group(self, group: str) -> dict[str, Any]:
        versions = list(dict.fromkeys(r.version for r in self.api.resources if r.group == group))
        versions.sort(key=_maturity, reverse=True)
        if not versions or not group:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        served = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
        named = {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": served}
        return named | {"preferredVersion": served[0]}

    def _served(self, group: str, version: str) -> dict[str, Any]:
        found = [r for r in self.api.resources if (r.group, r.version) == (group, version)]
        if not found:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        resources = [{"name": r.plural, "kind": r.kind, "namespaced": r.namespaced} for r in found]
        resources += [{**r, "name": f"{r['name']}/status"} for r in resources]
        where = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "groupVersion": where, "resources": resources}

    def _openapi(self, group: str, version: str) -> dict[str, Any]:
        found = [r for r in self.api.resources if (r.group, r.version) == (group, version)]
        if not found:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        domain = ".".join(reversed(group.split(".")))
        schemas = {
            f"{domain}.{version}.{r.kind}": (r.schema or {"type": "object"})
            | {"x-kubernetes-group-version-kind": [
                {"group": group, "version": version, "kind": r.kind}
            ]}
            for r in found
        }  # fmt: skip
        return {"openapi": "3.0.0", "paths": {}, "components": {"schemas": schemas}}

    def _review(self, body: dict[str, Any], user: str) -> None:
        asked = body["spec"]["resourceAttributes"]
        what = asked["resource"] + (f".{asked['group']}" if asked.get("group") else "")
        what += f"/{asked['subresource']}" if asked.get("subresource") else ""
        allowed = self.api.allows(user, asked["verb"], what)
        self._send(201, {**body, "status": {"allowed": allowed}})

    def _resource(
        self, method: str, group: str, version: str, rest: list[str], body: Any, fault: Fault | None
    ) -> None:
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else ""
        sub = rest[2] if len(rest) > 2 else ""
        resource = next(
            (
                r for r in self.api.resources
                if (r.group, r.version, r.plural) == (group, version, plural)
            ),
            None,
        )  # fmt: skip
        if resource is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        watching = self.query.get("watch") == "true"
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        verb = verbs.get(method) or ("watch" if watching else "get" if name else "list")
        self.api.demand(verb, resource, namespace, name.partition(":")[0], sub)
        manager = self.query.get("fieldManager") or "unknown"
        store = self.api.store
        if sub == "token" and resource.kind == "ServiceAccount":
            store.read(resource, namespace, name)
            token = self.api.account_token(namespace, name, body["spec"].get("audiences") or [])
            self._send(201, {**body, "status": {"token": token}})
        elif sub == "log":
            self._logs(resource, namespace, name, fault)
        elif sub == "proxy":
            self._proxy(resource, namespace, name, "/".join(rest[3:]))
        elif watching:
            self._watch(resource, namespace, fault)
        elif method == "GET" and name:
            found = store.read(resource, namespace, name)
            if resource.kind == "CustomResourceDefinition" and name in self.api.crd_specs:
                found = {**found, "spec": self.api.crd_specs[name]}
            self._send(200, found)
        elif method == "GET":
            self._list(resource, namespace)
        elif method == "POST":
            name = body["metadata"]["name"]
            if resource.key(namespace, name) in store.objects:
                words = f'{resource.full} "{name}" already exists'
                raise Refusal(409, "AlreadyExists", words, name=name, kind=plural)
            self._send(201, store.write(resource, namespace, body, manager))
        elif method == "PUT":
            self._send(200, store.write(resource, namespace, body, manager, sub))
        elif method == "DELETE":
            store.delete(resource, namespace, name)
            self._send(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        elif self.headers.get("Content-Type") == "application/apply-patch+yaml":
            if "fieldManager" not in self.query:
                words = "fieldManager: Required value: is required for apply patch"
                raise Refusal(422, "Invalid", words)
            force, dry = self.query.get("force") == "true", self.query.get("dryRun") == "All"
            found, made = store.apply(resource, namespace, body, manager, force=force, dry_run=dry)
            self._send(201 if made else 200, found)
        else:
            from tests.cluster.api_server import merged

            live = store.read(resource, namespace, name)
            self._send(200, store.write(resource, namespace, merged(live, body), manager, sub))

    def _selected(self, item: dict[str, Any]) -> bool:
        labels = item["metadata"].get("labels") or {}
        for term in filter(None, self.query.get("labelSelector", "").split(",")):
            name, _, value = term.replace("==", "=").partition("=")
            if labels.get(name) != value:
                return False
        for term in filter(None, self.query.get("fieldSelector", "").split(",")):
            path, _, value = term.partition("=")
            at: Any = item
            for step in path.split("."):
                at = (at or {}).get(step)
            if at != value:
                return False
        return True

    def _list(self, resource: Resource, namespace: str) -> None:
        with self.api.store.changed:
            found = [
                {k: v for k, v in item.items() if k not in ("apiVersion", "kind")}
                for key, item in sorted(self.api.store.objects.items())
                if key[0] == resource.full and (not namespace or key[1] == namespace)
                and self._selected(item)
            ]  # fmt: skip
            version = self.api.store.version
        start = int(self.query.get("continue", 0))
        limit = min(int(self.query.get("limit") or len(found) + 1), self.api.page)
        page = found[start : start + limit] if "limit" in self.query else found
        metadata = {"resourceVersion": str(version)}
        if start + len(page) < len(found):
            metadata |= {"continue": str(start + len(page))}
        kind = f"{resource.kind}List"
        named = {"kind": kind, "apiVersion": resource.api_version, "metadata": metadata}
        self._send(200, named | {"items": page})

    def _watch(self, resource: Resource, namespace: str, fault: Fault | None) -> None:
        store = self.api.store
        since = int(self.query.get("resourceVersion") or 0)
        until = time.monotonic() + float(self.query.get("timeoutSeconds") or 1800)
        if since < store.oldest or (fault and fault.event):
            self._begin_stream()
            code = fault.code if fault and fault.event else 410
            reason = "Expired" if code == 410 else (fault.reason if fault else "")
            words = (fault.message if fault else "") or f"too old resource version: {since}"
            self._event("ERROR", Refusal(code, reason, words).status)
            self._end_stream()
            return
        self._begin_stream()
        sent = 0
        told = time.monotonic()
        while time.monotonic() < until and not self.api.stopping:
            with store.changed:
                news = [entry for entry in store.log if entry[0] > since]
                if not news:
                    store.changed.wait(timeout=0.2)
            for version, event, key, item in news:
                since = max(since, version)
                here = key[0] == resource.full and (not namespace or key[1] == namespace)
                if not here or not self._selected(item):
                    continue
                named = {"apiVersion": resource.api_version, "kind": resource.kind}
                if fault and fault.cut_after is not None and sent >= fault.cut_after:
                    self._end_stream()
                    return
                self._event(event, named | item)
                sent += 1
            if fault and fault.cut_after is not None and sent >= fault.cut_after:
                self._end_stream()
                return
            if time.monotonic() - told > _BOOKMARK_SECONDS:
                told = time.monotonic()
                mark = {"kind": resource.kind, "metadata": {"resourceVersion": str(since)}}
                self._event("BOOKMARK", mark)
        self._end_stream()

    def _logs(self, resource: Resource, namespace: str, name: str, fault: Fault | None) -> None:
        pod = self.api.store.read(resource, namespace, name)
        containers = [c["name"] for c in (pod.get("spec") or {}).get("containers") or []]
        container = self.query.get("container") or (containers[0] if len(containers) == 1 else "")
        if not container:
            words = (
                f"a container name must be specified for pod {name}, choose one of: {containers}"
            )
            raise Refusal(400, "BadRequest", words)
        kept = self.api.pod_logs.setdefault(f"{name}/{container}", [])
        stamped = self.query.get("timestamps") == "true"

        def line(number: int) -> bytes:
            # One line a second, from a fixed time on: the stamp is the line's number.
            stamp = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.5Z "
            return ((stamp if stamped else "") + kept[number] + "\n").encode()

        first = 0
        if "tailLines" in self.query:
            first = max(0, len(kept) - int(self.query["tailLines"]))
        if "sinceTime" in self.query:
            hours, minutes, seconds = self.query["sinceTime"][11:19].split(":")
            first = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
        self._begin_stream("text/plain")
        cut = first + fault.cut_after if fault and fault.cut_after is not None else len(kept) + 1000
        while True:
            while first < min(len(kept), cut):
                self._chunk(line(first))
                first += 1
            if first >= cut:
                break
            over = self.api.store.objects.get(resource.key(namespace, name))
            phase = ((over or {}).get("status") or {}).get("phase")
            done = phase in ("Succeeded", "Failed") and first >= len(kept)
            if self.query.get("follow") != "true" or over is None or done or self.api.stopping:
                break
            time.sleep(0.02)
        self._end_stream()

    def _proxy(self, resource: Resource, namespace: str, name: str, path: str) -> None:
        self.api.store.read(resource, namespace, name.partition(":")[0])
        page = self.api.pod_pages.get(f"{name}/{path}")
        if page is None:
            words = "error trying to reach service: dial tcp 10.0.0.1: connect: connection refused"
            raise Refusal(503, "ServiceUnavailable", words)
        data = page if isinstance(page, bytes) else page()
        self._send(200, data)

    def _send(self, code: int, body: Any, *, retry_after: str = "") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(data)

    def _begin_stream(self, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, event: str, item: dict[str, Any]) -> None:
        self._chunk(json.dumps({"type": event, "object": item}).encode() + b"\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _reset(self) -> None:
        """End the connection as a killed process does: with a reset, not with a goodbye."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()


def _maturity(version: str) -> tuple[int, int, int]:
    """Order of a group's versions: v1 before v1beta2 before v1beta1 before v1alpha1."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    assert found is not None
    stage = {None: 2, "beta": 1, "alpha": 0}[found[2]]
    return stage, int(found[1]), int(found[3] or 0)


def _injected(fault: Fault) -> Refusal:
    reasons = {
        401: "Unauthorized", 409: "Conflict", 410: "Expired", 429: "TooManyRequests",
        500: "InternalError", 503: "ServiceUnavailable",
    }  # fmt: skip
    reason = fault.reason or reasons.get(fault.code, "")
    refused = Refusal(fault.code, reason, fault.message or f"injected {fault.code}")
    refused.retry_after = fault.retry_after
    return refused
