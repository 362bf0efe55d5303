"""Runs the media endpoint until it is told to end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from urllib.parse import urlsplit

from visionloop.errors import InputError

MAX_CONNECTIONS = 500
_HEAD_SECONDS = 10.0


def run_media(
    lake: str,
    *,
    catalog: str = "",
    loop: str = "",
    host: str = "127.0.0.1",
    port: int = 8091,
    port_file: str = "",
    origins: Iterable[str] = (),
    certificate: str = "",
    key: str = "",
    max_side: int = 0,
    workers: int = 4,
) -> None:
    """Serve images until SIGTERM or SIGINT.

    Args:
        lake: Root of the lake; it need not be there yet.
        catalog: Its catalog.
        loop: The only loop whose samples are served; empty: those of every loop.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        port_file: File that gets ``{"http": port, "pid": …}`` as soon as the port is bound.
        origins: Addresses of pages that may read images with a script, see `origin_of`.
        certificate: PEM file of our certificate; empty: no TLS.
        key: PEM file of its key; empty where the certificate's file holds it.
        max_side: Longest side of an image in pixels; 0: as it is.
        workers: Images that are read at a time.

    Raises:
        InputError: There is no key to check links with, the port is taken, or a file that is named
            cannot be used.
    """
    from visionloop.labeling.media.counts import Counts
    from visionloop.labeling.media.endpoint import Limits, MediaEndpoint
    from visionloop.labeling.media.places import Places
    from visionloop.labeling.media.signatures import Keys
    from visionloop.serving.access import Certificates
    from visionloop.serving.collector_server import serve
    from visionloop.serving.http_limits import protocol_of
    from visionloop.serving.listening import announce, bind

    keys = Keys.of_environment()
    certificates = Certificates(certificate, key) if certificate else None
    listener = bind(host, port)
    counts = Counts()
    app = MediaEndpoint(
        Places(lake, catalog, loop),
        keys,
        counts,
        origins=frozenset(origin_of(one) for one in origins),
        limits=Limits(workers=workers, max_side=max_side),
    )
    protocol = protocol_of(counts.add, max_connections=MAX_CONNECTIONS, body_seconds=_HEAD_SECONDS)
    ports = {"http": listener.getsockname()[1]}
    with contextlib.closing(app):
        serve(
            app,
            listener,
            protocol,
            certificates,
            ready=lambda: announce("labels media", ports, port_file=port_file),
            refused=counts.add,
            max_connections=MAX_CONNECTIONS,
        )


def origin_of(address: str) -> str:
    """Return the origin of a page's address: scheme, host and port, as browsers name it.

    Args:
        address: Such as ``https://labels.example/projects/1``; ``*`` stays as it is.

    Raises:
        InputError: It is no address of a page.
    """
    if address == "*":
        return address
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            "no address of a page", where=address, remedy="Write https://host or http://host:port"
        )
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
