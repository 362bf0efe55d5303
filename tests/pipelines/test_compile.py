"""What the compiled pipelines say to a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from visionloop.cli import main
from visionloop.components import registry as components
from visionloop.components.image import IMAGE
from visionloop.errors import InputError
from visionloop.pipelines import registry as pipelines
from visionloop.pipelines.compiling import compile_all, compile_component, compile_pipeline
from visionloop.pipelines.placing import Placed
from visionloop.submission.packages import name_on_server

# What reads or changes the world outside the lake's versions must run every time.
NEVER_CACHED = {
    "list_files",
    "monitor",
    "ingest_shard",
    "ingest",
    "infer_shard",
    "plan_selection",
    "select_shard",
    "harvest",
    "request_labels",
    "collect_labels",
    "publish",
    "report",
    "watch",
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compile_all(folder)
    return folder


def spec_and_platform(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return documents[0], documents[1] if len(documents) > 1 else {}


def dags(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["root"]["dag"]] + [c["dag"] for c in spec["components"].values() if "dag" in c]


def all_tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every executed task of a pipeline, however deep, by the name of its stage."""
    found = {}
    for dag in dags(spec):
        for name, task in dag["tasks"].items():
            component = spec["components"][task["componentRef"]["name"]]
            if "executorLabel" in component:
                found[name.replace("-", "_")] = task
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_compiling_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    config = tmp_path / "loop.yaml"
    # Of several keys kfp makes a comment in an order of its own, and a digest tells of every byte.
    config.write_text(
        "lake: gs://bucket/lake\n"
        "cluster:\n"
        "  node_selector: {a: '1', b: '2', c: '3', d: '4', e: '5'}\n"
        "  tolerations: [{key: gpu, operator: Equal, value: x, effect: NoSchedule}]\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "visionloop", "compile", "--config", str(config)]
    for seed in ("1", "2"):
        subprocess.run(
            [*command, "--output", str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    first, second = tree(tmp_path / "1"), tree(tmp_path / "2")
    assert set(first) == {
        *(f"pipelines/{name}.yaml" for name in pipelines.NAMES),
        *(f"components/{name}/component.yaml" for name in components.NAMES),
    }
    assert first == second


def test_no_compiled_file_says_where_it_was_compiled(compiled: Path) -> None:
    here = str(Path(__file__).resolve().parents[2]).encode()
    for name, data in tree(compiled).items():
        assert here not in data, name


@pytest.mark.parametrize("name", pipelines.NAMES)
def test_caching_is_off_where_a_task_meets_the_world_and_on_elsewhere(
    compiled: Path, name: str
) -> None:
    spec, _ = spec_and_platform(compiled / "pipelines" / f"{name}.yaml")
    for stage, task in all_tasks(spec).items():
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (stage not in NEVER_CACHED), stage


@pytest.mark.parametrize("name", pipelines.NAMES)
def test_a_cached_task_is_keyed_on_the_lake_version_that_it_reads(
    compiled: Path, name: str
) -> None:
    spec, _ = spec_and_platform(compiled / "pipelines" / f"{name}.yaml")
    for stage, task in all_tasks(spec).items():
        if stage in NEVER_CACHED:
            continue
        inputs = task["inputs"]["parameters"]
        version = inputs["lake_version"]
        # Made by the task before it, or handed to the pipeline or loop: never a constant.
        made = version.get("taskOutputParameter", {}).get("outputParameterKey")
        given = version.get("componentInputParameter", "")
        assert made == "lake_version" or given.removeprefix("pipelinechannel--") == "lake_version"
        assert "run_id" not in inputs, f"{stage} is keyed on its run"


PLACEMENT = {
    "accelerator_type": ("STRING", ""),
    "tolerations": ("LIST", []),
    "accelerator_cpu": ("STRING", "2"),
    "accelerator_memory": ("STRING", "8Gi"),
}
# A task that waits for its TrainJob stays off the nodes with GPUs.
SELECTORS = {"infer-shard": "node_selector", "train": "train_node_selector"}


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("intake", ("infer-shard",)),
        ("train_and_publish", ("train",)),
        ("round", ("infer-shard", "train")),
        ("watch", ("infer-shard", "train")),
    ],
)
def test_a_value_in_the_form_reaches_the_task_through_every_pipeline_between(
    compiled: Path, name: str, stages: tuple[str, ...]
) -> None:
    spec, _ = spec_and_platform(compiled / "pipelines" / f"{name}.yaml")
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    selectors = {SELECTORS[stage]: ("STRUCT", {}) for stage in stages}
    for key, (kind, default) in (PLACEMENT | selectors).items():
        assert inputs[key]["parameterType"] == kind
        assert inputs[key]["defaultValue"] == default
    for stage in stages:
        between = chain(spec, stage)
        assert between[-1][0] == stage
        for component, task in between:
            # Node selector and tolerations are read from the inputs of the pipeline around a task.
            read_around = {SELECTORS[stage], "tolerations"} if component == stage else set()
            for key in {*PLACEMENT, SELECTORS[stage]} - read_around:
                taken = task["inputs"]["parameters"]
                # A condition or an exit handler renames what it hands on; the name stays in it.
                given = taken.get(f"pipelinechannel--{key}") or taken[key]
                assert set(given) == {"componentInputParameter"}, f"{component}: {key} is constant"
                assert given["componentInputParameter"].removeprefix("pipelinechannel--") == key


def chain(spec: dict[str, Any], stage: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the tasks that hold a stage, the stage last, from the root inwards."""

    def search(dag: dict[str, Any]) -> list[tuple[str, dict[str, Any]]] | None:
        for name, task in dag["tasks"].items():
            component = spec["components"][task["componentRef"]["name"]]
            if "executorLabel" in component:
                if name == stage:
                    return [(name, task)]
            elif (inner := search(component["dag"])) is not None:
                return [(name, task), *inner]
        return None

    return search(spec["root"]["dag"]) or []


@pytest.mark.parametrize("name", [name for name in pipelines.NAMES if name != "watch"])
def test_the_report_is_written_however_a_pipeline_ends(compiled: Path, name: str) -> None:
    spec, _ = spec_and_platform(compiled / "pipelines" / f"{name}.yaml")
    report = spec["root"]["dag"]["tasks"]["report"]
    assert report["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert report["dependentTasks"] == ["exit-handler-1"]
    assert [task for dag in dags(spec) for task in dag["tasks"] if "report" in task] == ["report"]


def test_a_round_trains_only_when_its_labels_are_finished(compiled: Path) -> None:
    spec, _ = spec_and_platform(compiled / "pipelines" / "round.yaml")
    conditions = [
        task
        for component in spec["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "select-and-label" in task.get("triggerPolicy", {}).get("condition", "")
    ]
    assert len(conditions) == 1
    # One output of a nested pipeline: on one of several the local runner finds every condition
    # false and says nothing.
    assert "select-and-label-Output'] != ''" in conditions[0]["triggerPolicy"]["condition"]
    labelled = spec["components"]["comp-select-and-label"]["outputDefinitions"]
    assert list(labelled["parameters"]) == ["Output"]


def test_every_parameter_is_described_and_all_but_the_needed_have_defaults(compiled: Path) -> None:
    needed = {
        "intake": {"config"},
        "harvest": {"config"},
        "round": {"config"},
        "watch": {"config"},
        "select_and_label": {"config", "lake_version", "round_id"},
        "train_and_publish": {"config", "lake_version", "round_id"},
    }
    for name in pipelines.NAMES:
        spec, _ = spec_and_platform(compiled / "pipelines" / f"{name}.yaml")
        inputs = spec["root"]["inputDefinitions"]["parameters"]
        assert {key for key, value in inputs.items() if not value.get("isOptional")} == needed[name]
        assert all(value.get("description") for value in inputs.values())


def test_another_image_replaces_every_image(tmp_path: Path) -> None:
    compile_all(tmp_path, placed=Placed(image="registry.example/loop:7"))
    for name, data in tree(tmp_path).items():
        assert IMAGE.encode() not in data, name
        assert b"image: registry.example/loop:7" in data, name


def test_the_image_can_be_named_by_the_environment() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "from visionloop.components.image import IMAGE; print(IMAGE)"],
        env={**os.environ, "VISIONLOOP_IMAGE": "registry.example/loop:8"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.strip() == "registry.example/loop:8"


def test_a_configuration_becomes_the_defaults_of_the_form(tmp_path: Path) -> None:
    config = tmp_path / "loop.yaml"
    config.write_text(
        "lake: gs://bucket/lake\n"
        "selection: {n_samples: 33, strategy: diversity}\n"
        "training: {architecture: resnet18, epochs: 7}\n"
        "cluster:\n"
        "  accelerator_type: nvidia.com/gpu\n"
        "  accelerator_count: 2\n"
        "  node_selector: {pool: gpu}\n"
        "  tolerations: [{key: nvidia.com/gpu, operator: Exists}]\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "visionloop", "compile", "--config", str(config)]
    subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        check=True,
        capture_output=True,
    )
    spec, _ = spec_and_platform(tmp_path / "out" / "pipelines" / "round.yaml")
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    defaults = {key: value.get("defaultValue") for key, value in inputs.items()}
    text = json.loads(defaults.pop("config"))
    assert text["training"] == {"architecture": "resnet18", "epochs": 7}
    assert defaults == {
        "lake": "gs://bucket/lake",
        "n_samples": 33,
        "strategy": "diversity",
        "architecture": "resnet18",
        "epochs": 7,
        "runner": "pod",
        "events": "",
        "take_over": False,
        "shard_size": 20_000,
        "accelerator_type": "nvidia.com/gpu",
        "accelerator_count": 2,
        "node_selector": {"pool": "gpu"},
        "train_node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "accelerator_cpu": "2",
        "accelerator_memory": "8Gi",
    }


def test_an_unknown_default_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n_sample"):
        compile_pipeline("round", tmp_path / "round.yaml", arguments={"n_sample": 3})


def test_kubernetes_manifests_carry_a_version_that_follows_the_content(tmp_path: Path) -> None:
    names = []
    for folder, image in (("a", ""), ("b", "registry.example/loop:7"), ("c", "")):
        path = compile_pipeline(
            "intake",
            tmp_path / folder / "intake.yaml",
            placed=Placed(image=image),
            kubernetes_manifests=True,
            namespace="team",
        )
        pipeline, version = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        assert pipeline["apiVersion"] == version["apiVersion"] == "pipelines.kubeflow.org/v2beta1"
        assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
        assert pipeline["metadata"]["namespace"] == version["metadata"]["namespace"] == "team"
        assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"]
        names.append(version["metadata"]["name"])
    # A PipelineVersion that was applied cannot change: another image is another version.
    assert names[0] == names[2] != names[1]


def test_two_loops_of_one_namespace_are_different_objects_called_as_submit_calls_them(
    tmp_path: Path,
) -> None:
    names: dict[str, set[str]] = {}
    for loop in ("digits", "street_signs"):
        config = tmp_path / f"{loop}.yaml"
        config.write_text(f"name: {loop}\nlake: gs://bucket/lake\n", encoding="utf-8")
        build = tmp_path / loop
        command = ["compile", "--kubernetes-manifests", "--config", str(config)]
        assert main([*command, "--namespace", "team", "--output", str(build)]) == 0
        names[loop] = set()
        for pipeline in pipelines.NAMES:
            text = (build / "pipelines" / f"{pipeline}.yaml").read_text(encoding="utf-8")
            held, version = yaml.load_all(text, Loader=yaml.CSafeLoader)
            called = name_on_server(loop, pipeline)
            assert held["metadata"]["name"] == version["spec"]["pipelineName"] == called
            assert held["spec"].get("displayName", called) == called
            assert version["metadata"]["name"].startswith(f"{called}-")
            names[loop] |= {called, version["metadata"]["name"]}
    assert not names["digits"] & names["street_signs"]


def test_a_compiled_component_loads_again(tmp_path: Path) -> None:
    from kfp.components import load_component_from_file

    for name in components.NAMES:
        loaded = load_component_from_file(str(compile_component(name, tmp_path / f"{name}.yaml")))
        ours = components.load(name)
        assert set(loaded.component_spec.inputs) == set(ours.component_spec.inputs)
        assert set(loaded.component_spec.outputs) == set(ours.component_spec.outputs)
