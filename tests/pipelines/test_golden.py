"""The pipelines as clusters get them, read back with kfp's own loader and checked by meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.components import load_component_from_file

from visionloop.pipelines import registry
from visionloop.pipelines.generated import GOLDEN, PLACEMENTS

ROOT = Path(__file__).resolve().parents[2]
# What may have an accelerator, by the name of its executor.
ACCELERATED = {"exec-infer-shard", "exec-train"}
# What goes on behind what a killed container left, with no accelerator.
RETRIED = {"exec-ingest-shard", "exec-select-shard"}
# What reads or changes the world outside the lake, or judges by the clock.
NEVER_CACHED = {
    "list-files",
    "ingest-shard",
    "ingest",
    "infer-shard",
    "plan-selection",
    "select-shard",
    "harvest",
    "monitor",
    "request-labels",
    "collect-labels",
    "publish",
    "report",
    "watch",
}
QUEUE = "kueue.x-k8s.io/queue-name"
# Two weeks: with a day's wait for a spot node in it, longer than anybody trains here.
LONGEST_TRAINING = 14 * 24 * 3600

every_file = pytest.mark.parametrize("name", registry.NAMES)
every_placement = pytest.mark.parametrize("kind", PLACEMENTS)


@cache
def read(kind: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline's specification, and what each executor asks of Kubernetes."""
    loaded = load_component_from_file(str(ROOT / GOLDEN / kind / f"{name}.yaml"))
    platform = json_format.MessageToDict(loaded.platform_spec.platforms["kubernetes"])
    return json_format.MessageToDict(loaded.pipeline_spec), platform["deploymentSpec"]["executors"]


def dags(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every component that holds tasks, the root first."""
    yield "root", spec["root"]
    for name, component in spec["components"].items():
        if "dag" in component:
            yield name, component


def tasks(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every task that runs in a pod: its executor, itself, the component that holds it."""
    for _, holder in dags(spec):
        for task in holder["dag"]["tasks"].values():
            component = spec["components"][task["componentRef"]["name"]]
            if "executorLabel" in component:
                yield component["executorLabel"], task, holder


def inputs_of(holder: dict[str, Any]) -> set[str]:
    return set(holder.get("inputDefinitions", {}).get("parameters", {}))


def seconds(duration: str) -> float:
    """A duration as protobuf writes it: 60s."""
    return float(duration.removesuffix("s"))


def without_number(label: str) -> str:
    return re.sub(r"-\d+$", "", label)


@every_placement
@every_file
def test_what_a_task_is_given_is_there_where_it_runs(kind: str, name: str) -> None:
    # kfp hands neither accelerator nor resources on into a loop by itself, and says nothing.
    spec, asked = read(kind, name)
    for where, holder in dags(spec):
        there = inputs_of(holder)
        for task_name, task in holder["dag"]["tasks"].items():
            given = task.get("inputs", {}).get("parameters", {})
            for key, value in given.items():
                source = value.get("componentInputParameter")
                assert source is None or source in there, f"{where}: {task_name} lacks {key}"
            for text in re.findall(r"inputs\.parameters\['([^']+)'\]", str(task)):
                assert text in given, f"{where}: {task_name} has no {text}"
    for label, task, holder in tasks(spec):
        given = set(task.get("inputs", {}).get("parameters", {}))
        container = spec["deploymentSpec"]["executors"][label]["container"]
        for text in re.findall(r"inputs\.parameters\['([^']+)'\]", str(container["resources"])):
            assert text in given, f"{label} has no {text}"
        for text in re.findall(r"'componentInputParameter': '([^']+)'", str(asked[label])):
            assert text in inputs_of(holder), f"the pipeline around {label} has no {text}"


@every_placement
@every_file
def test_a_task_that_may_have_an_accelerator_is_placed_whole_and_no_other_is(
    kind: str, name: str
) -> None:
    spec, asked = read(kind, name)
    placed, _ = PLACEMENTS[kind]
    found = set()
    for label, task, _ in tasks(spec):
        resources = spec["deploymentSpec"]["executors"][label]["container"]["resources"]
        wants = asked[label]
        labels = wants.get("podMetadata", {}).get("labels", {})
        if label not in ACCELERATED:
            assert "accelerator" not in resources
            assert ("retryPolicy" in task) == (label in RETRIED), label
            assert not {"nodeSelector", "tolerations", "emptyDirMounts"} & set(wants), label
            assert QUEUE not in labels, f"{label} would wait for an accelerator's quota"
            assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"] == placed.cpu
            memory = {resources[f"resourceMemory{which}"] for which in ("Request", "Limit")}
            selects = label in {"exec-plan-selection", "exec-select-shard", "exec-select"}
            assert memory == {(placed.select_memory if selects else "") or placed.memory}
            continue
        found.add(label)
        assert "accelerator_type'" in resources["accelerator"]["resourceType"]
        one = label == "exec-infer-shard"
        count = resources["accelerator"]["resourceCount"]
        assert count == "1" if one else "accelerator_count'" in count
        for what in ("Cpu", "Memory"):
            sizes = {resources[f"resource{what}{which}"] for which in ("Request", "Limit")}
            assert len(sizes) == 1 and f"accelerator_{what.lower()}'" in sizes.pop()
        selector = wants["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
        named = "node_selector" if one else "train_node_selector"
        assert selector.removeprefix("pipelinechannel--") == named
        [toleration] = wants["tolerations"]
        tolerated = toleration["tolerationJson"]["componentInputParameter"]
        assert tolerated.removeprefix("pipelinechannel--") == "tolerations"
        # Without a limit it is half the node's memory, which another pod may hold.
        [shared] = wants["emptyDirMounts"]
        assert shared == {
            "volumeName": "shared-memory",
            "mountPath": "/dev/shm",
            "medium": "Memory",
            "sizeLimit": "4Gi",
        }
        assert labels == ({QUEUE: placed.queue} if placed.queue else {})
        policy = task["retryPolicy"]
        assert policy["maxRetryCount"] == 2 and policy["backoffFactor"] > 1
        assert 0 < seconds(policy["backoffDuration"]) <= 600
        # Argo counts it from the first try's start: a spot node may go at the end of a training.
        assert seconds(policy["backoffMaxDuration"]) > LONGEST_TRAINING
    assert found == ACCELERATED & set(asked)


@every_placement
@pytest.mark.parametrize("name", ["intake", "round", "train_and_publish", "watch"])
def test_the_form_holds_the_pool_that_the_pipeline_was_compiled_for(kind: str, name: str) -> None:
    spec, _ = read(kind, name)
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    _, pool = PLACEMENTS[kind]
    for key, value in pool.items():
        if key in inputs:
            assert inputs[key]["defaultValue"] == value, key
    assert inputs["accelerator_type"]["defaultValue"] == pool.get("accelerator_type", "")


@every_placement
@every_file
def test_every_task_has_the_secret_where_there_is_one_and_the_volume_where_one_was_named(
    kind: str, name: str
) -> None:
    spec, asked = read(kind, name)
    placed, _ = PLACEMENTS[kind]
    assert set(asked) == set(spec["deploymentSpec"]["executors"])
    for label, wants in asked.items():
        [secret] = wants["secretAsVolume"]
        assert secret["mountPath"] == "/var/run/secrets/visionloop", label
        assert secret["optional"] is True, "a lake without a password needs no Secret"
        mounts = [
            (mount["pvcNameParameter"]["runtimeValue"]["constant"], mount["mountPath"])
            for mount in wants.get("pvcMount", [])
        ]
        assert mounts == ([(placed.claim, placed.mount_path)] if placed.claim else []), label


@every_placement
@every_file
def test_each_task_says_whether_it_is_cached(kind: str, name: str) -> None:
    spec, _ = read(kind, name)
    for label, task, _ in tasks(spec):
        stage = without_number(label.removeprefix("exec-"))
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (stage not in NEVER_CACHED), label


@every_placement
@pytest.mark.parametrize("name", ["intake", "select_and_label", "round", "watch"])
def test_shards_run_so_many_at_once_and_what_commits_comes_after_them(kind: str, name: str) -> None:
    spec, _ = read(kind, name)
    placed, _ = PLACEMENTS[kind]
    loops = [
        task
        for _, holder in dags(spec)
        for task in holder["dag"]["tasks"].values()
        if "parameterIterator" in task
    ]
    committing = {"intake": ["ingest", "infer"], "select_and_label": ["select"]}.get(
        name, ["ingest", "infer", "select"]
    )
    assert len(loops) == len(committing)
    for loop in loops:
        assert loop["iteratorPolicy"]["parallelismLimit"] == placed.width
        assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--shards"}
        inside = spec["components"][loop["componentRef"]["name"]]["inputDefinitions"]["parameters"]
        # A server takes an item of an untyped list for a number.
        assert inside["pipelinechannel--shards-loop-item"]["parameterType"] == "STRING"
    for task in committing:
        [holder] = [h for _, h in dags(spec) if task in h["dag"]["tasks"]]
        assert f"{task}-shards" in holder["dag"]["tasks"][task]["dependentTasks"]


@every_placement
@every_file
def test_a_file_says_which_kfp_wrote_it(kind: str, name: str) -> None:
    text = (ROOT / GOLDEN / kind / f"{name}.yaml").read_text(encoding="utf-8")
    first = re.fullmatch(r"# Made by `make generated` with kfp (\S+)\.", text.splitlines()[0])
    assert first is not None
    assert f"\nsdkVersion: kfp-{first[1]}\n" in text
