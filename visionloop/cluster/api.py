"""A cluster as its API server shows it: objects, rights, logs, and changes as they happen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from visionloop.cluster.connecting import current_namespace, load_configuration
from visionloop.cluster.discovery import Discovery
from visionloop.cluster.logs import follow
from visionloop.cluster.refusals import Refused
from visionloop.cluster.transport import Patience, Transport
from visionloop.cluster.watching import changes, states
from visionloop.errors import InputError

_PAGE = 500

Objects = list[dict[str, Any]]
Names = list[str]


def connect(*, namespace: str = "", patience: Patience | None = None) -> Cluster:
    """Return the cluster that KUBECONFIG names, that this pod runs in, or that kubectl points at.

    Args:
        namespace: Namespace of what is named without one; empty takes the pod's own, that of
            kubectl's context, or ``default``.
        patience: How often requests are tried.

    Raises:
        VisionloopError: No cluster is configured.
    """
    transport = Transport(load_configuration, patience or Patience())
    return Cluster(transport, namespace or current_namespace())


class Cluster:
    """An API server, and the namespace that is meant where none is named.

    Every method raises `Unreachable` when no answer comes, `Forbidden` when the account lacks the
    right, `NotServed` when the cluster does not know the kind, and `Refused` for other errors.

    Args:
        transport: Sends the requests.
        namespace: The namespace.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self.namespace = namespace
        self.transport = transport
        self._discovery = Discovery(transport)
        self.schema = self._discovery.schema

    def get(
        self, api_version: str, kind: str, name: str, *, namespace: str | None = None
    ) -> dict[str, Any] | None:
        """Return an object, None when there is none of that name.

        Args:
            api_version: For example ``serving.kserve.io/v1beta1``.
            kind: For example ``InferenceService``.
            name: Its name.
            namespace: Its namespace; None takes the cluster's. Ignored for kinds without one.

        Returns:
            The object.
        """
        return self._get(self._path(api_version, kind, namespace, name))

    def list(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Objects:
        """Return all objects of a kind, however many pages they take.

        Args:
            api_version: As in `get`.
            kind: As in `get`.
            namespace: As in `get`.
            label_selector: For example ``app=collector``.
            field_selector: For example ``status.phase=Running``.

        Returns:
            The objects, each with its apiVersion and kind.
        """
        path = self._path(api_version, kind, namespace)
        return self.list_at(path, label_selector, field_selector)[0]

    def list_at(self, path: str, label_selector: str, field_selector: str) -> tuple[Objects, str]:
        """Return the objects under a path, and the resource version to watch from; see `list`."""
        query = _selectors(label_selector, field_selector) | {"limit": str(_PAGE)}
        items: Objects = []
        following = ""
        while True:
            asked = query | ({"continue": following} if following else {})
            try:
                page = self._json("GET", path, query=asked)
            except Refused as error:
                if error.status != 410 or not following:
                    raise
                # The pages expired while they were read: one that is not paged cannot.
                query.pop("limit", None)
                items, following = [], ""
                continue
            # Items of a list carry neither kind nor apiVersion: the list says them once.
            kind = str(page.get("kind", "")).removesuffix("List")
            named = {"apiVersion": page.get("apiVersion", ""), "kind": kind}
            items += [named | item for item in page.get("items") or []]
            metadata = page.get("metadata") or {}
            following = str(metadata.get("continue") or "")
            if not following:
                return items, str(metadata.get("resourceVersion") or "")

    def apply(
        self,
        document: Mapping[str, Any],
        *,
        field_manager: str = "visionloop",
        force: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Make an object as a document says, by server-side apply with strict field validation.

        Args:
            document: With apiVersion, kind and metadata.name. Fields that it leaves out and that
                this manager set before are removed; fields of others are not touched.
            field_manager: Who owns the fields.
            force: Take fields over that another manager owns.
            dry_run: Let the server check everything and keep nothing.

        Returns:
            The object as the server keeps it.

        Raises:
            FieldConflict: Others own fields that the document would change.
            InputError: The server finds a field unknown or invalid; it is named.
        """
        path = self._path_of(document)
        query = {
            "fieldManager": field_manager,
            "fieldValidation": "Strict",
            "force": "true" if force else "false",
        } | ({"dryRun": "All"} if dry_run else {})
        found: dict[str, Any] = json.loads(self.transport.apply(path, query, document))
        return found

    def delete(
        self, api_version: str, kind: str, name: str, *, namespace: str | None = None
    ) -> bool:
        """Delete an object and, in the background, what it owns.

        Args:
            api_version: As in `get`.
            kind: As in `get`.
            name: As in `get`.
            namespace: As in `get`.

        Returns:
            Whether it was there.
        """
        path = self._path(api_version, kind, namespace, name)
        try:
            self.transport.request("DELETE", path, query={"propagationPolicy": "Background"})
        except Refused as error:
            if error.status != 404:
                raise
            return False
        return True

    def watch(
        self,
        api_version: str,
        kind: str,
        name: str,
        *,
        namespace: str | None = None,
        timeout_s: float,
    ) -> Iterator[dict[str, Any] | None]:
        """Yield every new state of one object, None while it does not exist.

        The first state comes at once. What the server or the network interrupts goes on where it
        was; nothing is asked in intervals.

        Args:
            api_version: As in `get`.
            kind: As in `get`.
            name: As in `get`.
            namespace: As in `get`.
            timeout_s: Seconds after which the iterator ends.
        """
        path = self._path(api_version, kind, namespace)
        yield from states(self, path, name, timeout_s=timeout_s)

    def watch_list(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what happens to objects, those that are there first.

        Args:
            api_version: As in `get`.
            kind: As in `get`.
            namespace: As in `get`.
            label_selector: As in `list`.
            field_selector: As in `list`.
            timeout_s: As in `watch`.

        Yields:
            ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object.
        """
        yield from changes(
            self,
            self._path(api_version, kind, namespace),
            label_selector=label_selector,
            field_selector=field_selector,
            timeout_s=timeout_s,
        )

    def logs(
        self,
        pod: str,
        *,
        container: str = "",
        namespace: str | None = None,
        tail_lines: int = 50,
        previous: bool = False,
    ) -> str:
        """Return the last lines that a container wrote.

        Args:
            pod: Name of the pod.
            container: Its container; may be empty where the pod has one.
            namespace: As in `get`.
            tail_lines: How many lines.
            previous: Those of the container that ran before the last restart.

        Returns:
            The lines.
        """
        query = {"tailLines": str(tail_lines)}
        query |= {"container": container} if container else {}
        query |= {"previous": "true"} if previous else {}
        path = self._path("v1", "Pod", namespace, pod)
        return self.transport.request("GET", f"{path}/log", query=query).decode(errors="replace")

    def follow_logs(
        self, pod: str, *, container: str = "", namespace: str | None = None, timeout_s: float
    ) -> Iterator[str]:
        """Yield the lines of a container as it writes them, from its start, until it has ended.

        Args:
            pod: Name of the pod; its container need not have started.
            container: As in `logs`.
            namespace: As in `get`.
            timeout_s: Seconds after which the iterator ends in any case.
        """
        path = self._path("v1", "Pod", namespace, pod)
        states = self.watch("v1", "Pod", pod, namespace=namespace, timeout_s=timeout_s)
        yield from follow(self.transport, path, states, container=container, timeout_s=timeout_s)

    def proxy_get(
        self,
        pod: str,
        port: int | str,
        path: str,
        *,
        namespace: str | None = None,
        timeout_s: float = 5.0,
    ) -> bytes:
        """GET a page of a pod through the API server; asked once.

        Args:
            pod: Name of the pod.
            port: Its port.
            path: Path of the page.
            namespace: As in `get`.
            timeout_s: Seconds of silence after which the request is given up.

        Returns:
            The page.
        """
        at = self._path("v1", "Pod", namespace, f"{pod}:{port}")
        return self.transport.request(
            "GET", f"{at}/proxy/{path.lstrip('/')}", timeout_s=timeout_s, attempts=1
        )

    def versions(self, group: str) -> Names:
        """Return the versions that the cluster serves of a group, the preferred one first.

        Args:
            group: For example ``serving.kserve.io``; empty for the core group.

        Returns:
            For example ``["v1beta1", "v1alpha1"]``; empty when the group is not installed.
        """
        found = self._get(f"/apis/{group}" if group else "/api")
        served = (found or {}).get("versions") or []
        if not group:
            return [str(version) for version in served]
        preferred = ((found or {}).get("preferredVersion") or {}).get("version")
        names = [str(version["version"]) for version in served]
        return sorted(names, key=lambda version: version != preferred)

    def crd(self, name: str) -> dict[str, Any] | None:
        """Return a CustomResourceDefinition, None when it is not installed.

        Args:
            name: For example ``inferenceservices.serving.kserve.io``.
        """
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        return self._get(f"{path}/{name}")

    def server_version(self) -> str:
        """Return the version of Kubernetes, for example ``v1.36.0``."""
        return str(self._json("GET", "/version")["gitVersion"])

    def can(
        self,
        verb: str,
        resource: str,
        *,
        group: str = "",
        namespace: str | None = None,
        subresource: str = "",
        name: str = "",
        account: str = "",
    ) -> bool:
        """Return whether an account may do something.

        Args:
            verb: For example ``patch``.
            resource: In the plural, for example ``inferenceservices``.
            group: API group.
            namespace: None takes the cluster's; empty asks for the whole cluster.
            subresource: For example ``log``.
            name: Of one object; empty asks for all.
            account: Name of a service account of the cluster's namespace; empty asks for the
                caller, which needs no right. For another one the right to create
                SubjectAccessReviews is needed.
        """
        at = self.namespace if namespace is None else namespace
        asked = {
            "verb": verb, "resource": resource, "group": group,
            "namespace": at, "subresource": subresource, "name": name,
        }  # fmt: skip
        spec: dict[str, Any] = {"resourceAttributes": {k: v for k, v in asked.items() if v}}
        kind = "SelfSubjectAccessReview"
        if account:
            kind = "SubjectAccessReview"
            spec["user"] = f"system:serviceaccount:{self.namespace}:{account}"
            everybody = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}"]
            spec["groups"] = [*everybody, "system:authenticated"]
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        path = f"/apis/authorization.k8s.io/v1/{kind.lower()}s"
        answer = self._json("POST", path, body=json.dumps(body).encode())
        return bool(answer["status"].get("allowed"))

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.transport.request(method, path, **options))
        return found

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            return self._json("GET", path)
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def _path_of(self, document: Mapping[str, Any]) -> str:
        metadata = document.get("metadata") or {}
        version, kind, name = document.get("apiVersion"), document.get("kind"), metadata.get("name")
        if not version or not kind or not name:
            raise InputError(
                "a document needs apiVersion, kind and metadata.name to be applied",
                where=str(kind or "document"),
                remedy="Add what is missing",
            )
        return self._path(str(version), str(kind), metadata.get("namespace"), str(name))

    def _path(self, api_version: str, kind: str, namespace: str | None, name: str = "") -> str:
        return self._discovery.path(api_version, kind, namespace or self.namespace, name)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in given.items() if value}
