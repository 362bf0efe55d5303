"""Write every pipeline and every component as YAML for Kubeflow Pipelines."""

from __future__ import annotations

import argparse

from visionloop.cli import placement_options
from visionloop.cli.parser import namespace, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--output", default="compiled", metavar="DIR", help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="loop.yaml whose values become the parameters' defaults"
    )
    placement_options.add_to(parser)
    parser.add_argument(
        "--kubernetes-manifests",
        action="store_true",
        help="write Pipeline and PipelineVersion objects (pipelines.kubeflow.org/v2beta1); with "
        "--config they are called as `submit` calls them, LOOP-round",
    )
    parser.add_argument(
        "--namespace", default="", type=namespace, help="namespace of those objects"
    )
    parser.add_argument("--json", action="store_true", help="print the files as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.cluster_config import ClusterConfig
    from visionloop.pipelines import registry
    from visionloop.pipelines.compiling import compile_all
    from visionloop.pipelines.placing import Placed
    from visionloop.validation import validate

    arguments = {}
    names = {}
    fields = placement_options.fields(args)
    if args.config:
        from visionloop.config import load_config
        from visionloop.pipelines.arguments import pipeline_arguments
        from visionloop.submission.packages import name_on_server, refuse_local_lake

        config = load_config(
            args.config, overrides={f"cluster.{name}": value for name, value in fields.items()}
        )
        refuse_local_lake(config.lake, config.cluster.mount_path)
        arguments = pipeline_arguments(config)
        # As `submit` calls them: two loops in one namespace are two pipelines.
        names = {name: name_on_server(config.name, name) for name in registry.NAMES}
        cluster = config.cluster
    else:
        cluster = validate(ClusterConfig, fields, where="the command line")
    files = compile_all(
        args.output,
        placed=Placed.of(cluster),
        arguments=arguments,
        kubernetes_manifests=args.kubernetes_manifests,
        namespace=args.namespace,
        manifest_names=names,
    )
    show(
        {"files": [str(path) for path in files]},
        as_json=args.json,
        text="\n".join(str(path) for path in files),
    )
    return 0
