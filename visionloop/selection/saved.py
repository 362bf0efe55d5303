"""Selections that a person made outside of the rounds and gave a name."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import pyarrow as pa

from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.lake import Lake

TABLE = "named_selections"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_name(lake: Lake, name: str) -> None:
    """Refuse a name that cannot be one.

    Raises:
        InputError: It has other characters than letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "the name of a selection has letters, digits, dots, dashes and underscores, at most 63",
            where=f"--save {name}",
            remedy=f"For example: --save {lake.loop}-night",
        )


def saved_already(lake: Lake, name: str) -> int:
    """Return how many samples the lake's selection of this name has; 0 where there is none."""
    return int(lake.read(TABLE, columns=["sample_id"], where=f"name == '{name}'").num_rows)


def name_is_taken(name: str, samples: int) -> InputError:
    """Return the error of other picks under a name than the lake has.

    Args:
        name: The name.
        samples: How many samples the lake's selection has.
    """
    return InputError(
        f"the lake has another selection of this name, of {samples} samples",
        where=f"--save {name}",
        remedy="Give another name",
    )


def save_selection(lake: Lake, name: str, rows: pa.Table) -> str:
    """Write picks to the lake under a name.

    No round takes note: nobody is asked for a label, and a later selection may pick the same
    samples again.

    Args:
        lake: The lake.
        name: The name.
        rows: As of `visionloop.selection.record.selection_rows`.

    Returns:
        The lake's version with the picks. The same picks may be saved again.

    Raises:
        InputError: Other picks have the name.
    """
    check_name(lake, name)
    named = rows.add_column(0, "name", pa.array([name] * rows.num_rows, pa.string()))
    # A run of its own: it must not count as a sign of life of the round that is open.
    with lake.run(stage="save_selection", run_id=f"select-{uuid.uuid4().hex[:12]}") as run:
        here = f"name == '{name}'"
        before = run.read(TABLE, columns=["sample_id", "rank", "arm"], where=here)
        if before.num_rows:
            columns = ["sample_id", "rank", "arm"]
            if before.sort_by("rank").to_pylist() != rows.select(columns).to_pylist():
                raise name_is_taken(name, before.num_rows)
        run.replace(TABLE, named, here)
        return run.commit(counts={"saved": rows.num_rows})
