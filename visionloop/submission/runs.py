"""Runs on a server: each started once, whatever gets lost on the way."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionloop.errors import InputError
from visionloop.submission.listing import by_name, pages
from visionloop.submission.making import TRIES, made_once
from visionloop.submission.refusals import ServerError, plain_errors
from visionloop.submission.versions import Version

# States after which a run never changes; kfp's own wait misses CANCELED and does not judge FAILED.
FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
# What a job that starts again does not attach to: there is nothing to wait for any more.
_LOST = ("FAILED", "CANCELED", "CANCELING")
# A server counts in seconds when a run was made. After two of them each of two jobs that started
# the same run sees both, and they agree on which is the earlier.
_SETTLED_AFTER_S = 2.0


@dataclass(frozen=True)
class Request:
    """What a run is started with.

    Attributes:
        version: What runs.
        experiment_id: Where it is filed.
        name: Name of the run.
        arguments: Values of the pipeline's parameters.
        key: Makes it one of its kind: a random word, or what the person named.
        only_once: Whether a run with that key may be there from before.
        pipeline_root: For artifacts; empty takes the server's.
        service_account: Of the pods; empty takes the server's.
    """

    version: Version
    experiment_id: str
    name: str
    arguments: Mapping[str, Any]
    key: str
    only_once: bool
    pipeline_root: str = ""
    service_account: str = ""

    @property
    def content(self) -> str:
        """Digest of what is run, and with what."""
        told = json.dumps([self.version.name, dict(self.arguments)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def description(self) -> str:
        """What the run says of itself, by which it is found again."""
        return f"visionloop key={self.key} content={self.content}"


class StartInterrupted(KeyboardInterrupt):
    """Stopped while a run was asked for: it may have been started."""


def start(client: Any, request: Request, *, where: str) -> tuple[Any, bool]:
    """Start a run, or attach to the one that was started with the same key.

    Args:
        client: The client.
        request: What is started.
        where: Address of the server, for errors.

    Returns:
        kfp's run, and whether it was there from before, or started by another job meanwhile.

    Raises:
        InputError: The key belongs to a run of something else.
        ServerError: The server refuses or does not answer.
        StartInterrupted: Ctrl-C while the server was asked to make it, or just after.
    """
    asked = False

    def find() -> Any:
        return next(iter(_same(client, request, where)), None)

    def make() -> Any:
        nonlocal asked
        asked = True
        with plain_errors(where):
            return client.runs.run_service_create_run(run=_body(request))

    try:
        run, ours = made_once(find, make, look_first=request.only_once)
        if not ours or not request.only_once:
            return run, not ours
        time.sleep(_SETTLED_AFTER_S)
        first = next(iter(_same(client, request, where)), run)
        if first.run_id == run.run_id:
            return run, False
        cancel(client, str(run.run_id), where=where)
        return first, True
    except KeyboardInterrupt as stopped:
        if asked:
            raise StartInterrupted from stopped
        raise


def cancel(client: Any, run_id: str, *, where: str) -> None:
    """Ask a server to end a run.

    Args:
        client: The client.
        run_id: The run.
        where: Address of the server, for errors.
    """
    for tried in range(1, TRIES + 1):
        try:
            with plain_errors(where):
                client.terminate_run(run_id)
            return
        except ServerError as error:
            # Ending it twice is ending it: the request may be repeated.
            if not error.passing or tried == TRIES:
                raise
            time.sleep(error.pause_s or 0.2 * 2**tried)


def _same(client: Any, request: Request, where: str) -> list[Any]:
    """Return the runs with the request's key that are not lost, the earliest first."""
    with plain_errors(where):
        named = list(
            pages(
                client.list_runs,
                "runs",
                experiment_id=request.experiment_id,
                filter=by_name(request.name),
            )
        )
    mark = f"visionloop key={request.key} "
    same = [
        run
        for run in named
        if str(run.description or "").startswith(mark) and str(run.state or "") not in _LOST
    ]
    for run in same:
        if str(run.description) != request.description:
            raise InputError(
                f"the key {request.key!r} belongs to a run of something else",
                where=f"run {run.run_id}",
                remedy="Name another key with --once: it stands for one pipeline with one "
                "configuration, for example the commit's",
            )
    return sorted(same, key=lambda run: (run.created_at, run.run_id))


def _body(request: Request) -> Any:
    import kfp_server_api as api

    return api.V2beta1Run(
        experiment_id=request.experiment_id,
        display_name=request.name,
        description=request.description,
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=request.version.pipeline_id,
            pipeline_version_id=request.version.version_id,
        ),
        runtime_config=api.V2beta1RuntimeConfig(
            parameters=dict(request.arguments), pipeline_root=request.pipeline_root or None
        ),
        service_account=request.service_account or None,
    )
