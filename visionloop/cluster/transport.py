"""Requests to an API server: credentials that are renewed, time limits, and what is tried again."""

from __future__ import annotations

import itertools
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from visionloop.cluster.refusals import FieldConflict, Refused, Unreachable, refusal

if TYPE_CHECKING:
    import urllib3

# Worth another try: the server is overloaded, restarting or its storage changes its leader.
PASSING = frozenset({429, 500, 502, 503, 504})
_CONNECT_SECONDS = 10.0
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Patience:
    """How often and how long a request is tried.

    Attributes:
        attempts: Requests at most, the first included.
        first_s: Seconds before the second one; doubled each time.
        most_s: Seconds between two at most; a ``Retry-After`` is honoured up to twice that.
    """

    attempts: int = 6
    first_s: float = 0.5
    most_s: float = 30.0

    def pause_s(self, attempt: int, retry_after: str | None = None) -> float:
        """Seconds to wait after an attempt that failed.

        Args:
            attempt: Its number, from 0 on.
            retry_after: The header of that name, when there was one.

        Returns:
            The seconds.
        """
        if retry_after and retry_after.strip().isdigit():
            return min(float(retry_after), 2 * self.most_s)
        # Spread, so that the tasks of a round that were cut off together do not come back together.
        return min(self.first_s * 2.0 ** min(attempt, 30), self.most_s) * random.uniform(0.5, 1.0)


class Transport:
    """Sends requests with the credentials that a loader gives.

    Args:
        load: Returns a `kubernetes.client.Configuration` with fresh credentials.
        patience: How often requests are tried.
    """

    def __init__(self, load: Callable[[], Any], patience: Patience) -> None:
        self.patience = patience
        self._load = load
        self._lock = threading.Lock()
        self._generation = 0
        self._renew()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float = 30.0,
        attempts: int | None = None,
        idempotent: bool = True,
    ) -> bytes:
        """Send a request and read its whole answer.

        Args:
            method: HTTP method.
            path: Path at the server.
            query: Query parameters.
            body: What is sent.
            content_type: Its type.
            timeout_s: Seconds of silence after which the request is given up.
            attempts: Instead of the patience's.
            idempotent: Whether the request may be sent again when nobody knows if it was carried
                out. One that was turned away with 429 is sent again in any case.

        Returns:
            The body of the answer.

        Raises:
            Refused: The server answered with an error, see `visionloop.cluster.refusals`.
            InputError: The server finds what was sent invalid.
            Unreachable: There was no answer.
        """
        import urllib3

        remaining = attempts or self.patience.attempts
        for attempt in itertools.count():
            remaining -= 1
            try:
                answer = self.open(
                    method, path, query=query, body=body, content_type=content_type,
                    timeout_s=timeout_s,
                )  # fmt: skip
                try:
                    data = bytes(answer.data)
                finally:
                    answer.release_conn()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if not remaining or not idempotent or is_untrusted(error):
                    raise unreachable(error, self.host) from error
                time.sleep(self.patience.pause_s(attempt))
                continue
            if answer.status < 400:
                return data
            refused = refusal(answer.status, data, method=method, path=path)
            again = answer.status == 429 or (idempotent and answer.status in PASSING)
            if not remaining or not again or not isinstance(refused, Refused):
                raise refused
            time.sleep(self.patience.pause_s(attempt, answer.headers.get("Retry-After")))
        return b""  # pragma: no cover - the loop has no end of its own

    def apply(self, path: str, query: Mapping[str, str], document: Mapping[str, Any]) -> bytes:
        """Send a server-side apply; again when another write came in between.

        Args:
            path: Path of the object.
            query: Query parameters.
            document: What is applied.

        Returns:
            The object as the server keeps it.
        """
        body = json.dumps(document).encode()
        remaining = self.patience.attempts
        while True:
            remaining -= 1
            try:
                return self.request("PATCH", path, query=query, body=body, content_type=_APPLY)
            except FieldConflict:
                raise
            except Refused as error:
                # The object changed meanwhile, or two applies made it at once.
                if error.status != 409 or not remaining:
                    raise
                time.sleep(self.patience.pause_s(self.patience.attempts - remaining - 1))

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, again when its credentials had expired, and leave its answer unread.

        Args:
            method: HTTP method.
            path: Path at the server.
            query: Query parameters.
            body: What is sent.
            content_type: Its type.
            timeout_s: Seconds of silence after which reading is given up.

        Returns:
            The answer, whatever its status.
        """
        generation = self._generation
        answer = self._send(method, path, query, body, content_type, timeout_s)
        if answer.status == 401:
            # Tokens of pods and of login plugins live for an hour or less.
            answer.drain_conn()
            with self._lock:
                if generation == self._generation:
                    self._renew()
            answer = self._send(method, path, query, body, content_type, timeout_s)
        return answer

    def _renew(self) -> None:
        from kubernetes.client.rest import RESTClientObject

        self._configuration = self._load()
        self.host = str(self._configuration.host).rstrip("/")
        # kubernetes' own pool: certificates, proxy and server name are as its configuration says.
        self._pool = RESTClientObject(self._configuration).pool_manager
        self._generation += 1

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        timeout_s: float,
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        headers = {"Accept": "application/json", "User-Agent": "visionloop"}
        if body is not None:
            headers["Content-Type"] = content_type
        token = self._configuration.get_api_key_with_prefix("authorization")
        if token:
            headers["Authorization"] = token
        url = f"{self.host}{path}" + (f"?{urlencode(query)}" if query else "")
        answer: urllib3.BaseHTTPResponse = self._pool.request(
            method,
            url,
            body=body,
            headers=headers,
            preload_content=False,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, timeout_s), read=timeout_s),
        )
        return answer


def is_untrusted(error: Exception) -> bool:
    """Return whether a connection failed because of the server's certificate.

    Args:
        error: What the connection broke with.
    """
    return any(isinstance(reason, ssl.SSLCertVerificationError) for reason in error.args)


def unreachable(error: Exception, host: str) -> Unreachable:
    """Return the error that says that a server does not answer.

    Args:
        error: What the connection broke with.
        host: Address of the server.
    """
    if is_untrusted(error):
        return Unreachable(
            f"The cluster's certificate is not trusted: {error.args[0]}",
            where=host,
            remedy="Fetch its credentials again: its certificate authority may have changed",
        )
    return Unreachable(
        f"The cluster does not answer: {type(error).__name__}",
        where=host,
        remedy="Check the network and `kubectl cluster-info`",
    )
