"""The options of every command that speaks to a Kubeflow Pipelines server."""

from __future__ import annotations

import argparse

from visionloop.cli import placement_options
from visionloop.cli.parser import namespace, say
from visionloop.submission import Server


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
        "--ca-file",
        default="",
        metavar="FILE",
        help="certificate authority of that address (default: VISIONLOOP_KFP_CA_FILE)",
    )
    parser.add_argument(
        "--namespace",
        default="",
        type=namespace,
        help="your namespace, on a server that many users share (default: cluster.namespace)",
    )
    parser.add_argument("--experiment", default="visionloop", help="default: %(default)s")
    parser.add_argument(
        "--service-account",
        default="",
        help="Kubernetes service account (default: cluster.service_account)",
    )
    parser.add_argument("--pipeline-root", default="", metavar="URI", help="for artifacts")
    placement_options.add_to(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def server_of(args: argparse.Namespace) -> Server:
    """Return the server that the options name, signed in to."""
    server = Server.connect(args.host, namespace=args.namespace, ca_file=args.ca_file)
    if args.namespace and not server.namespace:
        say(
            f"--namespace {args.namespace} is ignored: the server is for one user, and runs its "
            "pods in its own namespace"
        )
    return server
