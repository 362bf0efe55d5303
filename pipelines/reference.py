"""Writes the reference of the components as Markdown, from their signatures and docstrings.

Where a component is cached and placed is read out of the compiled pipelines, so that a page cannot
say what the YAML does not.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docstring_parser

from visionloop.components import registry as components
from visionloop.pipelines import registry as pipelines

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

COMMAND = "make generated"
_NOTE = f"<!-- Made by `{COMMAND}` from {{source}}: change that, and run it again. -->"
_TYPES = {
    "String": "str",
    "Integer": "int",
    "Float": "float",
    "Boolean": "bool",
    "typing.List[str]": "list[str]",
}
_RELATION = re.compile(r"^(Reads|Writes): (.*?)(?=^\w+: |\n\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Placement:
    """How one pipeline runs a component.

    Attributes:
        pipeline: Name of the pipeline; a pipeline inside another speaks for itself.
        cached: Whether KFP may skip the task when its inputs are those of an earlier one.
        accelerator: Whether the pipeline's parameters can give it an accelerator.
        retries: How often KFP starts it again when it fails.
    """

    pipeline: str
    cached: bool
    accelerator: bool
    retries: int


@dataclass(frozen=True)
class Relations:
    """What a component reads and writes, as its docstring says.

    Attributes:
        reads: Tables of the lake that it reads.
        writes: Tables of the lake that it writes.
        reads_besides: What it reads that is no table, in words.
        writes_besides: What it writes that is no table, in words.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    reads_besides: str
    writes_besides: str


def relations(name: str) -> Relations:
    """Return what a component reads and writes.

    Args:
        name: Name of the component.

    Returns:
        The lines ``Reads:`` and ``Writes:`` of its docstring, whose tables stand before what is
        none, after a semicolon.
    """
    text = inspect.cleandoc(_function(name).__doc__ or "")
    found = {match[1]: " ".join(match[2].split()) for match in _RELATION.finditer(text)}
    reads, reads_besides = split_tables(found.get("Reads", ""))
    writes, writes_besides = split_tables(found.get("Writes", ""))
    return Relations(reads, writes, reads_besides, writes_besides)


def placements(name: str) -> list[Placement]:
    """Return how the pipelines run a component.

    Args:
        name: Name of the component.

    Returns:
        One entry for each pipeline that names it itself, in the order of the registry.
    """
    found = []
    for pipeline in pipelines.NAMES:
        spec = pipelines.load(pipeline).pipeline_spec
        executors = spec.deployment_spec["executors"]
        for task, component in _own_tasks(spec):
            label = component.executor_label
            # KFP numbers the second use of a component in a pipeline.
            if re.sub(r"-\d+$", "", label) != f"exec-{name.replace('_', '-')}":
                continue
            container = executors[label]["container"]
            placed = "resources" in container and "accelerator" in container["resources"]
            found.append(
                Placement(
                    pipeline=pipeline,
                    cached=task.caching_options.enable_cache,
                    accelerator=placed,
                    retries=task.retry_policy.max_retry_count,
                )
            )
    return found


def component_page(name: str) -> str:
    """Return the README of a component.

    Args:
        name: Name of the component.

    Returns:
        Markdown.
    """
    component = components.load(name)
    spec = component.component_spec
    inputs, outputs = spec.inputs or {}, spec.outputs or {}
    about = _about(name)
    described = {entry.arg_name: _line(entry.description) for entry in about.params}
    # An artifact that a component leaves is an argument of its function, and no input.
    parameters = [
        [f"`{key}`", _TYPES[value.type], _default(value), described.get(key, "")]
        for key, value in inputs.items()
        if value.type in _TYPES
    ]
    taken = [
        [f"`{key}`", _artifact(value.type), described.get(key, "")]
        for key, value in inputs.items()
        if value.type not in _TYPES
    ]
    returned = [
        [f"`{key}`", _TYPES[value.type], _line(value.description)]
        for key, value in outputs.items()
        if value.type in _TYPES
    ]
    left = [
        [f"`{key}`", _artifact(value.type), described.get(key, "")]
        for key, value in outputs.items()
        if value.type not in _TYPES
    ]
    lines = [
        _NOTE.format(source="component.py"),
        "",
        f"# {name}",
        "",
        str(inspect.getdoc(_module(name))),
        "",
        *_prose(about),
        "## Inputs",
        "",
        _table(["parameter", "type", "default", "what it is"], parameters),
        "",
    ]
    if taken:
        lines += [_table(["artifact taken", "type", "what it is"], taken), ""]
    lines += ["## Outputs", "", _table(["parameter", "type", "what it is"], returned), ""]
    if left:
        lines += ["## Artifacts left", "", _table(["artifact", "type", "what it is"], left), ""]
    lines += [*_lake(name), *_running(name), *_use(name, component)]
    return "\n".join(lines)


def index_page() -> str:
    """Return the page that lists every component.

    Returns:
        Markdown, with links as they are from ``docs/``.
    """
    rows, lake = [], []
    for name in components.NAMES:
        spec = components.load(name).component_spec
        outputs = [f"`{key}`" for key, v in (spec.outputs or {}).items() if v.type in _TYPES]
        left = [
            f"`{key}` ({_artifact(value.type)})"
            for key, value in (spec.outputs or {}).items()
            if value.type not in _TYPES
        ]
        link = f"[{name}](../components/{name}/README.md)"
        summary = _line(inspect.getdoc(_module(name)))
        rows.append([link, summary, ", ".join(outputs), ", ".join(left) or "-"])
        touched = relations(name)
        run_in = placements(name)
        lake.append(
            [
                link,
                ", ".join(f"`{table}`" for table in touched.writes) or "-",
                "by the lake's version" if any(one.cached for one in run_in) else "never",
                ", ".join(f"`{one.pipeline}`" for one in run_in),
            ]
        )
    return "\n".join(
        [
            _NOTE.format(source="components/*/component.py"),
            "",
            "# Components",
            "",
            "One a stage, in the order of the loop. Each is a folder of `components/`: its"
            " interface (`component.py`), its specification for other people's pipelines"
            " (`component.yaml`) and its page (`README.md`). The compiled pipelines lie in"
            " `pipelines/`; [architecture.md](architecture.md) says how they are composed.",
            "",
            _table(["component", "what it does", "outputs", "artifacts"], rows),
            "",
            "## What they write, and when they are skipped",
            "",
            "A stage that reads the outside world, or judges by the clock, runs every time; the "
            "others are skipped where they ran before on the same version of the lake with the "
            "same parameters.",
            "",
            _table(["component", "tables written", "cached", "pipelines"], lake),
            "",
        ]
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"visionloop.components.{name}.component")


def _function(name: str) -> Any:
    return components.load(name).python_func


def _about(name: str) -> docstring_parser.Docstring:
    return docstring_parser.parse(
        _function(name).__doc__ or "", style=docstring_parser.DocstringStyle.GOOGLE
    )


def _prose(about: docstring_parser.Docstring) -> Iterator[str]:
    """Yield the docstring's own words: its summary, and what is said before the arguments."""
    for text in (about.short_description, about.long_description):
        kept = _RELATION.sub("", text or "").strip()
        if kept:
            yield kept
            yield ""


def _lake(name: str) -> list[str]:
    touched = relations(name)

    def told(tables: Sequence[str], besides: str) -> str:
        named = ", ".join(f"`{table}`" for table in tables)
        return "; ".join(part for part in (named, besides) if part) or "-"

    return [
        "## What it reads and writes",
        "",
        _table(
            ["", "tables of the lake; what is besides them"],
            [
                ["reads", told(touched.reads, touched.reads_besides)],
                ["writes", told(touched.writes, touched.writes_besides)],
            ],
        ),
        "",
        "Every stage also reads `rounds`, and records its run in `stage_runs`.",
        "",
    ]


def _running(name: str) -> list[str]:
    rows = [
        [
            f"`{one.pipeline}`",
            "where it ran on the same version of the lake" if one.cached else "never",
            "by the pipeline's parameters" if one.accelerator else "no",
            f"{one.retries}, with back-off" if one.retries else "no",
        ]
        for one in placements(name)
    ]
    return [
        "## Where it runs",
        "",
        _table(["pipeline", "skipped (cached)", "accelerator", "retries"], rows),
        "",
    ]


def _use(name: str, component: BaseComponent) -> list[str]:
    needed = [
        key for key, value in (component.component_spec.inputs or {}).items() if not value.optional
    ]
    return [
        "## In a pipeline of your own",
        "",
        "```python",
        "from kfp import components",
        "",
        f'{name} = components.load_component_from_file("components/{name}/component.yaml")',
        f"task = {name}({', '.join(f'{key}=…' for key in needed)})",
        "```",
        "",
    ]


def split_tables(text: str) -> tuple[tuple[str, ...], str]:
    """Return the names of tables in ``files, samples; the sources.``, and the rest in words."""
    named, _, besides = text.rstrip(".").partition(";")
    names = [word.strip() for word in named.split(",")]
    if named == "nothing" or not all(re.fullmatch(r"[a-z_]+", word) for word in names):
        return (), text.rstrip(".")
    return tuple(names), besides.strip()


def _own_tasks(spec: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a pipeline's tasks, also inside its conditions, but not those of pipelines in it."""
    # A part of a round is nested in the pipeline of its own name, which it is all of.
    own = spec.pipeline_info.name
    nested = {f"comp-{name.replace('_', '-')}" for name in pipelines.NAMES} - {f"comp-{own}"}
    waiting = [spec.root.dag]
    while waiting:
        for task in waiting.pop().tasks.values():
            label = task.component_ref.name
            component = spec.components[label]
            if component.executor_label:
                yield task, component
            elif label not in nested:
                waiting.append(component.dag)


def _artifact(kind: str) -> str:
    return kind.split("@")[0].removeprefix("system.")


def _default(value: Any) -> str:
    if not value.optional:
        return "needed"
    if isinstance(value.default, float) and value.type == "Integer":
        return f"`{int(value.default)}`"
    return f"`{value.default!r}`".replace("'", '"')


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *(line(row) for row in rows)])


def pages() -> Mapping[str, str]:
    """Return every page by its path in the repository.

    Returns:
        Markdown by path.
    """
    written = {f"components/{name}/README.md": component_page(name) for name in components.NAMES}
    return {**written, "docs/components.md": index_page()}
