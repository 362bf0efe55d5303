"""Patterns of paths: what the names of folders and files say of an image.

``{camera}/{date:%Y-%m-%d}/{name}`` reads ``dock/2026-03-02/a.jpg``. A field is ``{name}`` (text
within one folder), ``{name:int}``, ``{name:float}`` or ``{name:<time>}``, where a time is written
in the directives of `datetime.strptime`; ``{}`` is a text that is not kept, and ``**`` any number
of folders, or all that follows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise

_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{1,2}",
    "d": r"\d{1,2}",
    "H": r"\d{1,2}",
    "M": r"\d{1,2}",
    "S": r"\d{1,2}",
    "f": r"\d{1,6}",
    "j": r"\d{3}",
    "z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%": "%",
}
_NUMBERS = {
    "int": r"[+-]?\d+",
    "float": r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?",
}
_PIECES = re.compile(r"(\{[^{}]*\}|\*\*|/)")
_TEXT = "[^/]+?"


class PathPattern:
    """A pattern of paths.

    Args:
        text: The pattern.

    Raises:
        ValueError: It is none; the error says what to write.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._types: dict[str, str] = {}
        pieces = [piece for piece in _PIECES.split(text.strip("/")) if piece]
        names: list[list[str]] = [[]]
        for before, piece in zip(["", *pieces], pieces, strict=False):
            if piece == "/":
                names.append([])
            elif piece == "**":
                names[-1].append(piece)
            elif _PIECES.fullmatch(piece):
                if before.startswith("{"):
                    raise ValueError(f"something must stand between {before} and {piece}")
                names[-1].append(self._field(piece[1:-1]))
            elif "{" in piece or "}" in piece:
                raise ValueError("a brace has no partner: write {name}, {name:int} or {date:%Y}")
            else:
                names[-1].append(re.escape(piece))
        if not self._types:
            raise ValueError("it names no field: write, for example, {camera}/{date:%Y-%m-%d}/{}")
        if text.count("**") > 1:
            raise ValueError("** stands in it twice: once is enough")
        if any("**" in name and len(name) > 1 for name in names):
            raise ValueError("** stands for whole folders: write it between slashes")
        expression = "/".join(map(_of_a_name, names))
        expression = expression.replace("**/", "(?:.*/)?").replace("**", ".*")
        self._expression = re.compile(expression, re.DOTALL)

    def values(self, path: str) -> dict[str, str | int | float] | None:
        """Return what a path says; a time in ISO 8601, UTC where it names no offset.

        Args:
            path: Path below the source, with slashes.

        Returns:
            The value of each field; None where the path is not of this pattern.
        """
        match = self._expression.fullmatch(path.strip("/"))
        if match is None:
            return None
        try:
            return {
                name: _typed(match[f"f{place}"], kind)
                for place, (name, kind) in enumerate(self._types.items())
            }
        except (ValueError, OverflowError):
            return None

    def _field(self, written: str) -> str:
        name, _, kind = written.partition(":")
        if not name:
            if kind:
                raise ValueError(f"{{{written}}} has a type and no name")
            return _TEXT
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of a field: write letters, digits and _")
        if name in self._types:
            raise ValueError(f"{{{name}}} stands in it twice")
        place = len(self._types)
        self._types[name] = kind
        return f"(?P<f{place}>{_expression_of(kind)})"


def _of_a_name(parts: list[str]) -> str:
    """Return the expression of one name of a path.

    A text ends where what follows it is found first, and is never tried longer afterwards: that
    finds a match wherever there is one, and no name takes long. Only the last text of a name goes
    on until the rest fits.
    """
    if parts == ["**"]:
        return "**"
    texts = [place for place, part in enumerate(parts) if _TEXT in part]
    expression = "".join(parts[: texts[0]] if texts else parts)
    for start, end in pairwise([*texts, len(parts)]):
        some = "".join(parts[start:end])
        expression += some if end == len(parts) else f"(?>{some})"
    return f"(?>{expression}(?![^/]))"


def _expression_of(kind: str) -> str:
    if not kind:
        return _TEXT
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    if "%" not in kind:
        raise ValueError(f"{kind!r} is no type: write int, float or a time as %Y-%m-%d")
    expression = ""
    rest = iter(kind)
    for character in rest:
        if character != "%":
            expression += re.escape(character)
            continue
        directive = next(rest, "")
        if directive not in _DIRECTIVES:
            known = " ".join(f"%{one}" for one in _DIRECTIVES if one != "%")
            raise ValueError(f"%{directive} is no part of a time here: write {known}")
        expression += _DIRECTIVES[directive]
    return expression


def _typed(text: str, kind: str) -> str | int | float:
    if not kind:
        return text
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    moment = datetime.strptime(text, kind)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
