"""Asks an image registry for a manifest, by the distribution API that all of them speak."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from visionloop.cli.cluster_checks.registry_logins import login
from visionloop.errors import InputError

_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_SECONDS = 10.0
_NAME = re.compile(r"[a-z0-9]+([._/-]+[a-z0-9]+)*")


@dataclass(frozen=True)
class Reference:
    """Where an image lies.

    Attributes:
        registry: Address of its registry, with the scheme.
        name: Name of its repository.
        version: Tag or digest.
    """

    registry: str
    name: str
    version: str

    @classmethod
    def parse(cls, image: str) -> Reference:
        """Return where an image lies, as container runtimes read its name.

        Args:
            image: For example ``ghcr.io/visionloop/visionloop:0.1.0``.

        Raises:
            InputError: It is no name of an image.
        """
        name, _, digest = image.partition("@")
        host, slash, path = name.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            host, path = "docker.io", name
        path, colon, tag = path.rpartition(":") if ":" in path else (path, "", "latest")
        if not _NAME.fullmatch(path) or (colon and not tag) or re.search(r"\s", image):
            raise InputError(
                "that is no name of an image",
                where=image,
                remedy="Write it as registry/repository:tag, in small letters",
            )
        if host == "docker.io":
            host = "registry-1.docker.io"
            path = path if "/" in path else f"library/{path}"
        local = host.partition(":")[0] in ("localhost", "127.0.0.1")
        return cls(f"{'http' if local else 'https'}://{host}", path, digest or tag)


def manifest_digest(reference: Reference) -> tuple[int, str]:
    """Ask a registry whether it has an image; where it wants a login, with that of this machine.

    Args:
        reference: The image.

    Returns:
        The status of its answer (200: it has; 404: it has not; 401 or 403: it asks for a login; 0:
        there was no answer), and the image's digest or what went wrong.
    """
    url = f"{reference.registry}/v2/{reference.name}/manifests/{reference.version}"
    status, headers, told = _send(url, "HEAD", {"Accept": _MANIFESTS})
    if status == 401:
        challenge = headers.get("www-authenticate", "")
        # What anybody may read needs no password to leave this machine.
        for with_login in (False, True):
            known = login(urlsplit(reference.registry).netloc) if with_login else None
            authorisation = _authorisation(challenge, known, reference.registry)
            if authorisation:
                authorised = {"Accept": _MANIFESTS, "Authorization": authorisation}
                status, headers, told = _send(url, "HEAD", authorised)
            if status not in (401, 403):
                break
    if status == 200:
        return status, headers.get("docker-content-digest", "")
    return status, told


def _authorisation(challenge: str, known: tuple[str, str] | None, registry: str) -> str:
    """Return the header that answers a challenge; empty where there is none."""
    basic = ""
    if known:
        basic = "Basic " + base64.b64encode(":".join(known).encode()).decode()
    if challenge.partition(" ")[0].lower() == "basic":
        return basic
    token = _token(challenge, basic, plain=registry.startswith("http://"))
    return f"Bearer {token}" if token else ""


def _token(challenge: str, basic: str, *, plain: bool) -> str:
    """Return a token, that for anybody where there is no login; empty where none is given."""
    scheme, _, rest = challenge.partition(" ")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = fields.pop("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith(("https://", "http://")):
        return ""
    if basic and not plain and not realm.startswith("https://"):
        return ""
    headers = {"Authorization": basic} if basic else {}
    status, _, body = _send(f"{realm}?{urlencode(fields)}", "GET", headers)
    try:
        answer = json.loads(body) if status == 200 else {}
    except ValueError:
        return ""
    return str(answer.get("token") or answer.get("access_token") or "")


def _send(url: str, method: str, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            found = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, found, answer.read(1 << 20).decode(errors="replace")
    except urllib.error.HTTPError as error:
        found = {name.lower(): value for name, value in error.headers.items()}
        return error.code, found, f"the registry answers {error.code}"
    except OSError as error:
        reason = getattr(error, "reason", error)
        return 0, {}, f"the registry does not answer: {reason}"
