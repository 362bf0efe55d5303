"""Answer inference requests with the model in service (KServe V1, V2 and gRPC).

The model is a pointer (…/serving/NAME.json in the lake), which is followed without dropping a
request, or one model bundle. Before a first model is published the server is up and not ready.
"""

from __future__ import annotations

import argparse

from visionloop import environment
from visionloop.cli.configuration import absolute
from visionloop.errors import InputError

_PORT, _GRPC_PORT = 8080, 8081
# Those of `visionloop.serving.predictor.Limits`, which would import numpy here.
_LIMITS: tuple[tuple[str, int | float, str], ...] = (
    ("workers", 0, "requests that are decoded at a time; 0: as many as processors"),
    ("threads", 0, "threads of one run of the network; 0: the processors' share, alone all"),
    ("runs", 0, "runs of the network at a time; 0: two on processors, one on a GPU"),
    ("max_batch", 16, "pictures of several requests that go through the network at once; 1: none"),
    ("max_delay_ms", 2.0, "longest wait for requests that are being decoded, milliseconds"),
    ("max_pixels", 25_000_000, "an image with more is answered with 400"),
    ("max_body_bytes", 128 * 1024 * 1024, "a larger request is answered with 413"),
    ("max_waiting", 1000, "requests at a time; more are answered with 503"),
    ("drain_s", 0.0, "seconds to go on answering after SIGTERM, while load balancers notice"),
    ("grace_s", 20.0, "seconds that requests under way may take then"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--model", required=True, metavar="URI", help="pointer (.json) or bundle")
    parser.add_argument(
        "--name", default="", help="name of the model in the paths (default: the pointer's)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s; a pod: 0.0.0.0")
    parser.add_argument(
        "--port", type=int, default=_PORT, help="REST; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--grpc-port",
        type=int,
        default=None,
        metavar="PORT",
        help="gRPC; 0 takes a free one, -1 none (default: 8081, or free beside another --port)",
    )
    parser.add_argument(
        "--port-file",
        default=environment.port_file(),
        metavar="FILE",
        help="gets the ports as JSON (default: VISIONLOOP_PORT_FILE)",
    )
    parser.add_argument(
        "--events",
        default="",
        metavar="URL",
        help="address of a collector, where no KServe agent logs the requests",
    )
    parser.add_argument("--namespace", default="default", help="in the events")
    parser.add_argument(
        "--metadata-header",
        action="append",
        default=[],
        metavar="NAME",
        help="header of a request that its events carry, such as X-Request-Id; may be given again",
    )
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME",
        help="ONNX Runtime's execution provider, such as CUDA, TensorRT or "
        "OpenVINO:device_type=CPU; may be given again (default: a GPU that is there, else the CPU)",
    )
    for name, default, words in _LIMITS:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="N",
            help=f"{words} (default: %(default)s)",
        )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.events and not args.events.startswith(("http://", "https://")):
        raise InputError(
            "events are sent to the address of a collector",
            where=f"--events {args.events}",
            remedy="Start one with: visionloop collect --lake URI, then give http://HOST:PORT",
        )
    from visionloop.serving.predictor import run_server

    model = absolute(args.model)
    name = args.name or model.rstrip("/").rpartition("/")[2].removesuffix(".json")
    if not name:
        raise InputError(
            "the model has no name, which its paths need",
            where=f"--model {args.model}",
            remedy="Give one with --name",
        )
    grpc_port = args.grpc_port
    if grpc_port is None:
        # A second server on this machine got a port of its own; 8081 is likely the first one's.
        grpc_port = _GRPC_PORT if args.port == _PORT else 0
    run_server(
        model,
        name,
        args.port,
        grpc_port if grpc_port >= 0 else None,
        args.events,
        host=args.host,
        namespace=args.namespace,
        metadata_headers=tuple(args.metadata_header),
        port_file=args.port_file,
        providers=tuple(args.provider),
        **{name: getattr(args, name) for name, _, _ in _LIMITS},
    )
    return 0
