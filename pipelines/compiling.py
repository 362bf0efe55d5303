"""Writes pipelines and components as YAML."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop import __version__
from visionloop.components import registry as components
from visionloop.errors import InputError
from visionloop.pipelines import registry as pipelines
from visionloop.pipelines.placing import Placed, place

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

# In the comment on top kfp writes the keys of a default in an order that changes from process to
# process; the same content has to have the same digest. The default itself stands further down.
_UNORDERED = re.compile(r"^(#    \w+: (?:dict|list)) \[Default: .*\]$", re.MULTILINE)


def compile_pipeline(
    name: str,
    path: str | Path,
    *,
    placed: Placed | None = None,
    arguments: Mapping[str, Any] | None = None,
    kubernetes_manifests: bool = False,
    namespace: str = "",
    manifest_name: str = "",
) -> Path:
    """Write one pipeline.

    Args:
        name: Name of the pipeline.
        path: File to write.
        placed: Where its tasks run; None takes the release's image, and no queue or volume.
        arguments: New defaults of its parameters.
        kubernetes_manifests: Write Pipeline and PipelineVersion objects for GitOps instead of the
            pipeline specification alone.
        namespace: Namespace of those objects.
        manifest_name: Name of the Pipeline object, which that of the version begins with; empty for
            the pipeline's own, which two loops of one namespace would share.

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
        placed=placed,
        arguments=dict(arguments or {}),
        kubernetes_manifests=kubernetes_manifests,
        namespace=namespace,
        manifest_name=manifest_name,
    )


def compile_component(name: str, path: str | Path, *, placed: Placed | None = None) -> Path:
    """Write one component, for pipelines of other people's.

    Args:
        name: Name of the component.
        path: File to write.
        placed: The image that it runs in; None takes the release's.

    Returns:
        The file.
    """
    return _write(components.load(name), Path(path), placed=placed)


def compile_all(
    folder: str | Path,
    *,
    placed: Placed | None = None,
    arguments: Mapping[str, Any] | None = None,
    kubernetes_manifests: bool = False,
    namespace: str = "",
    manifest_names: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write every pipeline and every component.

    Args:
        folder: Gets ``pipelines/<name>.yaml`` and ``components/<name>/component.yaml``, the layout
            of the repository.
        placed: As in `compile_pipeline`.
        arguments: New defaults; a pipeline takes those of its own parameters.
        kubernetes_manifests: As in `compile_pipeline`.
        namespace: As in `compile_pipeline`.
        manifest_names: Names of the Pipeline objects by pipeline, as in `compile_pipeline`.

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
                placed=placed,
                arguments=own,
                kubernetes_manifests=kubernetes_manifests,
                namespace=namespace,
                manifest_name=(manifest_names or {}).get(name, ""),
            )
        )
    for name in components.NAMES:
        written.append(
            compile_component(name, folder / "components" / name / "component.yaml", placed=placed)
        )
    return written


def _write(
    definition: BaseComponent,
    path: Path,
    *,
    placed: Placed | None = None,
    arguments: dict[str, Any] | None = None,
    kubernetes_manifests: bool = False,
    namespace: str = "",
    manifest_name: str = "",
) -> Path:
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    path.parent.mkdir(parents=True, exist_ok=True)
    options = None
    if kubernetes_manifests:
        # A PipelineVersion cannot be changed once it is applied: its name follows its content.
        plain = _write(definition, path, placed=placed, arguments=arguments).read_bytes()
        digest = hashlib.sha256(plain).hexdigest()[:8]
        name = manifest_name or str(definition.pipeline_spec.pipeline_info.name)
        options = KubernetesManifestOptions(
            pipeline_name=name,
            pipeline_display_name=name,
            pipeline_version_name=f"{name}-{__version__}-{digest}",
            pipeline_version_display_name=f"{name} {__version__}",
            namespace=namespace or None,
            include_pipeline_manifest=True,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        compiler.Compiler().compile(
            place(definition, placed or Placed()),
            str(path),
            pipeline_parameters=arguments or None,
            kubernetes_manifest_options=options,
            kubernetes_manifest_format=kubernetes_manifests,
        )
    text = path.read_text(encoding="utf-8")
    path.write_text(_UNORDERED.sub(r"\1", text), encoding="utf-8")
    return path
