"""Where a cluster serves a kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from visionloop.cluster.refusals import NotServed, Refused
from visionloop.cluster.transport import Transport


@dataclass(frozen=True)
class Resource:
    """One resource of an API version.

    Attributes:
        plural: Its name in a path.
        namespaced: Whether its objects lie in namespaces.
    """

    plural: str
    namespaced: bool


class Discovery:
    """Finds the path of a kind; what a version serves is asked for once.

    Args:
        transport: Sends the requests.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._resources: dict[str, dict[str, Resource]] = {}

    def path(self, api_version: str, kind: str, namespace: str, name: str = "") -> str:
        """Return the path of a kind's objects, or of one of them.

        Args:
            api_version: For example ``serving.kserve.io/v1beta1``.
            kind: For example ``InferenceService``.
            namespace: Left out where the kind has none.
            name: Name of an object.

        Raises:
            NotServed: The cluster does not know the kind.
        """
        resource = self._resource(api_version, kind)
        path = _root(api_version)
        if resource.namespaced:
            path += f"/namespaces/{quote(namespace, safe='')}"
        return f"{path}/{resource.plural}" + (f"/{quote(name, safe=':')}" if name else "")

    def schema(self, api_version: str, kind: str) -> dict[str, Any] | None:
        """Return the schema of a kind, as the server publishes it to everybody who signed in.

        It says what the kind's definition does, and needs no right to read definitions, which
        belong to no namespace.

        Args:
            api_version: For example ``serving.kserve.io/v1beta1``.
            kind: For example ``InferenceService``.

        Returns:
            An OpenAPI v3 schema; None where the version is not served or the kind not in it.
        """
        group, _, version = api_version.rpartition("/")
        wanted = {"group": group, "version": version, "kind": kind}
        try:
            page = json.loads(self._transport.request("GET", f"/openapi/v3{_root(api_version)}"))
        except Refused as error:
            if error.status != 404:
                raise
            return None
        schemas: dict[str, dict[str, Any]] = (page.get("components") or {}).get("schemas") or {}
        for schema in schemas.values():
            if wanted in schema.get("x-kubernetes-group-version-kind", ()):
                return schema
        return None

    def _resource(self, api_version: str, kind: str) -> Resource:
        if kind not in self._resources.get(api_version, {}):
            # Asked again for a kind that is not there: it may have been installed meanwhile.
            self._resources[api_version] = {
                str(served["kind"]): Resource(str(served["name"]), bool(served["namespaced"]))
                for served in self._served(api_version)
                if "/" not in served["name"]
            }
        found = self._resources[api_version].get(kind)
        if found is None:
            raise NotServed(
                f"The cluster does not know {kind} of {api_version}",
                status=404,
                where=self._transport.host,
                remedy="Install what brings it, or its version; `visionloop doctor --cluster` says "
                "which are supported",
            )
        return found

    def _served(self, api_version: str) -> list[dict[str, Any]]:
        try:
            answer = json.loads(self._transport.request("GET", _root(api_version)))
        except Refused as error:
            if error.status != 404:
                raise
            return []
        return answer.get("resources") or []


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
