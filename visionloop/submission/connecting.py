"""Finds a Kubeflow Pipelines server and signs in to it."""

from __future__ import annotations

import re
import warnings
from contextlib import redirect_stdout
from typing import Any

from visionloop import environment
from visionloop.errors import InputError
from visionloop.submission.access import Access
from visionloop.submission.refusals import plain_errors


def connect(host: str, access: Access) -> Any:
    """Return a client.

    Args:
        host: Address of the API; empty takes ``KF_PIPELINES_ENDPOINT``, else the cluster that this
            process runs in, else the one that kubectl speaks to.
        access: How to sign in.

    Returns:
        A `kfp.Client`, whose requests all go through `Transport`.

    Raises:
        ServerError: It does not answer, or refuses.
        InputError: No server was named and none is found, or its address is none.
    """
    host = host or environment.kfp_endpoint()
    if host and not re.match(r"https?://[^/]", host):
        raise InputError(
            f"{host!r} is no address of a Kubeflow Pipelines API",
            where="--host",
            remedy="Give one that begins with https:// or http://, or a host's name alone",
        )
    if access.token and not host:
        raise InputError(
            "a token was given, and no server to show it to",
            where="--host",
            remedy="Name the server with --host or KF_PIPELINES_ENDPOINT",
        )
    # The client prints what it could not find; the standard output is for results.
    with (
        plain_errors(host),
        warnings.catch_warnings(),
        redirect_stdout(None),
    ):
        warnings.simplefilter("ignore")
        found = _client_class()(host, access)
        found.get_kfp_healthz()
    return found


def _client_class() -> Any:
    from kfp import client

    class Client(client.Client):  # type: ignore[misc]
        def __init__(self, host: str, access: Access) -> None:
            self._host, self._access, self._health = host, access, None
            super().__init__(**({"host": host} if host else {}), **access.options())

        def _load_config(self, *arguments: Any) -> Any:
            self._asked_with = arguments
            return super()._load_config(*arguments)

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            """Ask how the server is, once: kfp's own asks five times with 5 s in between."""
            # kfp's constructor asks this before it makes any other request.
            self._use_our_transport()
            if self._health is None:
                self._health = self._healthz_api.healthz_service_get_healthz()
            return self._health

        def set_user_namespace(self, namespace: str) -> None:
            """Keep the namespace in memory: a pod's file system may be read-only."""
            self._context_setting["namespace"] = namespace

        def text(self, path: str, base: str = "") -> str:
            """Return what the server says on a path that its API does not list.

            Args:
                path: The path with its query.
                base: Another address than the API's, with the same sign-in.
            """
            api = self._healthz_api.api_client
            headers: dict[str, str] = {"Cookie": api.cookie} if api.cookie else {}
            api.update_params_for_auth(headers, [], ["Bearer"])
            return str(api.rest_client.text((base or api.configuration.host) + path, headers))

        def _use_our_transport(self) -> None:
            from visionloop.submission.transport import Transport

            api = self._healthz_api.api_client
            if isinstance(api.rest_client, Transport):
                return
            if not self._host and api.configuration.host == "http://localhost":
                raise InputError(
                    "no Kubeflow Pipelines server was named, and no cluster is configured",
                    where="--host",
                    remedy="Name it with --host or KF_PIPELINES_ENDPOINT, or set KUBECONFIG",
                )
            api.rest_client = Transport(api.configuration, self._renew, shown=self._access.words)

        def _renew(self) -> str:
            """Sign in anew: read the files again, ask the plugin or the proxy again."""
            known = self._healthz_api.api_client.configuration
            with warnings.catch_warnings(), redirect_stdout(None):
                warnings.simplefilter("ignore")
                fresh = super()._load_config(*self._asked_with)
            known.api_key, known.api_key_prefix = fresh.api_key, fresh.api_key_prefix
            known.refresh_api_key_hook = fresh.refresh_api_key_hook
            if "authorization" not in known.api_key:
                return ""
            return str(known.get_api_key_with_prefix("authorization") or "")

    return Client
