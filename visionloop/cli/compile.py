"""Write every pipeline and every component as YAML for Kubeflow Pipelines."""

from __future__ import annotations

import argparse

from visionloop.cli.parser import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--output", default="compiled", metavar="DIR", help="folder (default: %(default)s)"
    )
    parser.add_argument("--image", default="", metavar="IMG", help="image of every task")
    parser.add_argument(
        "--config", metavar="FILE", help="loop.yaml whose values become the parameters' defaults"
    )
    parser.add_argument(
        "--local-lake",
        action="store_true",
        help="the lake is a path, and every pod mounts it there",
    )
    parser.add_argument(
        "--kubernetes-manifests",
        action="store_true",
        help="write Pipeline and PipelineVersion objects (pipelines.kubeflow.org/v2beta1)",
    )
    parser.add_argument("--namespace", default="", help="namespace of those objects")
    parser.add_argument("--json", action="store_true", help="print the files as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.pipelines.compiling import compile_all

    arguments = {}
    if args.config:
        from visionloop.config import load_config
        from visionloop.pipelines.arguments import pipeline_arguments
        from visionloop.submission.packages import refuse_local_lake

        config = load_config(args.config)
        if not args.local_lake:
            refuse_local_lake(config.lake, config.cluster.mount_path)
        arguments = pipeline_arguments(config)
    files = compile_all(
        args.output,
        image=args.image,
        arguments=arguments,
        kubernetes_manifests=args.kubernetes_manifests,
        namespace=args.namespace,
    )
    show(
        {"files": [str(path) for path in files]},
        as_json=args.json,
        text="\n".join(str(path) for path in files),
    )
    return 0
