"""What a machine outside of a cluster cannot tell of a lake and of sources that pods work with."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from visionloop import environment
from visionloop.cli.checks import Finding, attempt
from visionloop.errors import InputError, VisionloopError
from visionloop.lake.catalog import IN_THE_CLUSTER, catalog_uri

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


def attempt_from_afar(
    config: LoopConfig,
    check: str,
    uri: str,
    look: Callable[[], Finding | str],
    *,
    catalog: bool = False,
) -> Finding:
    """Run a check of what pods work with, unless only pods can reach it.

    Args:
        config: The loop's configuration.
        check: What is looked at.
        uri: Where it lies.
        look: As in `visionloop.cli.checks.attempt`.
        catalog: Whether it needs the lake's catalog.

    Returns:
        The finding; a warning where it cannot be told from here.
    """

    def guarded() -> Finding | str:
        why = _catalog_out_of_reach(config) if catalog else ""
        why = why or _out_of_reach(config, uri)
        if why:
            return Finding(check, "warn", f"cannot tell from here: {why}", IN_THE_CLUSTER)
        return look()

    return attempt(check, guarded)


def refuse_lake_of_pods(config: LoopConfig) -> None:
    """Refuse a lake that only pods reach, before anything else of it is asked.

    Args:
        config: The loop's configuration.

    Raises:
        InputError: It is on a volume that this machine does not mount, or its catalog is not named
            here.
        VisionloopError: Nobody here knows its catalog's host.
    """
    if on_the_volume(config, config.lake) and not Path(config.cluster.mount_path).is_dir():
        raise InputError(
            f"the lake is on the volume {config.cluster.claim}, which pods mount and this machine "
            "does not",
            where=config.lake,
            remedy=IN_THE_CLUSTER,
        )
    host = _unknown_host(catalog_uri(config.lake, config.catalog))
    if host:
        raise VisionloopError(
            "the catalog's host is not known here",
            where=host,
            remedy=f"Correct `catalog:`. {IN_THE_CLUSTER}",
        )


def on_the_volume(config: LoopConfig, uri: str) -> bool:
    """Return whether a URI lies below the path at which `cluster.volume` is mounted.

    Args:
        config: The loop's configuration.
        uri: The URI, or a plain path.
    """
    from visionloop.lake.storage import local_path, scheme_of

    if not config.cluster.claim or scheme_of(uri) != "file":
        return False
    return PurePosixPath(local_path(uri)).is_relative_to(config.cluster.mount_path)


def _out_of_reach(config: LoopConfig, uri: str) -> str:
    """Return why only pods reach a URI; empty where this machine may."""
    from visionloop.lake.credentials import has_google_credentials
    from visionloop.lake.storage import scheme_of

    if on_the_volume(config, uri):
        return f"it lies on the volume {config.cluster.claim}, which pods mount"
    if scheme_of(uri) == "file":
        return ""
    if not environment.storage_emulator() and not has_google_credentials():
        return "there are no Google credentials here"
    return ""


def _catalog_out_of_reach(config: LoopConfig) -> str:
    """Return why only pods reach the catalog of a loop; empty where this machine may."""
    from visionloop.lake.storage import scheme_of

    address = environment.catalog_uri() or config.catalog
    if not address:
        if scheme_of(config.lake) == "file":
            return ""
        return "the catalog's address is in the Secret visionloop, which pods mount"
    host = _unknown_host(address)
    return f"the catalog's host {host} is not known here" if host else ""


def _unknown_host(address: str) -> str:
    """Return the host of a catalog's address where its name leads nowhere, empty otherwise."""
    host = urlsplit(address).hostname
    if host:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            return host
    return ""
