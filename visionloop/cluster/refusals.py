"""What an API server refuses, as errors that name the owner, the right or the field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from visionloop.errors import InputError, VisionloopError

_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" '
    r'in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]*)")?'
)
# What server-side apply answers, with status 500, to a field that is unknown or of a wrong type.
_UNTYPED = re.compile(
    r"failed to create typed (?:patch|live) object \([^)]*\): (?:errors:\s*)?(?P<problem>.*)",
    re.DOTALL,
)


class Refused(VisionloopError):
    """The API server answered with an error.

    Args:
        what: As in `VisionloopError`.
        status: HTTP status.
        reason: The machine-readable word of the server's Status object, for example ``Expired``.
        where: As in `VisionloopError`.
        remedy: As in `VisionloopError`.
    """

    def __init__(
        self, what: str, *, status: int, reason: str = "", where: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status, self.reason = status, reason


class FieldConflict(Refused):
    """Somebody else owns a field that was to be changed.

    Attributes:
        conflicts: Owner and field of each, for example ``("argocd", ".spec.predictor")``.
    """

    def __init__(self, conflicts: list[tuple[str, str]], *, where: str) -> None:
        owners = sorted({owner for owner, _ in conflicts})
        fields = "; ".join(f"{owner} owns {field}" for owner, field in conflicts)
        super().__init__(
            f"Another writer owns what was to be changed: {fields}",
            status=409,
            reason="Conflict",
            where=where,
            remedy=f"Leave the field to {' and '.join(owners)}, or take it out of what is applied "
            "there: two writers of one field would undo each other",
        )
        self.conflicts = conflicts


class Forbidden(Refused):
    """The account lacks a right, or an admission rule of the cluster refuses the object.

    Attributes:
        right: Verb and resource that lack, for example ``patch pods``; empty for an admission rule.
    """

    def __init__(self, what: str, *, reason: str, where: str, remedy: str, right: str = "") -> None:
        super().__init__(what, status=403, reason=reason, where=where, remedy=remedy)
        self.right = right


class NotServed(Refused):
    """The cluster does not know a kind or its version."""


class Unreachable(VisionloopError):
    """No answer came, however often it was asked for."""


def refusal(status: int, body: bytes, *, method: str, path: str) -> VisionloopError:
    """Turn an error answer into what is raised.

    Args:
        status: HTTP status.
        body: What the server answered; a Status object where Kubernetes itself answers.
        method: HTTP method of the request.
        path: Its path.

    Returns:
        `FieldConflict`, `Forbidden`, an `InputError` for what the server finds invalid, or a plain
        `Refused`.
    """
    answer = _status_object(body)
    message = str(answer.get("message") or body[:400].decode(errors="replace")).strip()
    reason = str(answer.get("reason") or "")
    details = answer.get("details") or {}
    where = f"{method} {path}"
    conflicts = [
        (_owner(str(cause.get("message", ""))), str(cause.get("field", "")))
        for cause in details.get("causes") or []
        if cause.get("reason") == "FieldManagerConflict"
    ]
    if status == 409 and conflicts:
        return FieldConflict(conflicts, where=where)
    untyped = _UNTYPED.search(message)
    if status in (400, 422) or untyped:
        return _invalid(message, details, untyped, where=where)
    if status == 403:
        return _forbidden(message, reason, where=where)
    what, remedy = f"The cluster answers {status}: {message or reason}", ""
    match status:
        case 401:
            what = "The cluster does not accept the credentials"
            remedy = "Log in again, and see whether `kubectl auth whoami` answers"
        case 404:
            remedy = "Check the name and the namespace"
        case 429 | 500 | 502 | 503 | 504:
            remedy = (
                "Try again; if it stays, look at the API server's health: kubectl get --raw /readyz"
            )
    return Refused(what, status=status, reason=reason, where=where, remedy=remedy)


def _status_object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _owner(message: str) -> str:
    """The manager's name out of ``conflict with "NAME" with subresource … using …``."""
    found = re.search(r'conflict with "([^"]*)"', message)
    return found.group(1) if found else message


def _invalid(
    message: str, details: Mapping[str, Any], untyped: re.Match[str] | None, *, where: str
) -> InputError:
    causes = [
        f"{cause['field']}: {cause.get('message', '')}"
        for cause in details.get("causes") or []
        if cause.get("field")
    ]
    problem = "; ".join(causes) or (untyped["problem"].strip() if untyped else message)
    return InputError(
        f"The cluster refuses the object: {problem}",
        where=where,
        remedy="Correct that field; if the cluster's version does not know it, use one that does",
    )


def _forbidden(message: str, reason: str, *, where: str) -> Forbidden:
    right = _FORBIDDEN.search(message)
    if right is None:
        # A quota, pod security or an admission webhook: the server's words name the rule.
        return Forbidden(
            f"The cluster does not allow it: {message}",
            reason=reason,
            where=where,
            remedy="Change the object or the rule that refuses it",
        )
    resource = right["resource"] + (f".{right['group']}" if right["group"] else "")
    scope = f"in namespace {right['namespace']}" if right["namespace"] else "in the whole cluster"
    return Forbidden(
        f"{right['user']} may not {right['verb']} {resource} {scope}",
        reason=reason,
        where=where,
        remedy=f"Give it that right with a {'Role' if right['namespace'] else 'ClusterRole'}: verb "
        f'{right["verb"]}, resource {right["resource"]}, API group "{right["group"]}"',
        right=f"{right['verb']} {resource}",
    )
