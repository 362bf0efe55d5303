"""Send what waits to those who are told of new flags, decisions and failures; or try each of them.

Stages send by themselves, and what a receiver did not take goes out with the next stage. This
command sends at once what waits, and what is new in the lake.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from visionloop.cli.configuration import add_lake_options, lake_config, open_existing
from visionloop.cli.parser import show
from visionloop.errors import InputError
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--test",
        action="store_true",
        help="send each receiver a test event, once, and say what came back; needs no lake",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        InputError: The configuration names nobody.
    """
    config = lake_config(args, looks_only=args.test)
    if not config.notify.to:
        raise InputError(
            "the configuration names nobody who is told",
            where="notify.to",
            remedy="Name a receiver: `notify: {to: [{url: https://…}]}` in loop.yaml",
        )
    return _test(config, as_json=args.json) if args.test else _send(config, as_json=args.json)


def _test(config: LoopConfig, *, as_json: bool) -> int:
    from visionloop.monitoring.notifying.delivery import send
    from visionloop.monitoring.notifying.events import trial_event

    event, answers, lines = trial_event(config.name, config.lake), [], []
    for receiver in config.notify.to:
        answer = send(receiver, event, timeout=config.notify.timeout_seconds, tries=1)
        taken = answer.state == "taken"
        answers.append({"name": receiver.name, "taken": taken, "answer": answer.told})
        said = "took it" if taken else "did not take it"
        lines.append(f"{receiver.name}: {said} in {answer.seconds:.2f} s: {answer.told}")
    show({"receivers": answers, "event": event.id}, as_json=as_json, text="\n".join(lines))
    return 0 if all(answer["taken"] for answer in answers) else 1


def _send(config: LoopConfig, *, as_json: bool) -> int:
    from visionloop.monitoring.notifying.noticing import tell_new

    lake = open_existing(config.lake, config.catalog, config.name)
    sent = tell_new(lake, config.notify)
    result = {
        "taken": sent.taken,
        "waiting": sent.left,
        "refused": sent.refused,
        "expired": sent.expired,
    }
    text = f"{counted(sent.taken, 'event')} taken, {sent.left:,} waiting, {sent.refused:,} refused"
    show(result, as_json=as_json, text=text)
    return 1 if sent.left or sent.refused else 0
