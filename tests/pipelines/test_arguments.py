"""What a pipeline is started with."""

from __future__ import annotations

import json

import pytest

from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.pipelines import registry
from visionloop.pipelines.arguments import (
    convert,
    find_pipeline,
    missing,
    parameters,
    pipeline_arguments,
)

POOL = {"pool": "gpu"}


def test_every_argument_of_a_configuration_is_a_parameter_of_some_pipeline() -> None:
    config = load_config("{lake: gs://bucket/lake}")
    known = set().union(*(parameters(name) for name in registry.NAMES))
    assert set(pipeline_arguments(config)) <= known


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_pipeline_gets_its_own_arguments_only(name: str) -> None:
    config = load_config("{lake: gs://bucket/lake}")
    assert set(pipeline_arguments(config, name)) <= set(parameters(name))
    assert not set(missing(name, pipeline_arguments(config, name))) - {"lake_version", "round_id"}


def test_a_share_of_the_pool_is_left_to_the_stage() -> None:
    config = load_config('{"lake": "gs://b/l", "selection": {"proportion_samples": 0.1}}')
    assert pipeline_arguments(config)["n_samples"] == 0


def test_the_configuration_crosses_as_text_that_reads_back_the_same() -> None:
    config = load_config('{"lake": "gs://b/l", "sources": [{"uri": "gs://b/i", "copy": true}]}')
    text = pipeline_arguments(config)["config"]
    assert load_config(text) == config
    assert json.loads(text)["sources"][0]["copy"] is True


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_samples", "50", 50),
        ("take_over", "true", True),
        ("take_over", "False", False),
        ("strategy", "50", "50"),
        ("node_selector", '{"pool": "gpu"}', {"pool": "gpu"}),
        ("tolerations", "[]", []),
    ],
)
def test_a_value_is_read_as_its_parameters_type(name: str, text: str, value: object) -> None:
    assert convert("round", name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n_samples", "many"),
        ("n_samples", "1.5"),
        ("take_over", "maybe"),
        ("node_selector", "[]"),
        ("node_selector", "{"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"`{name}` takes"):
        convert("round", name, text)


def test_a_pipeline_is_found_with_dashes_and_a_slip_names_the_nearest() -> None:
    assert find_pipeline("select-and-label") == "select_and_label"
    with pytest.raises(InputError, match="did you mean `harvest`"):
        find_pipeline("harvets")


def test_a_task_that_waits_for_its_trainjob_asks_for_no_accelerator_and_no_gpu_node() -> None:
    cluster = {"accelerator_type": "nvidia.com/gpu", "accelerator_count": 4, "node_selector": POOL}
    found = {}
    for runner in ("pod", "trainjob"):
        training = {"runner": runner}
        text = json.dumps({"lake": "gs://b/lake", "cluster": cluster, "training": training})
        found[runner] = pipeline_arguments(load_config(text), "round")
    assert found["pod"]["runner"] == "pod" and found["trainjob"]["runner"] == "trainjob"
    assert [found[r]["accelerator_count"] for r in ("pod", "trainjob")] == [4, 0]
    assert [found[r]["train_node_selector"] for r in ("pod", "trainjob")] == [POOL, {}]
    # The shards of infer have theirs either way.
    assert found["trainjob"]["node_selector"] == POOL
