"""Notes which tables a task reads and which modules it loads.

Put on PYTHONPATH, it is imported as a task's Python starts. In the folder that
``VISIONLOOP_TEST_NOTES`` names, a line is added to the file ``reads`` with each read (the stage,
then the table), and to ``modules`` at the end (the stage, then every module's top-level name).
"""

from __future__ import annotations

import atexit
import functools
import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

TARGET = "visionloop.lake.lake"
VECTORS = ("embeddings", "embedding_blocks", "embedded")


class Spy(importlib.abc.MetaPathFinder):
    """Wraps the reading methods of `Lake` once its module has been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            for method in ("read", "table", "batches", *VECTORS):
                setattr(module.Lake, method, noted(getattr(module.Lake, method)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def noted(method: Any) -> Any:
    """Return a reading method that notes the table before it reads."""

    @functools.wraps(method)
    def read(self: Any, table: str, *more: Any, **arguments: Any) -> Any:
        note("reads", "embeddings" if method.__name__ in VECTORS else table)
        return method(self, table, *more, **arguments)

    return read


def note(file: str, what: str) -> None:
    """Add a line: the stage, which is the function that KFP executes, and what it did."""
    stage = next((argument for argument in sys.argv if argument.isidentifier()), "")
    with (Path(os.environ["VISIONLOOP_TEST_NOTES"]) / file).open("a", encoding="utf-8") as notes:
        notes.write(f"{stage} {what}\n")


def note_modules() -> None:
    """Note what was loaded in the end."""
    # A namespace that a package's .pth file makes in every process is nothing that was loaded.
    loaded = {name.partition(".")[0] for name, m in sys.modules.items() if hasattr(m, "__file__")}
    note("modules", " ".join(sorted(loaded)))


if "VISIONLOOP_TEST_NOTES" in os.environ:
    sys.meta_path.insert(0, Spy())
    atexit.register(note_modules)
