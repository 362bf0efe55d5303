"""Checks of the images: whether their registry has them."""

from __future__ import annotations

from collections.abc import Iterator

from visionloop.cli.checks import Finding, attempt
from visionloop.cli.cluster_checks.question import Question
from visionloop.cli.cluster_checks.registry import Reference, manifest_digest


def images(question: Question) -> Iterator[Finding]:
    """Ask the registry for each image that the configuration needs.

    Args:
        question: What is to run.

    Yields:
        One finding an image.
    """
    wanted = {question.image: "image of the tasks"}
    config = question.config
    if config and config.training.runner == "trainjob" and config.training.trainjob.image:
        wanted.setdefault(config.training.trainjob.image, "image of the TrainJob")
    kserve = config.serving.kserve if config else None
    if kserve is not None and kserve.runtime == "visionloop":
        wanted.setdefault(kserve.predictor_image, "image of the endpoint")
    for image, check in wanted.items():
        yield attempt(check, lambda image=image, check=check: _image(image, check))  # type: ignore[misc]


def _image(image: str, check: str) -> Finding | str:
    reference = Reference.parse(image)
    status, told = manifest_digest(reference)
    match status:
        case 200:
            return f"{image}, {told}" if told else image
        case 404:
            return Finding(
                check,
                "fail",
                f"{image}: the registry has no such image",
                "Correct the name, or build and push it; another one is named by --image, "
                "cluster.image or serving.kserve.image",
            )
        case 401 | 403:
            return Finding(
                check,
                "warn",
                f"{image}: cannot tell from here, the registry asks for a login (answer {status})",
                "Log in with docker login, or gcloud for Google's registries, and look again; see "
                "that the nodes, or the imagePullSecrets of the service account, may pull it",
            )
        case _:
            return Finding(
                check,
                "warn",
                f"{image}: cannot tell from here, {told}",
                "See that the nodes reach the registry; an image that was loaded into them needs "
                "none",
            )
