"""Patterns in braces, as shells have them: ``train-{000..009}.tar``, ``{a,b}.tar``."""

from __future__ import annotations

import re
from itertools import product

from visionloop.errors import InputError

# As many shards as a million images of 100 MB have.
MOST = 1_000_000

_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(pattern: str) -> list[str]:
    """Return what a pattern stands for, sorted and without repetitions.

    Raises:
        InputError: A group in braces is empty, a range runs backwards, or there are too many.
    """
    parts: list[list[str]] = []
    count, end = 1, 0
    for group in _GROUP.finditer(pattern):
        choices = _choices(group[1], pattern)
        parts += [[pattern[end : group.start()]], choices]
        end = group.end()
        count *= len(choices)
        if count > MOST:
            raise _wrong(f"it stands for more than {MOST:,} files", pattern)
    parts.append([pattern[end:]])
    if any(set("{}") & set(part[0]) for part in parts[::2]):
        raise _wrong("a brace is not closed, or lies within another", pattern)
    return sorted({"".join(chosen) for chosen in product(*parts)})


def _choices(text: str, pattern: str) -> list[str]:
    if found := _RANGE.fullmatch(text):
        first, last = found.groups()
        if int(first) > int(last):
            raise _wrong(f"the range {text} runs backwards", pattern)
        if int(last) - int(first) >= MOST:
            raise _wrong(f"it stands for more than {MOST:,} files", pattern)
        # As the shell does: a leading zero asks for so many digits.
        padded = (len(first) > 1 and first[0] == "0") or (len(last) > 1 and last[0] == "0")
        width = max(len(first), len(last)) if padded else 0
        return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    choices = text.split(",")
    if len(choices) < 2 or not all(choices):
        raise _wrong(f"{{{text}}} is neither a range nor a list", pattern)
    return choices


def _wrong(what: str, pattern: str) -> InputError:
    return InputError(
        f"the pattern cannot be read: {what}",
        where=pattern,
        remedy="Write a range as {000..009}, or a list as {a,b}",
    )
