"""An argument parser whose errors are our errors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from visionloop import environment
from visionloop.errors import InputError, VisionloopError
from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.value_forms import Form


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `InputError` instead of printing a usage text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments.

        Raises:
            InputError: Always.
        """
        raise InputError(message, where=self.prog, remedy=f"See {self.prog} --help")


def add_address_options(parser: argparse._ActionsContainer, *, port: int) -> None:
    """Add the options of a command that serves: where it listens, and who is told.

    Args:
        parser: The command's parser, or a group of it.
        port: The port where none is named.
    """
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s; a pod: 0.0.0.0")
    parser.add_argument(
        "--port", type=int, default=port, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--port-file",
        default=environment.port_file(),
        metavar="FILE",
        help="gets the port that is used (default: VISIONLOOP_PORT_FILE)",
    )


def refuse_address_options(args: argparse.Namespace, *, port: int) -> None:
    """Refuse the options of `add_address_options` where nothing is served.

    Args:
        args: The command's arguments.
        port: The port where none is named.

    Raises:
        InputError: One was given.
    """
    given = {
        "--host": args.host != "127.0.0.1",
        "--port": args.port != port,
        "--port-file": args.port_file != environment.port_file(),
    }
    refuse_without_serve([option for option, there in given.items() if there])


def refuse_without_serve(options: Sequence[str]) -> None:
    """Refuse options that only a server reads.

    Args:
        options: Those that were given.

    Raises:
        InputError: There is one.
    """
    for option in options:
        raise InputError(
            f"{option} is for a server, and nothing is served here",
            where=option,
            remedy=f"Leave {option} out, or add --serve",
        )


def namespace(text: str) -> str:
    """Return the value of an option that names a namespace.

    Raises:
        argparse.ArgumentTypeError: Kubernetes would refuse it.
    """
    from visionloop.value_forms import LABEL

    return _of_form(LABEL, text)


def image(text: str) -> str:
    """Return the value of an option that names an image.

    Raises:
        argparse.ArgumentTypeError: No registry could have it.
    """
    from visionloop.value_forms import IMAGE

    return _of_form(IMAGE, text)


def _of_form(form: Form, text: str) -> str:
    try:
        return form.check(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None


def show(result: dict[str, Any], *, as_json: bool, text: str) -> None:
    """Print a command's result on the standard output.

    Args:
        result: The result for programs.
        as_json: Whether a program reads it.
        text: The result for people.
    """
    print(json.dumps(result, default=str) if as_json else text)


def say(text: str) -> None:
    """Print something for a person that is not the result: it goes to the standard error stream."""
    if environment.json_logs():
        log(text)
    else:
        print(text, file=sys.stderr, flush=True)


def tell_error(
    error: VisionloopError, *, before: str = "", after: str = "", traceback: str = ""
) -> None:
    """Print why a command failed, on the standard error stream.

    Args:
        error: What happened.
        before: Words before it, such as the task that failed.
        after: Words behind it, such as where the log is.
        traceback: Printed first, where it is wanted.
    """
    if environment.json_logs():
        told = {"what": error.what, "where": error.where, "remedy": error.remedy}
        more = {"traceback": traceback} if traceback else {}
        status = error.exit_status
        log(f"{before}{error}{after}", level="error", exit_status=status, **told, **more)
        return
    print(f"{traceback}error: {before}{error}{after}", file=sys.stderr)
