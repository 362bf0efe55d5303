"""The picks of a selection for a person: a file of their own, and the text on the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.selection.advice import Advice

ENDINGS = (".csv", ".parquet")
_SHOWN = 20
_NARROW = 60


def check_output(path: Path) -> None:
    """Make the file's folder and try to write there: better known before the work than after it.

    Raises:
        InputError: The file has another ending, or cannot be written there.
    """
    where = f"--output {path}"
    if path.suffix not in ENDINGS:
        raise InputError("picks are written as .csv or .parquet", where=where)
    if path.is_dir():
        raise InputError("a folder lies there", where=where, remedy="Name a file")
    fresh = _beside(path)
    try:
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(b"")
        fresh.unlink()
    except OSError as error:
        raise InputError(
            f"the picks cannot be written there: {error.strerror}: {error.filename}",
            where=where,
            remedy="Name a file in a folder that you may write to",
        ) from error


def write_picks(picks: pa.Table, path: Path) -> None:
    """Write a file, whole or not at all.

    Args:
        picks: As of `visionloop.selection.record.picks_table`.
        path: A file that `check_output` let pass.
    """
    fresh = _beside(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(picks, fresh)
        else:
            import csv

            with fresh.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, picks.column_names)
                writer.writeheader()
                writer.writerows(picks.to_pylist())
        fresh.replace(path.resolve())
    finally:
        fresh.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    whole = path.resolve()
    return whole.with_name(f".{whole.name}.{os.getpid()}.new")


def text_of(result: dict[str, Any], advice: Advice, output: str | None) -> str:
    """Return what a person reads: the first picks and why, the counts, and the advice.

    Args:
        result: What `visionloop select --json` prints.
        advice: Whether more labels are worth it.
        output: The file that was written; None where none was.
    """
    from visionloop.selection.advice import headline

    lines = []
    if result["picks"]:
        lines.append(f"{'rank':>4}  {'sample':<16}  why")
    for pick in result["picks"][:_SHOWN]:
        why = str(pick["why"]).removeprefix("Picked because ").removesuffix(".")
        lines.append(_wrapped(f"{pick['rank']:>4}  {pick['sample_id'][:16]}  ", why))
    if len(result["picks"]) > _SHOWN:
        more = "" if output else ": see --json or --output"
        lines.append(f"   …  and {len(result['picks']) - _SHOWN:,} more{more}")
    lines += _counts(result)
    lines.append(f"{headline(advice)}.")
    lines += [_wrapped("  ", reason) for reason in advice.reasons]
    if result["saved"]:
        lines.append("saved as {name}, lake version {lake_version}".format(**result["saved"]))
    if output:
        lines.append(output)
    return "\n".join(lines)


def _counts(result: dict[str, Any]) -> list[str]:
    chosen = f"{result['n_selected']:,} selected of {result['eligible']:,} eligible"
    if result["passed_over"]:
        chosen += (
            f"; {result['passed_over']:,} passed over as near duplicates of others of the batch "
            "or of labelled ones"
        )
    pool = f"The pool has {result['pool']:,} samples"
    if result["holdout"]:
        pool += f", the holdout {result['holdout']:,} others"
    removed = ", ".join(f"{count:,} {why}" for why, count in result["removed"].items() if count)
    if removed:
        pool += f"; not eligible: {removed}"
    return [_wrapped("", f"{chosen}."), _wrapped("", f"{pool}.")]


def _wrapped(head: str, text: str) -> str:
    """Return a text after its head; on a terminal its lines end where the terminal does."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if width < _NARROW:
        return head + text
    return textwrap.fill(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
