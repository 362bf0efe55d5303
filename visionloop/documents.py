"""YAML and JSON that people write, read in one way: loop.yaml, selection configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from visionloop.errors import InputError

# What stands between quotes, what YAML calls a comment, and what JSON with comments does. An
# address such as http://host is none: a comment stands at the start or after a blank or a mark.
_QUOTED_OR_COMMENT = re.compile(
    r"""(?P<kept>"(?:\\.|[^"\\])*"|(?<=[\s,:{\[])'[^'\n]*'|(?:(?<=\s)|^)\#[^\n]*)"""
    r"""|(?:(?<=[\s,{}\[\]"])|^)(?P<comment>//[^\n]*|/\*.*?\*/)""",
    re.DOTALL | re.MULTILINE,
)


def read_document(source: str, *, remedy: str) -> tuple[Any, str, Path | None]:
    """Read YAML or JSON of a file or of the text itself.

    Args:
        source: Path or URI of a file, or the text: it has more than one line, or begins with `{`.
        remedy: What to do when the file cannot be read.

    Returns:
        What it says, its name for errors, and the folder of a file on this machine (None for text
        and for objects in a bucket).

    Raises:
        InputError: The file cannot be read, is not UTF-8 or not YAML, or a key stands twice.
    """
    if "\n" in source or source.lstrip().startswith("{"):
        return parse_document(source, where="config"), "config", None
    from visionloop.lake.storage import StorageError, local_path, name_of, open_storage

    try:
        data = open_storage(source).read(source)
    except StorageError as error:
        raise InputError(
            "cannot read the configuration", where=error.where or source, remedy=remedy
        ) from error
    folder = None if source.startswith("gs://") else local_path(source).parent
    if folder == Path("/dev"):  # /dev/stdin: what came through a pipe has no folder of its own
        folder = Path.cwd()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError("the configuration is not UTF-8 text", where=source) from None
    return parse_document(text, where=name_of(source)), name_of(source), folder


def absolute_under(folder: Path, uri: str) -> str:
    """Return a path that stands in a file of a folder as an absolute one; a URI stays as it is."""
    plain = bool(uri) and "://" not in uri and not uri.startswith(("/", "~"))
    return str((folder / uri).resolve()) if plain else uri


def without_comments(text: str) -> str:
    """Return JSON with its ``//`` and ``/* */`` comments blanked out; lines keep their numbers.

    Text that does not begin as JSON does, with a brace or such a comment, is returned as it is.
    """
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "//", "/*")):
        return text

    def blank(found: re.Match[str]) -> str:
        comment = found["comment"]
        return found[0] if comment is None else re.sub(r"[^\n]", " ", comment)

    return _QUOTED_OR_COMMENT.sub(blank, text)


def parse_document(text: str, *, where: str) -> Any:
    """Parse YAML, of which JSON is a part; JSON may have comments.

    Args:
        text: The document; None comes back for an empty one.
        where: Its name, for errors.

    Raises:
        InputError: It is not YAML, or a key stands twice; the line is told.
    """
    import yaml

    text = without_comments(text)
    try:
        _refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), where, set())
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(
            f"not valid YAML: {getattr(error, 'problem', error)}", where=f"{where}{line}"
        ) from None
    except (ValueError, RecursionError) as error:
        # A date that no calendar has, or a thousand brackets.
        raise InputError(f"not valid YAML: {error}", where=where) from None


def _refuse_repeated_keys(node: Any, where: str, visited: set[int]) -> None:
    """Refuse a key that stands twice: YAML would take the last one without a word.

    Each node is looked at once: a few lines of aliases can name one a billion times.
    """
    children = getattr(node, "value", None)
    if not isinstance(children, list) or id(node) in visited:
        return
    visited.add(id(node))
    seen: set[str] = set()
    for child in children:
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None:
            if isinstance(key.value, str) and key.value in seen:
                raise InputError(
                    f"the key `{key.value}` stands twice",
                    where=f"{where}, line {key.start_mark.line + 1}",
                    remedy="Keep one of the two",
                )
            if isinstance(key.value, str):
                seen.add(key.value)
        _refuse_repeated_keys(value, where, visited)
