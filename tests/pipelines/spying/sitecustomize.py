"""Notes which tables a task reads: put on PYTHONPATH, it is imported as a task's Python starts.

One line per read is appended to the file that ``VISIONLOOP_TEST_READS`` names: the stage, then the
table.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
from typing import Any

TARGET = "visionloop.lake.lake"


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
            for method in ("read", "embeddings"):
                setattr(module.Lake, method, noted(getattr(module.Lake, method)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def noted(method: Any) -> Any:
    """Return a reading method that notes the table before it reads."""

    @functools.wraps(method)
    def read(self: Any, table: str, **arguments: Any) -> Any:
        stage = next((a for a in sys.argv if a.isidentifier()), "")
        name = "embeddings" if method.__name__ == "embeddings" else table
        with open(os.environ["VISIONLOOP_TEST_READS"], "a", encoding="utf-8") as file:
            file.write(f"{stage} {name}\n")
        return method(self, table, **arguments)

    return read


if "VISIONLOOP_TEST_READS" in os.environ:
    sys.meta_path.insert(0, Spy())
