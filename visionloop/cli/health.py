"""Say whether the server that runs here is alive; where none runs, whether we can be started.

For a health check of a container: `visionloop serve`, `collect` and `labels media` write their
ports to the file that VISIONLOOP_PORT_FILE names, and this command asks there.
"""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from pathlib import Path

from visionloop import __version__, environment
from visionloop.errors import VisionloopError

# Both servers answer here as long as they live, the predictor also before it has a model.
_ALIVE = "/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--port-file",
        default=environment.port_file(),
        metavar="FILE",
        help="what the server was started with (default: VISIONLOOP_PORT_FILE)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="after which it counts as dead (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        VisionloopError: The server does not answer as it should.
    """
    path = Path(args.port_file) if args.port_file else None
    if path is None or not path.exists():
        print(f"visionloop {__version__}: no server here")
        return 0
    port = json.loads(path.read_text(encoding="utf-8"))["http"]
    address = f"http://127.0.0.1:{port}{_ALIVE}"
    try:
        with urllib.request.urlopen(address, timeout=args.timeout) as answer:
            print(f"visionloop {__version__}: alive on port {port} ({answer.status})")
    except (urllib.error.URLError, OSError) as error:
        raise VisionloopError(
            f"the server does not answer: {error}",
            where=address,
            remedy="Look at its log; it is started again where something watches this check",
        ) from error
    return 0
