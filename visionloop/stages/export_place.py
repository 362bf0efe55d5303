"""Where an export may not go: an export that replaces a folder must not replace what it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.lake import Lake


def refuse_own_place(lake: Lake, target: str) -> None:
    """Refuse a target that is or holds what the lake lives of.

    Args:
        lake: The lake.
        target: Folder or prefix that an export goes to.

    Raises:
        InputError: The target lies in the lake, holds it or a source, or files of samples lie
            below it.
    """
    import pyarrow.compute as pc

    where = _place(target)
    own = _place(lake.uri)
    if where.startswith(own) or own.startswith(where):
        raise InputError(
            "the target lies in the lake, or holds it",
            where=target,
            remedy="Name a folder of its own",
        )
    samples = lake.read("samples", columns=["uri", "source_uri", "source"])
    for root in samples["source"].drop_null().unique().to_pylist():
        if _place(root).startswith(where):
            raise InputError(
                f"the target holds the source {root}",
                where=target,
                remedy="Name a folder of its own",
            )
    for name in ("uri", "source_uri"):
        below = {where, _place(target, resolved=False)}
        mine = sum(pc.sum(pc.starts_with(samples[name], one)).as_py() or 0 for one in below)
        if mine:
            raise InputError(
                f"images of {mine} samples of the lake lie below the target",
                where=target,
                remedy="Name a folder of its own",
            )


def _place(uri: str, *, resolved: bool = True) -> str:
    """Return a URI with a slash at its end, of a local folder the one that links lead to."""
    from visionloop.lake.storage import local_path, normalise, scheme_of

    found = normalise(uri)
    if resolved and scheme_of(found) == "file":
        found = normalise(str(local_path(found).resolve()))
    return found.rstrip("/") + "/"
