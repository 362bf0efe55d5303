"""Writes pipelines and components as YAML."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop import __version__
from visionloop.components import registry as components
from visionloop.components.image import IMAGE
from visionloop.errors import InputError
from visionloop.pipelines import registry as pipelines

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent


def compile_pipeline(
    name: str,
    path: str | Path,
    *,
    image: str = "",
    arguments: Mapping[str, Any] | None = None,
    kubernetes_manifests: bool = False,
    namespace: str = "",
) -> Path:
    """Write one pipeline.

    Args:
        name: Name of the pipeline.
        path: File to write.
        image: Image of its tasks; empty takes the release's.
        arguments: New defaults of its parameters.
        kubernetes_manifests: Write Pipeline and PipelineVersion objects for GitOps instead of the
            pipeline specification alone.
        namespace: Namespace of those objects.

    Returns:
        The file.

    Raises:
        InputError: The arguments name a parameter that the pipeline does not have.
    """
    pipeline = pipelines.load(name)
    known = pipeline.pipeline_spec.root.input_definitions.parameters
    unknown = sorted(set(arguments or {}) - set(known))
    if unknown:
        raise InputError(f"the pipeline {name} has no parameter {', '.join(unknown)}")
    return _write(
        pipeline,
        Path(path),
        image=image,
        arguments=dict(arguments or {}),
        kubernetes_manifests=kubernetes_manifests,
        namespace=namespace,
    )


def compile_component(name: str, path: str | Path, *, image: str = "") -> Path:
    """Write one component, for pipelines of other people's.

    Args:
        name: Name of the component.
        path: File to write.
        image: Image that it runs in; empty takes the release's.

    Returns:
        The file.
    """
    return _write(components.load(name), Path(path), image=image)


def compile_all(
    folder: str | Path,
    *,
    image: str = "",
    arguments: Mapping[str, Any] | None = None,
    kubernetes_manifests: bool = False,
    namespace: str = "",
) -> list[Path]:
    """Write every pipeline and every component.

    Args:
        folder: Gets ``pipelines/<name>.yaml`` and ``components/<name>/component.yaml``, the layout
            of the repository.
        image: Image of the tasks; empty takes the release's.
        arguments: New defaults; a pipeline takes those of its own parameters.
        kubernetes_manifests: As in `compile_pipeline`.
        namespace: As in `compile_pipeline`.

    Returns:
        The files, pipelines first.
    """
    folder = Path(folder)
    written = []
    for name in pipelines.NAMES:
        known = pipelines.load(name).pipeline_spec.root.input_definitions.parameters
        own = {key: value for key, value in (arguments or {}).items() if key in known}
        written.append(
            compile_pipeline(
                name,
                folder / "pipelines" / f"{name}.yaml",
                image=image,
                arguments=own,
                kubernetes_manifests=kubernetes_manifests,
                namespace=namespace,
            )
        )
    for name in components.NAMES:
        written.append(
            compile_component(name, folder / "components" / name / "component.yaml", image=image)
        )
    return written


def _write(
    definition: BaseComponent,
    path: Path,
    *,
    image: str = "",
    arguments: dict[str, Any] | None = None,
    kubernetes_manifests: bool = False,
    namespace: str = "",
) -> Path:
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    path.parent.mkdir(parents=True, exist_ok=True)
    options = None
    if kubernetes_manifests:
        # A PipelineVersion cannot be changed once it is applied: its name follows its content.
        plain = _write(definition, path, image=image, arguments=arguments).read_bytes()
        digest = hashlib.sha256(plain).hexdigest()[:8]
        name = str(definition.pipeline_spec.pipeline_info.name)
        options = KubernetesManifestOptions(
            pipeline_version_name=f"{name}-{__version__}-{digest}",
            pipeline_version_display_name=f"{name} {__version__}",
            namespace=namespace or None,
            include_pipeline_manifest=True,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        compiler.Compiler().compile(
            definition,
            str(path),
            pipeline_parameters=arguments or None,
            kubernetes_manifest_options=options,
            kubernetes_manifest_format=kubernetes_manifests,
        )
    if image and image != IMAGE:
        # Components got their image when they were imported; in the file it is one key.
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(f"image: {IMAGE}\n", f"image: {image}\n"), encoding="utf-8")
    return path
