"""Groups of compiled pipelines have the same names in every process."""

from __future__ import annotations

import copy
import itertools

from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from visionloop.pipelines import registry
from visionloop.pipelines.names import settle_group_names


def renamed(spec: PipelineSpec, names: dict[str, str]) -> PipelineSpec:
    other = copy.deepcopy(spec)
    content = {name: copy.deepcopy(component) for name, component in other.components.items()}
    other.components.clear()
    for name, component in content.items():
        other.components[names.get(name, name)].CopyFrom(component)
    for dag in (other.root.dag, *(component.dag for component in other.components.values())):
        for task in dag.tasks.values():
            name = task.component_ref.name
            task.component_ref.name = names.get(name, name)
    return other


def test_groups_of_nested_pipelines_are_numbered_the_same_however_kfp_numbers_them() -> None:
    settled = copy.deepcopy(registry.load("watch").pipeline_spec)
    settle_group_names(settled)
    groups = [name for name in settled.components if name.startswith(("comp-cond", "comp-for"))]
    several = [name for name in groups if name.startswith("comp-condition-1")]
    assert len(several) > 2
    assert "comp-condition-1" in several
    for order in itertools.islice(itertools.permutations(several), 1, 24, 5):
        other = renamed(settled, dict(zip(several, order, strict=True)))
        assert other != settled
        settle_group_names(other)
        assert other == settled


def test_no_component_is_lost_and_every_reference_leads_somewhere() -> None:
    for name in registry.NAMES:
        before = registry.load(name).pipeline_spec
        after = copy.deepcopy(before)
        settle_group_names(after)
        assert len(after.components) == len(before.components)
        dags = [after.root.dag, *(component.dag for component in after.components.values())]
        led_to = {task.component_ref.name for dag in dags for task in dag.tasks.values()}
        assert led_to == set(after.components)
