"""Turn pydantic's findings into one sentence that names each field, its problem and the remedy."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from visionloop.errors import InputError

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], data: Any, *, where: str) -> M:
    """Make a model of plain data.

    Args:
        model: The pydantic model.
        data: What YAML or JSON gave.
        where: The file or section, for the error.

    Raises:
        InputError: Keys are unknown (the nearest known one is named) or values are wrong; every
            finding is told at once.
    """
    if not isinstance(data, Mapping):
        raise InputError(
            f"expected keys and values, found {type(data).__name__}",
            where=where,
            remedy=f"Begin with one of the keys {', '.join(sorted(model.model_fields))}",
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        findings = [_say(model, found) for found in error.errors(include_url=False)]
        raise InputError(
            "; ".join(findings), where=where, remedy="Correct or remove what is named"
        ) from None


def nearest(word: str, known: Iterator[str] | list[str]) -> str:
    """Return `` (did you mean `x`?)`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _say(model: type[BaseModel], error: Any) -> str:
    place = [part for part in error["loc"] if not _is_type_name(part)]
    path = ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        return f"unknown key `{path}`" + nearest(str(place[-1]), _keys_at(model, place[:-1]))
    if error["type"] == "missing":
        return f"`{path}` is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not message[:2].isupper():  # a name in capitals is not the beginning of a sentence
        message = message[:1].lower() + message[1:]
    given = error.get("input")
    shown = f", not {given!r}" if isinstance(given, (str, int, float, bool)) else ""
    return f"`{path}`: {message}{shown}" if path else message


def _is_type_name(part: int | str) -> bool:
    # Where a field is a union pydantic adds the branch that it tried to the place.
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "bool"})


def _keys_at(model: type[BaseModel], place: list[int | str]) -> list[str]:
    found: list[type[BaseModel]] = [model]
    for part in place:
        if isinstance(part, int):
            continue
        fields = [
            field
            for m in found
            for name, field in m.model_fields.items()
            if part in (name, field.alias)
        ]
        found = [inner for field in fields for inner in _models_in(field.annotation)]
    return [field.alias or key for m in found for key, field in m.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    inner = typing.get_args(annotation)
    if not inner and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in inner:
        yield from _models_in(part)
