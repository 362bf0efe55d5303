"""Keeps a task's start short."""

from __future__ import annotations

import sys
from typing import Any


class _NoPandas:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ImportError("pandas is left out while pyarrow looks for it")


def keep_pandas_out_of_pyarrow() -> None:
    """Let pyarrow decide that there is no pandas.

    pyarrow imports pandas, where it is installed, as soon as a first array is made: a third of the
    start of a process that never asks for a data frame. It asks once, so afterwards pandas can be
    imported as usual; only ``to_pandas`` is gone. For processes that are ours alone: a task.
    """
    if "pandas" in sys.modules:
        return
    blocker = _NoPandas()
    sys.meta_path.insert(0, blocker)
    try:
        import pyarrow as pa

        pa.array([])
    finally:
        sys.meta_path.remove(blocker)
