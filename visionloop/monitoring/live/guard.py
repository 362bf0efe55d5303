"""What stands before the live view's pages: who may ask, by which name, and what a browser may do.

A page elsewhere can let a browser's name for this machine point to 127.0.0.1 (DNS rebinding), and
would then read what is meant for this machine alone. So a server that listens here answers to the
names of this machine only. One that listens elsewhere asks for a token instead, which such a page
has not: ``Authorization: Bearer TOKEN``, or as the password of the browser's own question.
"""

from __future__ import annotations

import ipaddress

from visionloop.errors import InputError
from visionloop.serving.access import Access
from visionloop.serving.asgi import App, Message, Receive, Scope, Send, reply

# Pages and their own style, script and pictures; the report is framed, as it holds its own script.
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The report's own policy, in its page, names its script and style by their hashes.
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
)
REPORT_PATH = "/report"
_PLAIN = (b"content-type", b"text/plain; charset=utf-8")
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address.

    Args:
        host: An address, or a name: of names only ``localhost`` is taken for this machine's.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def refuse_open_host(host: str, token_file: str) -> None:
    """Refuse to show a lake to a network without a token.

    Raises:
        InputError: The address is reached from elsewhere, and there is no token.
    """
    if not is_loopback(host) and not token_file:
        raise InputError(
            "everybody who reaches this address would see all images of the lake",
            where=f"--host {host}",
            remedy="Name a file with a token by --token-file (openssl rand -hex 32 > token), or "
            "listen at 127.0.0.1 and use ssh -L or kubectl port-forward",
        )


def name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.rpartition(":")[0] if host.count(":") == 1 else host


class Guard:
    """Lets requests through to the pages, and adds what makes answers safe.

    Args:
        app: The pages.
        access: Who may ask; None where everybody on this machine may.
    """

    def __init__(self, app: App, access: Access | None) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = REPORT_POLICY if scope["path"] == REPORT_PATH else POLICY
                message["headers"] = [
                    *message.get("headers", ()),
                    *_SAFE,
                    (b"content-security-policy", policy.encode()),
                ]
            await send(message)

        if scope["method"] not in ("GET", "HEAD"):
            await reply(safely, 405, b"this view only reads\n", _PLAIN, (b"allow", b"GET, HEAD"))
        elif scope["path"] == "/healthz":
            await self._app(scope, receive, safely)
        elif self._access is None and not is_loopback(name_of(headers.get(b"host", ""))):
            told = b"this address is not known here: open it as http://127.0.0.1 or localhost\n"
            await reply(safely, 421, told, _PLAIN)
        elif self._access and not self._access.grants(
            headers.get(b"authorization", ""), certified=False
        ):
            asked = (b"www-authenticate", b'Basic realm="visionloop: the token is the password"')
            await reply(safely, 401, b"a token is needed\n", _PLAIN, asked)
        else:
            await self._app(scope, receive, safely)
