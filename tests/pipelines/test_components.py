"""Each component is the interface of its stage, and nothing more."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
import typing
from pathlib import Path

import docstring_parser
import pytest

from visionloop.components import registry

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = {
    "system.Dataset",
    "system.Model",
    "system.Metrics",
    "system.ClassificationMetrics",
    "system.Markdown",
    "system.HTML",
}
TYPES = {
    "String": str,
    "Integer": int,
    "Float": float,
    "Boolean": bool,
    # As kfp writes a loop's list: an untyped one fails on a server.
    "typing.List[str]": list[str],
}


def stage_function(name: str) -> typing.Any:
    return getattr(importlib.import_module(f"visionloop.stages.{name}"), name)


def module_tree(name: str) -> ast.Module:
    path = ROOT / "components" / name / "component.py"
    return ast.parse(path.read_text(encoding="utf-8"))


def component_function(name: str) -> ast.FunctionDef:
    return next(node for node in module_tree(name).body if isinstance(node, ast.FunctionDef))


def parameter_types(name: str) -> dict[str, type]:
    inputs = registry.load(name).component_spec.inputs or {}
    return {key: TYPES[value.type] for key, value in inputs.items() if value.type in TYPES}


def artifact_names(name: str) -> set[str]:
    spec = registry.load(name).component_spec
    every = {**(spec.inputs or {}), **(spec.outputs or {})}
    return {key for key, value in every.items() if value.type.split("@")[0] in ARTIFACTS}


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_component_has_the_parameters_of_its_stage(name: str) -> None:
    function = stage_function(name)
    hints = typing.get_type_hints(function)
    hints.pop("return")
    artifacts = artifact_names(name)
    plain = {key: hint for key, hint in hints.items() if hint in (str, int, float, bool)}
    assert plain == parameter_types(name)
    assert set(hints) - set(plain) == artifacts
    for key in artifacts:
        # A stage can be called without a pipeline: every artifact may be absent.
        parameter = inspect.signature(function).parameters[key]
        assert parameter.default is None, f"{name}.{key} must default to None"
        assert types.NoneType in typing.get_args(hints[key])


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_component_has_the_outputs_of_its_stage_in_their_order(name: str) -> None:
    returned = typing.get_type_hints(stage_function(name))["return"]
    fields = typing.get_type_hints(returned)
    outputs = registry.load(name).component_spec.outputs or {}
    plain = {key: TYPES[value.type] for key, value in outputs.items() if value.type in TYPES}
    assert plain == fields
    assert list(returned._fields) == [key for key in outputs if key in plain]


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_stage_takes_its_arguments_by_name_only(name: str) -> None:
    kinds = {p.kind for p in inspect.signature(stage_function(name)).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_body_is_one_import_of_its_stage_and_one_call(name: str) -> None:
    body = component_function(name).body
    docstring, imported, call = body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(imported, ast.ImportFrom)
    assert imported.module == f"visionloop.stages.{name}"
    assert [alias.name for alias in imported.names] == [name]
    assert isinstance(call, ast.Return) and isinstance(call.value, ast.Call)
    passed = {keyword.arg: keyword.value for keyword in call.value.keywords}
    taken = {argument.arg for argument in component_function(name).args.args}
    assert set(passed) == taken
    for key, value in passed.items():
        assert isinstance(value, ast.Name) and value.id == key, f"{name} passes {key} as another"


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_component_module_imports_only_typing_kfp_and_the_image(name: str) -> None:
    imported = set()
    for node in module_tree(name).body:
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert imported <= {"typing", "kfp", "visionloop.components.image"}


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_input_and_output_is_documented(name: str) -> None:
    function = component_function(name)
    written = docstring_parser.parse(ast.get_docstring(function) or "")
    described = {entry.arg_name for entry in written.params if entry.description}
    assert {argument.arg for argument in function.args.args} <= described
    for key, value in (registry.load(name).component_spec.outputs or {}).items():
        if value.type in TYPES:
            assert value.description, f"the output {key} is not described"


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_component_leaves_at_most_one_page(name: str) -> None:
    outputs = registry.load(name).component_spec.outputs or {}
    pages = [
        key for key, value in outputs.items() if "Markdown" in value.type or "HTML" in value.type
    ]
    # The Kubeflow Pipelines UI draws the first of each and drops the others.
    assert len(pages) <= 1


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_component_leaves_numbers_for_the_list_of_runs(name: str) -> None:
    outputs = registry.load(name).component_spec.outputs or {}
    held = [key for key, value in outputs.items() if value.type.startswith("system.Metrics@")]
    assert held == ["metrics"]


def test_there_is_a_component_for_every_stage() -> None:
    folders = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
    assert folders == set(registry.NAMES)


def test_every_component_runs_in_the_one_image_without_installing_anything() -> None:
    from visionloop.components.image import IMAGE

    for name in registry.NAMES:
        container = registry.load(name).component_spec.implementation.container
        assert container.image == IMAGE
        assert "pip install" not in " ".join([*container.command, *(container.args or [])])
