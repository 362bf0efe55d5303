"""Gives the groups of a compiled pipeline the same names in every process.

Where pipelines are nested, kfp tells their conditions and loops apart by a number, in the order of
a protobuf map, which changes from process to process. The same definition would compile to
different files, and each of them would be a new version of the pipeline.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

# As kfp names a group, and what it adds where pipelines that have one of that name are nested.
_GROUP = re.compile(r"(comp-(?:condition|condition-branches|for-loop)-\d+)((?:-\d+)*)")


def settle_group_names(spec: PipelineSpec) -> None:
    """Number the groups of the same name in the order of the tasks that lead to them, in place.

    Args:
        spec: A pipeline. Every other component keeps its name.
    """
    names: dict[str, str] = {}
    taken: dict[str, int] = {}

    def visit(component: str) -> None:
        dag = spec.components[component].dag if component else spec.root.dag
        for _, task in sorted(dag.tasks.items()):
            name = task.component_ref.name
            if name in names:
                continue
            group = _GROUP.fullmatch(name)
            names[name] = name
            if group:
                base = group[1]
                taken[base] = taken.get(base, 0) + 1
                names[name] = base if taken[base] == 1 else f"{base}-{taken[base]}"
            visit(name)

    visit("")
    content = {names.get(name, name): component for name, component in spec.components.items()}
    renamed = type(spec)()
    renamed.CopyFrom(spec)
    renamed.components.clear()
    for name, component in content.items():
        renamed.components[name].CopyFrom(component)
    for dag in (renamed.root.dag, *(each.dag for each in renamed.components.values())):
        for task in dag.tasks.values():
            task.component_ref.name = names[task.component_ref.name]
    spec.CopyFrom(renamed)
