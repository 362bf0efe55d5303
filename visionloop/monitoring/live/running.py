"""Runs the live view until it is told to end."""

from __future__ import annotations

import contextlib

from visionloop.monitoring.config import MonitoringConfig

MAX_CONNECTIONS = 200
_HEAD_SECONDS = 10.0


def run_live(
    lake: str,
    *,
    catalog: str = "",
    loop: str = "",
    thresholds: MonitoringConfig | None = None,
    host: str = "127.0.0.1",
    port: int = 8092,
    port_file: str = "",
    token_file: str = "",
) -> None:
    """Serve the live view of a lake until SIGTERM or SIGINT.

    Args:
        lake: Root of the lake; it need not be there yet.
        catalog: Its catalog.
        loop: Name of the loop; empty: the only one, or ``default``.
        thresholds: Of the report.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        port_file: File that gets ``{"http": port, "pid": …}`` as soon as the port is bound.
        token_file: File of tokens, one a line; whoever asks has to know one.

    Raises:
        InputError: The port is taken, the token file cannot be used, or the address is reached from
            elsewhere and there is none.
    """
    from visionloop.monitoring.live.app import live_app
    from visionloop.monitoring.live.following import Following
    from visionloop.monitoring.live.guard import Guard, refuse_open_host
    from visionloop.monitoring.live.pictures import Pictures
    from visionloop.progress import log
    from visionloop.serving.access import Access
    from visionloop.serving.collector_server import serve
    from visionloop.serving.http_limits import protocol_of
    from visionloop.serving.listening import announce, bind

    refuse_open_host(host, token_file)
    access = Access(token_file) if token_file else None
    listener = bind(host, port)
    bound = listener.getsockname()[1]
    following = Following(lake, catalog, loop, thresholds)
    pictures = Pictures()

    def refused(reason: str) -> None:
        log(f"live view: a client was refused: {reason}")

    def ready() -> None:
        announce("report", {"http": bound}, port_file=port_file)
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{bound}/", flush=True)

    protocol = protocol_of(refused, max_connections=MAX_CONNECTIONS, body_seconds=_HEAD_SECONDS)
    with contextlib.closing(following), contextlib.closing(pictures):
        following.start()
        serve(
            Guard(live_app(following, pictures), access),
            listener,
            protocol,
            None,
            ready,
            refused=refused,
            max_connections=MAX_CONNECTIONS,
        )
