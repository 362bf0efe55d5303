"""Who may post events: whoever knows a token, or has a certificate of a given authority.

KServe's logger can send neither a header nor a certificate of its own. It is a Go program, and Go
sends the name and password of an address as Basic authentication: ``http://logger:TOKEN@host:port``
as the logger's URL is enough. So a token counts as ``Authorization: Bearer TOKEN`` and as the
password of ``Authorization: Basic``.

Files are read again when they change, so that a mounted Secret can be rotated while events come: a
token file may hold the old and the new token, one a line.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import ssl
import time
from pathlib import Path

from visionloop.errors import InputError
from visionloop.progress import log

_LOOK_SECONDS = 1.0
_SHORTEST = 16


class _Watched:
    """Files that are looked at once a second, at most."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._state()
        self._looked = time.monotonic()

    def changed(self) -> bool:
        """Return whether one of them is another than when this was last true."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        state = self._state()
        changed = state != self._seen
        self._seen = state
        return changed

    def _state(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                state = os.stat(path)
                found.append((state.st_ino, state.st_mtime_ns, state.st_size))
            except OSError:
                found.append(None)
        return found


class Tokens:
    """The tokens of a file, one a line.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be read, holds no token, or one that is too short.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._watched = _Watched(self._path)
        self._digests = self._read()

    def know(self, authorization: str) -> bool:
        """Return whether a header's value holds one of the tokens."""
        if self._watched.changed():
            try:
                self._digests = self._read()
            except InputError as error:
                log(f"collect: {error}; the tokens that it held stay valid")
        given = _digest(_token(authorization))
        # Each is compared, and in constant time: how long it takes tells nothing of them.
        return any([hmac.compare_digest(given, digest) for digest in self._digests])

    def _read(self) -> list[bytes]:
        try:
            lines = self._path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the tokens cannot be read: {error}",
                where=str(self._path),
                remedy="Name a file with a token a line, as from: openssl rand -hex 32",
            ) from error
        if not lines or any(len(line) < _SHORTEST for line in lines):
            raise InputError(
                f"a token of at least {_SHORTEST} characters a line is wanted",
                where=str(self._path),
                remedy="Make one with: openssl rand -hex 32",
            )
        return [_digest(line) for line in lines]


def _token(authorization: str) -> str:
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            held = base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace")
        except ValueError:
            return ""
        return held.partition(":")[2]
    return ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


class Certificates:
    """Our certificate, and the authority of our clients' where they need one.

    Each handshake takes the files as they are: a certificate manager replaces them in place.

    Args:
        certificate: PEM file with our certificate, and those between it and its authority.
        key: PEM file with its key; empty where it is in the same file.
        clients: PEM file with the authorities whose certificates clients may have; empty: none is
            asked for.

    Raises:
        InputError: A file cannot be used.
    """

    def __init__(self, certificate: str, key: str = "", clients: str = "") -> None:
        self._files = (certificate, key, clients)
        self._watched = _Watched(*(Path(name) for name in self._files if name))
        self._newest = self._make()
        # The context of the listener only hands each handshake over to the newest one.
        self.context = self._make()
        self.context.sni_callback = self._hand_over

    def _hand_over(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        if self._watched.changed():
            try:
                self._newest = self._make()
            except InputError as error:
                log(f"collect: {error}; the certificates that were read before stay")
        connection.context = self._newest

    def _make(self) -> ssl.SSLContext:
        certificate, key, clients = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key or None)
            if clients:
                context.load_verify_locations(clients)
                # Asked for, not demanded: a probe of the kubelet has none, and whoever posts
                # without one is told so (401), and counted.
                context.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                f"the certificates cannot be used: {error}",
                where=", ".join(name for name in self._files if name),
                remedy="Name PEM files: a certificate, its key, and the clients' authority",
            ) from error
        # With session tickets a client could come back without its certificate being looked at.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        return context


class Access:
    """Decides who may post.

    Args:
        token_file: File of tokens; empty: none is asked for.
        by_certificate: Whether a client certificate is enough.
    """

    def __init__(self, token_file: str = "", *, by_certificate: bool = False) -> None:
        self._tokens = Tokens(token_file) if token_file else None
        self._by_certificate = by_certificate

    def grants(self, authorization: str, *, certified: bool) -> bool:
        """Return whether an event is taken.

        Args:
            authorization: Value of the header; empty where there is none.
            certified: Whether the connection has a client certificate that was verified.
        """
        if self._by_certificate and certified:
            return True
        if self._tokens:
            return self._tokens.know(authorization)
        return not self._by_certificate
