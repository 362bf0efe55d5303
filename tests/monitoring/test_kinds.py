"""The registry of kinds holds every flag that the code can write, and no other."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import visionloop
from visionloop.errors import VisionloopError
from visionloop.monitoring.kinds import KINDS, SEVERITIES, kind_of, kinds_table

PACKAGE = Path(visionloop.__file__).parent
GROUPS = {"pictures", "metadata", "labels", "drift", "models", "loop"}
# Calls that name the kind of a flag, and the place of the name among their arguments.
NAMED_BY = {"flag": 1, "Problem": 1, "Drift": 0, "Limit": 0, "_limit": 0, "_unusual": 0,
            "values_drift": 0, "flag_row": 2}  # fmt: skip


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Return every module that may write flags; selection and interchange have other problems."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(PACKAGE.rglob("*.py"))
        if not {"interchange", "selection"} & set(path.parts)
        and not path.name.endswith("kinds.py")
        and path.relative_to(PACKAGE).parts[0] not in ("components", "pipelines")
    }


def constants(tree: ast.Module) -> dict[str, str]:
    """Return the module's names for strings, also of `A, B = "a", "b"`."""
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = value.elts if isinstance(value, ast.Tuple) else [value]
        if len(names) == len(values):
            pairs = zip(names, values, strict=True)
            found |= {
                name.id: one.value
                for name, one in pairs
                if isinstance(name, ast.Name)
                and isinstance(one, ast.Constant)
                and isinstance(one.value, str)
            }
    return found


def imported(tree: ast.Module, known: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the names for strings that a module has from others."""
    return {
        alias.asname or alias.name: known[node.module][alias.name]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in known
        for alias in node.names
        if alias.name in known[node.module]
    }


def named(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what stands for a kind, in a row of flags or in a call of `NAMED_BY`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            if "subject_type" in keys and "kind" in keys:
                yield node.values[keys.index("kind")]
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
            place = NAMED_BY.get(name)
            if place is not None and len(node.args) > place:
                yield node.args[place]
            if name not in ("argsort", "sort"):
                yield from (word.value for word in node.keywords if word.arg == "kind")
        elif isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            for argument, default in zip(arguments[::-1], defaults[::-1], strict=False):
                if argument.arg == "kind" and default is not None:
                    yield default


def written() -> set[str]:
    """Return the kinds that the code names where it writes flags."""
    trees = sources()
    known = {name: constants(tree) for name, tree in trees.items()}
    found = set()
    for name, tree in trees.items():
        here = known[name] | imported(tree, known)
        for expression in named(tree):
            if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
                found.add(expression.value)
            elif isinstance(expression, ast.Name) and expression.id in here:
                found.add(here[expression.id])
    return found


def test_every_kind_that_the_code_writes_is_registered() -> None:
    found = written()
    # The search itself works: it meets kinds that are written in each of its ways.
    ways = {"near_duplicate", "bad_sidecar", "media_missing", "grey", "confidence_drift"}
    assert ways | {"stale_label", "slow_stage", "camera_silent"} <= found
    assert {"label_suspect", "auto_labels_withdrawn", "unreadable"} <= found
    assert found - set(KINDS) == set()


def test_every_registered_kind_is_named_by_code_that_can_write_it() -> None:
    literals = {
        node.value
        for tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(KINDS) - literals == set()


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_says_what_it_means_and_what_to_do(name: str) -> None:
    kind = kind_of(name)
    assert kind.name == name
    assert kind.severity in SEVERITIES
    assert kind.about in GROUPS
    assert kind.title and not kind.title.endswith(".")
    for text in (kind.meaning, kind.remedy):
        assert text.endswith(".") and text[0].isupper() and "|" not in text


def test_no_two_kinds_share_a_name_or_a_title() -> None:
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)
    assert all(name == kind.name for name, kind in KINDS.items())


def test_a_kind_of_a_newer_program_is_refused_in_words() -> None:
    with pytest.raises(VisionloopError, match="'tomorrow', which this visionloop does not know"):
        kind_of("tomorrow")


def test_the_table_in_the_docs_is_the_registrys() -> None:
    page = PACKAGE.parent / "docs" / "monitoring.md"
    if not page.exists():
        pytest.skip(f"there is no {page}: an installed package has no docs")
    text = page.read_text(encoding="utf-8")
    held = text.partition("<!-- kinds -->")[2].partition("<!-- /kinds -->")[0]
    assert held.strip() == kinds_table().strip()


def test_the_table_for_people_has_one_line_a_kind() -> None:
    lines = kinds_table().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == list(KINDS)
