"""The command line. One module a command, imported only when its command is given."""

from __future__ import annotations

import importlib
import keyword
import os
import sys
from collections.abc import Sequence

from visionloop import __version__, environment
from visionloop.cli.parser import Parser, tell_error
from visionloop.errors import InputError

# What `visionloop --help` lists: the module of each command, and what it does.
COMMANDS = {
    "demo": "the whole loop on real digits: no cluster, no account",
    "init": "write a first loop.yaml from a look at a folder of images",
    "run": "run a pipeline on this machine",
    "watch": "start a round, go on with one, or wait, by rule; --dry-run says why",
    "compile": "write every pipeline and component as YAML",
    "submit": "start a run on a Kubeflow Pipelines server",
    "schedule": "start runs on a Kubeflow Pipelines server again and again",
    "ingest": "bring a folder or bucket prefix of images into a lake",
    "import": "bring an annotated set into a lake: COCO, Pascal VOC, YOLO and others",
    "export": "write samples and labels of a lake as COCO, YOLO, FiftyOne and others",
    "select": "choose the samples that are worth a label",
    "labels": "label requests and answers: status, collect, recall, media, follow and more",
    "harvest": "bring the logged confidences of an endpoint into a lake",
    "serve": "answer requests with the model in service",
    "collect": "keep the events that an endpoint logs",
    "rollback": "put an earlier model back into service, or end a canary",
    "report": "write the health of all stages as one page",
    "metrics": "print or serve a lake's health for Prometheus",
    "notify": "send what waits to those who are told of new flags; --test tries each",
    "erase": "erase samples from every version of a lake, and prove it",
    "lake": "look after a lake: status, versions, check, vacuum, backup, restore",
    "health": "say whether the server of this container is alive",
    "doctor": "check this machine, a lake and a cluster, with the remedy for each finding",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        Exit status: 0 done, 1 the work failed, 2 the input or the configuration is wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
        environment.want_debug()
    environment.take_mounted_secrets()
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()  # here a closed pipe can still be met; at the exit it could not
        return status
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        from visionloop.failures import explain
        from visionloop.redaction import traceback_of

        known = explain(error)
        tell_error(known, traceback=traceback_of(error) if debug else "")
        return known.exit_status


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"visionloop {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        from visionloop.validation import nearest

        raise InputError(
            f"unknown command `{name}`{nearest(name, list(COMMANDS))}",
            remedy="See visionloop --help",
        )
    # `import` is a word of Python's own.
    module = importlib.import_module(f"visionloop.cli.{name}{'_' * keyword.iskeyword(name)}")
    parser = Parser(prog=f"visionloop {name}", description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    status: int = module.run(parser.parse_args(arguments[1:]))
    return status


def _overview() -> str:
    lines = [
        "usage: visionloop COMMAND [--help] …",
        "",
        "A closed loop for computer vision on Kubeflow: what the deployed model is unsure of is",
        "labelled next.",
        "",
        "commands:",
        *(f"  {name:<10} {does}" for name, does in COMMANDS.items()),
        "",
        "Exit status: 0 done, 1 the work failed, 2 the input or the configuration is wrong.",
        "options: --help, --version, --debug (show tracebacks)",
    ]
    return "\n".join(lines)
