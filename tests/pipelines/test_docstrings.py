"""Public docstrings say what their signatures say, in Google's form.

ruff holds that they exist and are formatted. Held here is what it does not look at: that a
parameter that was renamed, added or removed is not described as it was before.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docstring_parser

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("visionloop", "components", "pipelines")
Function = ast.FunctionDef | ast.AsyncFunctionDef
# With one or two parameters the summary names them; with more they need their units and limits.
NAMED_IN_THE_SUMMARY = 2
# Types that say nothing of what a value means. Others are documented where they are defined.
BARE = {"str", "bytes", "int", "float", "bool", "tuple", "list", "dict", "set", "frozenset"}
# A summary that is about the value: "Return the …", "Yield each …", "Whether it …".
SAYS_THE_VALUE = re.compile(r"(Return|Yield|Whether|Say)\b")


@dataclass(frozen=True)
class Public:
    """A public function or method.

    Attributes:
        where: Its file and name.
        node: Its definition.
        text: Its docstring.
        inherited: Whether a base class or a protocol of the same module documents it.
    """

    where: str
    node: Function
    text: str
    inherited: bool

    @property
    def parameters(self) -> list[str]:
        """The names of its parameters, without itself."""
        taken = self.node.args
        named = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs]
        return [one.arg for one in named if one.arg not in ("self", "cls")]

    @property
    def described(self) -> set[str]:
        """The parameters under ``Args``."""
        parsed = docstring_parser.parse(self.text, docstring_parser.DocstringStyle.GOOGLE)
        return {one.arg_name.lstrip("*") for one in parsed.params if one.args[0] == "param"}


def public() -> Iterator[Public]:
    """Yield every public function and method of the package."""
    paths = {p.resolve() for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")}
    for path in sorted(paths):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for node in tree.body:
            yield from _public_of(node, str(path.relative_to(ROOT)), classes)


def _public_of(
    node: ast.stmt, where: str, classes: dict[str, ast.ClassDef], inherited: bool = False
) -> Iterator[Public]:
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        named = {ast.unparse(base) for base in node.bases}
        # A class need not name the protocol that it follows.
        bases = [
            one
            for name, one in classes.items()
            if one is not node and (name in named or "Protocol" in map(ast.unparse, one.bases))
        ]
        above = {one.name for base in bases for one in base.body if isinstance(one, Function)}
        for inner in node.body:
            overrides = isinstance(inner, Function) and inner.name in above
            yield from _public_of(inner, f"{where}:{node.name}", classes, overrides)
    elif isinstance(node, Function) and not node.name.startswith("_"):
        # The other half of an overloaded function or a property has no docstring of its own.
        text = ast.get_docstring(node) or ""
        if text:
            yield Public(f"{where}:{node.name}", node, text, inherited)


def raised(node: Function) -> set[str]:
    """Return the names of the exceptions that a function raises itself, by a constructor."""
    inner = {
        id(one)
        for nested in ast.walk(node)
        if isinstance(nested, (*Function.__args__, ast.Lambda)) and nested is not node
        for one in ast.walk(nested)
    }
    names = set()
    for one in ast.walk(node):
        if id(one) in inner or not isinstance(one, ast.Raise) or not isinstance(one.exc, ast.Call):
            continue
        name = ast.unparse(one.exc.func).rpartition(".")[2]
        caught = any(
            isinstance(outer, ast.Try) and any(one in ast.walk(part) for part in outer.body)
            for outer in ast.walk(node)
        )
        if name[:1].isupper() and name != "NotImplementedError" and not caught:
            names.add(name)
    return names


def test_a_description_of_parameters_names_each_and_no_other() -> None:
    wrong = {}
    for one in public():
        extra = {a.arg for a in (one.node.args.vararg, one.node.args.kwarg) if a is not None}
        if "Args:" in one.text and (
            missing := (set(one.parameters) ^ one.described) - (extra & one.described)
        ):
            wrong[one.where] = sorted(missing)
    assert wrong == {}


def test_three_parameters_or_more_are_described() -> None:
    silent = [
        one.where
        for one in public()
        if len(one.parameters) > NAMED_IN_THE_SUMMARY
        and "Args:" not in one.text
        # "…; see `Lake.read`": they are described there.
        and "see `" not in one.text
        and not one.inherited
    ]
    assert silent == []


def test_what_is_returned_is_said_where_its_type_does_not_say_it() -> None:
    silent = []
    for one in public():
        kind = re.split(r"[\[ |.]", ast.unparse(one.node.returns or ast.Constant(None)))[0]
        said = re.search(r"^(Returns|Yields):", one.text, re.MULTILINE)
        said = said or SAYS_THE_VALUE.match(one.text) or re.search(r"\breturn it\b", one.text)
        if kind in BARE and "Args:" in one.text and not said:
            silent.append(one.where)
    assert silent == []


def test_what_a_function_raises_itself_is_named() -> None:
    silent = {}
    for one in public():
        # Every command may fail with what `visionloop.errors` says; main turns it into a status.
        if one.where.startswith("visionloop/cli/") or one.inherited:
            continue
        if unnamed := {name for name in raised(one.node) if name not in one.text}:
            silent[one.where] = sorted(unnamed)
    assert silent == {}
