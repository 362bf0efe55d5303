"""Pipelines and their versions on a server: a version is uploaded when its content is new."""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from visionloop.errors import InputError
from visionloop.submission.listing import by_name, pages
from visionloop.submission.making import made_once
from visionloop.submission.packages import Package
from visionloop.submission.refusals import plain_errors


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on a server.

    Attributes:
        pipeline_id: The pipeline.
        version_id: The version.
        name: Name of the version.
        uploaded: Whether it was not there before.
    """

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool


def upload(client: Any, package: Package, *, namespace: str, where: str) -> Version:
    """Bring a package to the server, unless its content is there.

    Args:
        client: The client.
        package: The compiled pipeline.
        namespace: Namespace on a server that many users share, empty elsewhere.
        where: Address of the server, for errors.

    Returns:
        The version of that content.

    Raises:
        ServerError: The server refuses or does not answer.
    """
    pipeline_id = _pipeline(client, package.name, namespace, where)

    def find() -> Any:
        with plain_errors(where):
            found = pages(
                client.list_pipeline_versions,
                "pipeline_versions",
                pipeline_id=pipeline_id,
                filter=by_name(package.version),
            )
            return next(found, None)

    def make() -> Any:
        # The client prints a link; the standard output is for results.
        with plain_errors(where), redirect_stdout(None):
            return client.upload_pipeline_version(
                str(package.path),
                package.version,
                pipeline_id=pipeline_id,
                description=f"sha256:{package.digest}",
            )

    version, uploaded = made_once(find, make)
    return Version(
        pipeline_id, str(version.pipeline_version_id), str(version.display_name), uploaded
    )


def experiment(client: Any, name: str, *, namespace: str, where: str) -> str:
    """Return the id of an experiment, which is made when it does not exist.

    Args:
        client: The client.
        name: Its name.
        namespace: Namespace on a server that many users share, empty elsewhere: a server for one
            refuses any.
        where: Address of the server, for errors.

    Raises:
        InputError: It is archived, and takes no runs.
        ServerError: The server refuses or does not answer.
    """
    from kfp_server_api import V2beta1Experiment

    def find() -> Any:
        return _experiment(client, name, namespace, where)

    def make() -> Any:
        with plain_errors(where):
            return client.experiments.experiment_service_create_experiment(
                experiment=V2beta1Experiment(display_name=name, namespace=namespace or None)
            )

    found, _ = made_once(find, make)
    if str(found.storage_state or "") == "ARCHIVED":
        raise InputError(
            f"the experiment `{name}` is archived, and takes no runs",
            where=where,
            remedy="Restore it in the UI, or choose another one with --experiment",
        )
    return str(found.experiment_id)


def known_experiment(client: Any, name: str, *, namespace: str, where: str) -> str:
    """Return the id of an experiment, empty where there is none of that name.

    Args:
        client: The client.
        name: Its name.
        namespace: As in `experiment`.
        where: Address of the server, for errors.
    """
    found = _experiment(client, name, namespace, where)
    return str(found.experiment_id) if found is not None else ""


def _experiment(client: Any, name: str, namespace: str, where: str) -> Any:
    with plain_errors(where):
        found = pages(
            client.list_experiments,
            "experiments",
            filter=by_name(name),
            namespace=namespace or None,
        )
        return next(found, None)


def _pipeline(client: Any, name: str, namespace: str, where: str) -> str:
    from kfp_server_api import V2beta1Pipeline

    def find() -> Any:
        with plain_errors(where):
            found = pages(
                client.list_pipelines,
                "pipelines",
                filter=by_name(name),
                namespace=namespace or None,
            )
            return next(found, None)

    def make() -> Any:
        with plain_errors(where):
            return client.pipelines.pipeline_service_create_pipeline(
                pipeline=V2beta1Pipeline(display_name=name, namespace=namespace or None)
            )

    found, _ = made_once(find, make)
    return str(found.pipeline_id)
