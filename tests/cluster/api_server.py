"""A Kubernetes API server for tests: real HTTP, real answers, and the faults that a test asks for.

It keeps objects of any kind, serves discovery, pages of lists, server-side apply with conflicts,
watches with bookmarks, logs, the proxy to pods, reviews of access. A callback plays a controller:

    def ready(event, item):
        if item["kind"] == "InferenceService" and event != "DELETED":
            server.set_status(item, {"conditions": [{"type": "Ready", "status": "True"}]})

    with ApiServer(crds=[shared / "crds" / "kserve-v0.20.0"]) as server:
        server.controllers.append(ready)
        server.fail("GET", "/inferenceservices", 429, retry_after="1")
"""

from __future__ import annotations

import base64
import copy
import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.cluster.http_api import handler
from tests.cluster.objects import Refusal, Resource, Store
from tests.cluster.schemas import read_crds, schema_of

_BUILT_IN = [
    ("", "v1", "pods", "Pod"),
    ("", "v1", "services", "Service"),
    ("", "v1", "secrets", "Secret"),
    ("", "v1", "configmaps", "ConfigMap"),
    ("", "v1", "events", "Event"),
    ("", "v1", "serviceaccounts", "ServiceAccount"),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("", "v1", "resourcequotas", "ResourceQuota"),
    ("", "v1", "limitranges", "LimitRange"),
    ("", "v1", "nodes", "Node"),
    ("", "v1", "namespaces", "Namespace"),
    ("apps", "v1", "deployments", "Deployment"),
    ("apps", "v1", "statefulsets", "StatefulSet"),
    ("batch", "v1", "jobs", "Job"),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
]
_CLUSTER_WIDE = ("nodes", "namespaces", "customresourcedefinitions")


@dataclass
class Fault:
    """What happens to the next requests that match, in place of their answer.

    Attributes:
        method: HTTP method; ``WATCH`` for a GET that watches.
        path: Regular expression that is searched in the path.
        code: Status; 0 resets the connection.
        times: How many requests it meets.
        retry_after: Header of that name.
        message: Of the Status object.
        reason: Of the Status object.
        cut_after: For a watch or a log: it begins well and ends, without a word, after so many
            events or lines.
        event: For a watch: an ERROR event with this status comes instead of the stream.
    """

    method: str
    path: str
    code: int = 500
    times: int = 1
    retry_after: str = ""
    message: str = ""
    reason: str = ""
    cut_after: int | None = None
    event: bool = False


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    token: str
    user_agent: str
    body: Any = field(default=None, repr=False)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away, such as a watch that nobody reads any more, is no error.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class ApiServer:
    """The server; a context manager.

    Args:
        crds: Folders of CustomResourceDefinitions that are installed and validated against.
        tokens: Bearer tokens that are accepted; empty accepts everybody.
        page: Objects of a list's page at most, whatever the client asks for.
        version: Version of Kubernetes.
        kinds: Further kinds without a schema: group, version, plural, kind.

    Attributes:
        controllers: Called in a thread of their own with each event and object.
        requests: What came, the latest last.
        denied: ``verb resource.group/subresource`` that nobody may do, for example
            ``patch inferenceservices.serving.kserve.io`` or ``get pods/log``: requests are answered
            with 403, and reviews of access with no. ``USER: verb …`` denies it to one user alone.
        pod_logs: Lines of each ``pod/container``; a test may append while a client follows.
        pod_pages: Answers of ``pod:port/path``, as bytes or a callable that returns them.
    """

    def __init__(
        self,
        crds: Sequence[Path] = (),
        *,
        tokens: Sequence[str] = (),
        page: int = 100,
        version: str = "v1.36.0",
        kinds: Sequence[tuple[str, str, str, str]] = (),
    ) -> None:
        self.store = Store()
        self.tokens = set(tokens)
        self.page = page
        self.version = version
        self.issuer = "https://kubernetes.default.svc"
        self.user = "system:serviceaccount:default:tester"
        self.requests: list[Seen] = []
        self.faults: list[Fault] = []
        self.denied: set[str] = set()
        self.pod_logs: dict[str, list[str]] = {}
        self.pod_pages: dict[str, bytes | Callable[[], bytes]] = {}
        self.resources = [
            Resource(*names, namespaced=names[2] not in _CLUSTER_WIDE)
            for names in (*_BUILT_IN, *kinds)
        ]
        self.stopping = False
        self.crd_specs: dict[str, dict[str, Any]] = {}
        for folder in crds:
            for crd in read_crds(folder):
                self.install(crd)
        self._server = _Server(("127.0.0.1", 0), handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # The default looks half a second apart whether it is to stop.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping = True
        with self.store.changed:
            self.store.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Serve https from now on."""
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = self.url.replace("http:", "https:")

    @property
    def controllers(self) -> list[Callable[[str, dict[str, Any]], None]]:
        return self.store.controllers

    def kubeconfig(self, path: Path, *, token: str = "", namespace: str = "") -> Path:
        """Write a kubeconfig that points here."""
        context = {"cluster": "test", "user": "test"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [
                {
                    "name": "test",
                    "context": context | ({"namespace": namespace} if namespace else {}),
                }
            ],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": token} if token else {}}],
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def install(self, crd: dict[str, Any]) -> None:
        """Install a CustomResourceDefinition: its versions are served and validated."""
        spec = crd["spec"]
        for version in spec["versions"]:
            if version.get("served", True):
                names = spec["names"]
                self.resources.append(
                    Resource(
                        spec["group"], version["name"], names["plural"], names["kind"],
                        spec["scope"] == "Namespaced", schema_of(crd, version["name"]) or None,
                    )
                )  # fmt: skip
        shown = copy.deepcopy({k: crd[k] for k in ("apiVersion", "kind", "metadata")})
        stored = [v["name"] for v in spec["versions"] if v.get("storage")]
        shown["status"] = {"storedVersions": stored}
        # Its megabytes of schemas are shown to who reads it, and not copied with each change.
        self.crd_specs[crd["metadata"]["name"]] = spec
        self.put(shown)

    def put(
        self, document: dict[str, Any], *, manager: str = "kubectl", namespace: str = "default"
    ) -> dict[str, Any]:
        """Make or replace an object, as another writer does."""
        resource = self.resource_of(document)
        at = document["metadata"].get("namespace", namespace)
        return self.store.write(resource, at, document, manager)

    def merge(
        self, document: dict[str, Any], *, manager: str = "kubectl", namespace: str = "default"
    ) -> dict[str, Any]:
        """Change some fields of an object, as another writer's merge patch does."""
        resource = self.resource_of(document)
        at = document["metadata"].get("namespace", namespace)
        with self.store.changed:
            live = self.store.read(resource, at, document["metadata"]["name"])
            return self.store.write(resource, at, merged(live, document), manager)

    def set_status(
        self, item: dict[str, Any], status: dict[str, Any], *, manager: str = "controller"
    ) -> None:
        """Set the status of an object, as its controller does; nothing where it is gone."""
        resource = self.resource_of(item)
        at, name = item["metadata"].get("namespace", "default"), item["metadata"]["name"]
        with self.store.changed:
            live = self.store.objects.get(resource.key(at, name))
            if live is not None:
                changed = copy.deepcopy(live) | {"status": status}
                self.store.write(resource, at, changed, manager, "status")

    def read(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """Return an object as it is kept."""
        resource = next(r for r in self.resources if r.kind == kind)
        found = self.store.objects.get(resource.key(namespace, name))
        return copy.deepcopy(found)

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object and what it owns."""
        self.store.delete(next(r for r in self.resources if r.kind == kind), namespace, name)

    def fail(self, method: str, path: str, code: int = 500, **more: Any) -> None:
        """Let the next request that matches fail, see `Fault`."""
        self.faults.append(Fault(method, path, code, **more))

    def cut_watch(self, path: str, after: int, times: int = 1) -> None:
        """Let the next watch end without a word after so many events."""
        self.faults.append(Fault("WATCH", path, times=times, cut_after=after))

    def asked(self, method: str, path: str) -> list[Seen]:
        """Return the requests that came and match."""
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def resource_of(self, document: dict[str, Any]) -> Resource:
        """Return where a document's kind is served."""
        version, kind = document["apiVersion"], document["kind"]
        for resource in self.resources:
            if (resource.api_version, resource.kind) == (version, kind):
                return resource
        raise LookupError(f"no {kind} of {version}: give it in `kinds` or `crds`")

    def take_fault(self, method: str, path: str, watching: bool) -> Fault | None:
        """Return the fault that a request meets."""
        for fault in self.faults:
            names = ("WATCH", "GET") if watching else (method,)
            if fault.method in names and re.search(fault.path, path):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    def account_token(self, namespace: str, name: str, audiences: list[str]) -> str:
        """Return a service account's token, as GKE's API server issues it but for its signature."""
        claims = {
            "iss": self.issuer,
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "aud": audiences or [self.issuer],
        }
        middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"e30.{middle}.signature"

    def allows(self, user: str, verb: str, what: str) -> bool:
        """Return whether a user may do something, see `denied`."""
        return f"{verb} {what}" not in self.denied and f"{user}: {verb} {what}" not in self.denied

    def demand(self, verb: str, resource: Resource, namespace: str, name: str, sub: str) -> None:
        """Refuse what the user may not do, in Kubernetes' words."""
        what = resource.full + (f"/{sub}" if sub else "")
        if self.allows(self.user, verb, what):
            return
        at = f' in the namespace "{namespace}"' if resource.namespaced else " at the cluster scope"
        plural = resource.plural + (f"/{sub}" if sub else "")
        subject = f'{resource.full} "{name}"' if name else resource.full
        raise Refusal(
            403, "Forbidden", f'{subject} is forbidden: User "{self.user}" cannot {verb} resource '
            f'"{plural}" in API group "{resource.group}"{at}',
            name=name, group=resource.group, kind=resource.plural,
        )  # fmt: skip


def merged(live: Any, patch: Any) -> Any:
    """Return an object after a JSON merge patch."""
    if not isinstance(live, dict) or not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = copy.deepcopy(live)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found
