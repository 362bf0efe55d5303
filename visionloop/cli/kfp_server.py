"""Speaks to a Kubeflow Pipelines server: connect, start, wait, with its errors in plain words."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from visionloop import environment
from visionloop.errors import InputError, VisionloopError

# States after which a run never changes; kfp's own wait misses CANCELED and does not judge FAILED.
FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_POLL_SECONDS = 5.0
# A server that restarts is given so long before waiting is given up.
_PATIENCE_SECONDS = 120.0


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which server, and how a run is filed there."""
    parser.add_argument(
        "--host",
        default="",
        metavar="URL",
        help="address of the Kubeflow Pipelines API (default: KF_PIPELINES_ENDPOINT, else the "
        "cluster that this runs in or kubectl points at)",
    )
    parser.add_argument(
        "--namespace", default="", help="your namespace, on a server that many users share"
    )
    parser.add_argument("--experiment", default="visionloop", help="default: %(default)s")
    parser.add_argument("--service-account", default=None, help="Kubernetes service account")
    parser.add_argument("--pipeline-root", default=None, metavar="URI", help="for artifacts")
    parser.add_argument("--image", default="", metavar="IMG", help="image of every task")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


@contextmanager
def plain_errors(host: str) -> Iterator[None]:
    """Turn what the client raises into our errors.

    Args:
        host: Address of the server, to name it.
    """
    import kfp_server_api
    import urllib3

    where = host or "the cluster's Kubeflow Pipelines"
    try:
        yield
    except kfp_server_api.ApiException as error:
        if error.status in (401, 403):
            raise VisionloopError(
                f"The server refuses access: {error.reason}",
                where=where,
                remedy="Set VISIONLOOP_KFP_TOKEN, or give the service account the right to create "
                "runs in --namespace",
            ) from error
        if error.status == 404:
            raise VisionloopError(
                "The server does not know that path",
                where=where,
                remedy="Check --host: it ends before /apis, for example http://localhost:8080/pipeline",
            ) from error
        detail = (error.body or b"").decode() if isinstance(error.body, bytes) else error.body
        raise VisionloopError(
            f"The server answered {error.status}: {(detail or error.reason or '')[:400].strip()}",
            where=where,
            remedy="Look at the log of ml-pipeline's API server",
        ) from error
    except (urllib3.exceptions.HTTPError, TimeoutError, ConnectionError) as error:
        raise VisionloopError(
            "The Kubeflow Pipelines API cannot be reached",
            where=where,
            remedy="Check --host, or forward it: kubectl -n kubeflow port-forward "
            "svc/ml-pipeline-ui 8080:80",
        ) from error


def connect(host: str) -> Any:
    """Return a client.

    Args:
        host: Address of the API; empty finds one as kfp does.

    Returns:
        The `kfp.Client`.

    Raises:
        VisionloopError: There is no server to be found.
    """
    from kfp import client

    options: dict[str, Any] = {}
    host = host or environment.kfp_endpoint()
    if host:
        options["host"] = host
    if environment.kfp_token():
        options["existing_token"] = environment.kfp_token()
    elif Path(environment.kfp_token_file()).exists():
        # With a host the client does not use the pod's own token unless it is told to.
        options["credentials"] = client.ServiceAccountTokenVolumeCredentials(
            path=environment.kfp_token_file()
        )
    # The client prints what it could not find; the standard output is for results.
    with plain_errors(host), warnings.catch_warnings(), redirect_stdout(None):
        warnings.simplefilter("ignore")
        return client.Client(**options)


def experiment_id(client: Any, name: str, namespace: str) -> str:
    """Return the id of an experiment, which is made when it does not exist.

    Args:
        client: The client.
        name: Name of the experiment.
        namespace: Namespace on a server that many users share, empty elsewhere: a server for one
            refuses any.

    Returns:
        The id.
    """
    experiment = client.create_experiment(name=name, namespace=namespace or None)
    return str(experiment.experiment_id)


def wait(
    client: Any,
    run_id: str,
    *,
    timeout_s: float,
    told: Callable[[str], None],
    poll_s: float = _POLL_SECONDS,
) -> tuple[str, list[dict[str, str]]]:
    """Wait until a run has ended, by its own state.

    Args:
        client: The client.
        run_id: The run.
        timeout_s: Seconds to wait.
        told: Called with a line whenever a task starts or ends.
        poll_s: Seconds between two looks.

    Returns:
        The final state, and each task's name and state.

    Raises:
        VisionloopError: The time is over, or the server was away for too long.
    """
    until = time.monotonic() + timeout_s
    seen: dict[str, str] = {}
    last_answer = time.monotonic()
    last_look = False
    while True:
        try:
            with plain_errors(""):
                run = client.get_run(run_id)
            last_answer = time.monotonic()
        except VisionloopError:
            if time.monotonic() - last_answer > _PATIENCE_SECONDS:
                raise
            time.sleep(poll_s)
            continue
        tasks = _tasks(run)
        for task in tasks:
            if seen.get(task["name"]) != task["state"]:
                seen[task["name"]] = task["state"]
                told(f"{task['name']:<20} {task['state'].lower()}")
        state = str(run.state or "")
        if state in FINAL_STATES:
            # The states of tasks can lag behind that of their run: look once more.
            if last_look:
                return state, tasks
            last_look = True
            time.sleep(min(poll_s, 1.0))
            continue
        if time.monotonic() > until:
            raise VisionloopError(
                f"The run did not end within {timeout_s:g} s; it goes on by itself",
                where=f"run {run_id}, state {state or 'unknown'}",
                remedy="Wait longer with --timeout, or look at it in the Kubeflow Pipelines UI",
            )
        time.sleep(poll_s)


def waits_for_labels(tasks: list[dict[str, str]]) -> bool:
    """Return whether a finished round waits for labels: its second half was skipped.

    Args:
        tasks: Names and states from `wait`.

    Returns:
        Whether the condition `labels-finished` was not met.
    """
    return any(
        task["name"].startswith(("condition", "labels-finished")) and task["state"] == "SKIPPED"
        for task in tasks
    )


def server_package(
    pipeline: str, image: str, folder: str | Path, arguments: dict[str, Any]
) -> Path:
    """Write the pipeline that is sent to the server.

    Args:
        pipeline: Its name.
        image: Image of its tasks; empty takes the release's.
        folder: Where to write it.
        arguments: Become the defaults, so that a person who clones the run sees them.

    Returns:
        The file.
    """
    from visionloop.pipelines.compiling import compile_pipeline

    return compile_pipeline(
        pipeline, Path(folder) / f"{pipeline}.yaml", image=image, arguments=arguments
    )


def refuse_local_lake(lake: str) -> None:
    """Refuse a lake on this machine's disk: pods would each see an empty folder.

    Args:
        lake: Root of the lake.

    Raises:
        InputError: It is a path or a file:// URI.
    """
    if "://" not in lake or lake.startswith("file://"):
        raise InputError(
            "the lake is a folder of this machine, which pods do not see",
            where=lake,
            remedy="Set `lake:` to a gs:// URI with a PostgreSQL catalog, or give "
            "--local-lake when every pod mounts that path",
        )


def _tasks(run: Any) -> list[dict[str, str]]:
    details = getattr(run, "run_details", None)
    return [
        {"name": str(task.display_name or task.task_id), "state": str(task.state or "PENDING")}
        for task in (getattr(details, "task_details", None) or [])
    ]
