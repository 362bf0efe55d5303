"""What a Kubeflow Pipelines server refuses, in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from visionloop.errors import InputError, VisionloopError

# What a server answers when it is asked too often, restarts, or a proxy before it has lost it.
PASSING = (408, 429, 500, 502, 503, 504)
# A server may ask for any pause; nobody waits longer than this for it.
LONGEST_PAUSE_S = 60


class ServerError(VisionloopError):
    """The server refused, failed, or did not answer.

    Args:
        what: One sentence that names the problem.
        where: Address of the server.
        remedy: What to do.
        status: HTTP status; 0 where there was no answer.
        told: The server's own words.
        pause_s: Seconds after which it asked to be asked again.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        remedy: str = "",
        status: int = 0,
        told: str = "",
        pause_s: float = 0.0,
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status, self.told, self.pause_s = status, told, pause_s

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later, and what it asked for may have been done."""
        return not self.status or self.status in PASSING

    @property
    def exists(self) -> bool:
        """Whether something of that name is there already."""
        # Uploads answer 500 with these words where other paths answer 409.
        return self.status == 409 or "already exist" in self.told.lower()


class Untrusted(ServerError):
    """The server's certificate is not signed by an authority that is trusted here."""

    @property
    def passing(self) -> bool:
        """Never: the certificate stays what it is."""
        return False


@contextmanager
def plain_errors(where: str) -> Iterator[None]:
    """Turn what kfp's client raises into our errors.

    Args:
        where: Address of the server, to name it.

    Raises:
        ServerError: The server refused or did not answer.
        InputError: It does not take what it was given.
    """
    import kfp_server_api
    import urllib3

    where = where or "the cluster's Kubeflow Pipelines"
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise _answered(error, where) from error
    except urllib3.exceptions.MaxRetryError as error:
        if isinstance(error.reason, urllib3.exceptions.SSLError):
            raise _untrusted(str(error.reason), where) from error
        raise _silent(where) from error
    except (urllib3.exceptions.HTTPError, TimeoutError, ConnectionError) as error:
        raise _silent(where) from error


def words_of(body: Any) -> str:
    """Return what an answer's body says.

    Args:
        body: Text or bytes: JSON with ``message`` or ``error_message``, or anything else.

    Returns:
        One line of at most 400 characters.
    """
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        text = str(parsed.get("message") or parsed.get("error_message") or parsed.get("error"))
    return " ".join(text.split())[:400]


def not_signed_in(shown: str, where: str) -> ServerError:
    """Return the error of a server that does not accept who asks.

    Args:
        shown: Words for what was shown to it, empty for nothing.
        where: Address of the server.
    """
    if shown:
        return ServerError(
            f"The server does not accept {shown}",
            where=where,
            remedy="It may have expired, or be meant for another audience: get a new one",
            status=401,
        )
    return ServerError(
        "The server wants to know who asks",
        where=where,
        remedy="Set VISIONLOOP_KFP_TOKEN, VISIONLOOP_KFP_TOKEN_FILE or VISIONLOOP_KFP_COOKIE",
        status=401,
    )


def _answered(error: Any, where: str) -> VisionloopError:
    status, told = int(error.status or 0), words_of(error.body)
    reason = told or str(error.reason or "")
    pause = str((error.headers or {}).get("Retry-After") or "")
    pause_s = float(min(int(pause), LONGEST_PAUSE_S)) if pause.isdigit() else 0.0

    def refusal(what: str, remedy: str) -> ServerError:
        return ServerError(
            what, where=where, remedy=remedy, status=status, told=told, pause_s=pause_s
        )

    match status:
        case 0:
            return _untrusted(reason, where)
        case 400:
            return InputError(f"The server does not take it: {reason}", where=where)
        case 403:
            return refusal(
                f"The server refuses access: {reason}",
                "Give this account the right, in the namespace that --namespace names; another "
                "one signs in with VISIONLOOP_KFP_TOKEN",
            )
        case 404 if told:
            return refusal(f"The server does not know it: {reason}", "Check the name or id")
        case 404:
            return refusal(
                "The server does not know that path",
                "Check --host: it ends before /apis, for example http://localhost:8080/pipeline",
            )
        case _:
            return refusal(
                f"The server answered {status}: {reason}",
                "Try again later; the log of ml-pipeline's API server says more",
            )


def _silent(where: str) -> ServerError:
    return ServerError(
        "The Kubeflow Pipelines API cannot be reached",
        where=where,
        remedy="Check --host, or forward it: kubectl -n kubeflow port-forward "
        "svc/ml-pipeline-ui 8080:80",
    )


def _untrusted(reason: str, where: str) -> ServerError:
    return Untrusted(
        f"The server's certificate is not trusted: {reason[:200]}",
        where=where,
        remedy="Name the authority's certificate with --ca-file or VISIONLOOP_KFP_CA_FILE",
    )
