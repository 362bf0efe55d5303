"""Stages that the tests' own pipelines run in child processes."""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

from visionloop.errors import InputError
from visionloop.progress import progress
from visionloop.task import stage


class Counted(NamedTuple):
    n_counted: int
    trainable_version: str


@stage
def count(*, n: int, page=None) -> Counted:
    with progress("count", total=n, unit="beans") as work:
        for _ in range(n):
            work.advance()
        work.note("all of them")
    if page is not None:
        with open(page.path, "w", encoding="utf-8") as file:
            file.write("# counted")
    return Counted(n_counted=n, trainable_version="v1" if n > 2 else "")


@stage
def fail(*, how: str) -> Counted:
    if how == "input":
        raise InputError("the bean is blue", where="field bean", remedy="Paint it green")
    if how == "bug":
        raise KeyError("bean")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    return Counted(0, "")
