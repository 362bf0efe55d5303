"""Queue, volume, width, image and resources are written into what a server gets, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import dsl, kubernetes
from kfp.components import load_component_from_file

from tests.submission.kfp_stub import KfpStub
from visionloop.cli import main
from visionloop.config import ClusterConfig
from visionloop.pipelines import registry
from visionloop.pipelines.compiling import compile_pipeline
from visionloop.pipelines.placing import QUEUE_LABEL, Placed, place

OPTIONS = [
    *("--queue", "gpu", "--volume", "lake-claim:/data", "--width", "7"),
    *("--image", "registry.example/loop:7"),
]


def asked_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A compiled file's executors, and what each asks of Kubernetes, as kfp's loader reads them."""
    loaded = load_component_from_file(str(path))
    spec = json_format.MessageToDict(loaded.pipeline_spec)
    platform = json_format.MessageToDict(loaded.platform_spec.platforms["kubernetes"])
    return spec, platform["deploymentSpec"]["executors"]


def assert_placed(spec: dict[str, Any], asked: dict[str, Any]) -> None:
    """Assert that a round is placed as `OPTIONS` say."""
    for label, executor in spec["deploymentSpec"]["executors"].items():
        assert executor["container"]["image"] == "registry.example/loop:7"
        [mount] = asked[label]["pvcMount"]
        assert mount["pvcNameParameter"]["runtimeValue"]["constant"] == "lake-claim"
        assert mount["mountPath"] == "/data"
        labels = asked[label].get("podMetadata", {}).get("labels", {})
        assert labels == ({QUEUE_LABEL: "gpu"} if label in ACCELERATED else {}), label
    limits = [
        task["iteratorPolicy"]["parallelismLimit"]
        for component in spec["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "iteratorPolicy" in task
    ]
    assert limits == [7, 7, 7], "shards of ingest, of infer, and of select"


ACCELERATED = {"exec-infer-shard", "exec-train"}


def test_what_is_placed_is_what_kfps_own_functions_write() -> None:
    @dsl.component(base_image="python")
    def nothing():
        pass

    @dsl.pipeline(name="theirs")
    def theirs():
        task = nothing()
        kubernetes.use_secret_as_volume(task, secret_name="s", mount_path="/s")
        kubernetes.mount_pvc(task, "lake-claim", "/data")
        task.set_cpu_request("1").set_cpu_limit("1")
        task.set_memory_request("4Gi").set_memory_limit("4Gi")
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        kubernetes.add_pod_label(task, QUEUE_LABEL, "gpu")

    @dsl.pipeline(name="theirs")
    def ours():
        task = nothing()
        kubernetes.use_secret_as_volume(task, secret_name="s", mount_path="/s")
        task.set_cpu_request("1").set_cpu_limit("1")
        task.set_memory_request("4Gi").set_memory_limit("4Gi")
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)

    placed = place(ours, Placed(queue="gpu", claim="lake-claim", mount_path="/data"))
    assert placed.platform_spec == theirs.platform_spec


def test_placing_leaves_the_pipeline_as_it_is() -> None:
    definition = registry.load("round")

    def content() -> tuple[bytes, bytes]:
        parts = (definition.pipeline_spec, definition.platform_spec)
        first, second = (part.SerializeToString(deterministic=True) for part in parts)
        return first, second

    before = content()
    place(definition, Placed("image", "gpu", "claim", "/data", 9, "3", "9Gi"))
    assert content() == before


def test_options_of_the_command_reach_every_task(tmp_path: Path) -> None:
    assert main(["compile", "--output", str(tmp_path), *OPTIONS]) == 0
    spec, asked = asked_of(tmp_path / "pipelines" / "round.yaml")
    assert_placed(spec, asked)
    component = (tmp_path / "components" / "train" / "component.yaml").read_text(encoding="utf-8")
    assert "image: registry.example/loop:7" in component


def test_the_configuration_places_and_an_option_wins_over_it(tmp_path: Path) -> None:
    config = tmp_path / "loop.yaml"
    config.write_text(
        "lake: /data/lake\n"
        "cluster: {queue: slow, volume: 'lake-claim:/data', width: 3, cpu: '3', memory: 9Gi,\n"
        "          image: 'registry.example/loop:7', accelerator_memory: 64Gi,\n"
        "          select_memory: 20Gi}\n",
        encoding="utf-8",
    )
    command = ["compile", "--config", str(config), "--output", str(tmp_path)]
    assert main([*command, "--queue", "gpu", "--width", "7"]) == 0
    spec, asked = asked_of(tmp_path / "pipelines" / "round.yaml")
    assert_placed(spec, asked)
    for label, executor in spec["deploymentSpec"]["executors"].items():
        resources = executor["container"]["resources"]
        if label not in ACCELERATED:
            assert resources["resourceCpuLimit"] == "3"
            selects = label in {"exec-plan-selection", "exec-select-shard", "exec-select"}
            assert resources["resourceMemoryRequest"] == ("20Gi" if selects else "9Gi")
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["accelerator_memory"]["defaultValue"] == "64Gi"


@pytest.mark.parametrize(
    ("lake", "options", "said"),
    [
        ("/data/lake", [], "cluster.volume"),
        ("/elsewhere/lake", ["--volume", "lake-claim:/data"], "Put it below /data"),
        ("/data/../etc/lake", ["--volume", "lake-claim:/data"], "Put it below /data"),
        ("/data/lake", ["--volume", "lake-claim:/data"], ""),
        ("file:///mnt/visionloop/lake", ["--volume", "lake-claim"], ""),
    ],
)
def test_a_lake_that_is_a_folder_must_lie_on_the_volume(
    lake: str, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loop.yaml"
    config.write_text(f"lake: {lake}\n", encoding="utf-8")
    status = main(["compile", "--config", str(config), "--output", str(tmp_path), *options])
    assert status == (2 if said else 0)
    if said:
        told = capsys.readouterr().err
        assert "which pods do not see" in told and said in told


@pytest.mark.parametrize(
    ("option", "value"),
    [("--queue", "Not_A_Name"), ("--volume", "claim:relative"), ("--width", "0")],
)
def test_a_placement_that_no_cluster_would_take_is_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "--output", str(tmp_path), option, value]) == 2
    assert f"`{option[2:]}`" in capsys.readouterr().err


def test_objects_for_gitops_are_placed_too_and_named_by_it(tmp_path: Path) -> None:
    names = []
    for queue in ("", "gpu"):
        path = compile_pipeline(
            "round",
            tmp_path / f"{queue}.yaml",
            placed=Placed(queue=queue),
            kubernetes_manifests=True,
        )
        _, version = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        names.append(version["metadata"]["name"])
        asked = version["spec"]["platformSpec"]["platforms"]["kubernetes"]["deploymentSpec"]
        labels = asked["executors"]["exec-train"].get("podMetadata", {}).get("labels", {})
        assert labels == ({QUEUE_LABEL: queue} if queue else {})
    assert names[0] != names[1]


def test_a_queue_holds_whatever_accelerator_a_run_names_and_its_help_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Which accelerator a run has is its parameter; a pod without the label passes by the quota.
    config = tmp_path / "loop.yaml"
    config.write_text("lake: gs://bucket/lake\ncluster: {queue: gpu}\n", encoding="utf-8")
    assert main(["compile", "--config", str(config), "--output", str(tmp_path)]) == 0
    text = (tmp_path / "pipelines" / "round.yaml").read_text(encoding="utf-8")
    spec, platform = yaml.safe_load_all(text)
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["accelerator_type"]["defaultValue"] == ""
    asked = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for label in ("exec-train", "exec-infer-shard"):
        assert asked[label]["podMetadata"]["labels"] == {QUEUE_LABEL: "gpu"}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["compile", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "one that names none wait in it for cores and memory" in said


def test_submitting_and_scheduling_place_as_compiling_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loop.yaml"
    config.write_text("name: digits\nlake: /data/lake\n", encoding="utf-8")
    started = (
        ["submit", "round", "--run-name", "one"],
        ["schedule", "round", "--cron", "0 6 * * *"],
    )
    for command in started:
        with KfpStub() as stub:
            assert main([*command, "--config", str(config), "--host", stub.url, *OPTIONS]) == 0
            [package] = stub.packages.values()
        path = tmp_path / "sent.yaml"
        path.write_text(package, encoding="utf-8")
        assert_placed(*asked_of(path))
    capsys.readouterr()


def test_a_volume_without_a_path_is_mounted_at_the_same_place_everywhere() -> None:
    cluster = ClusterConfig(volume="lake-claim")
    assert (cluster.claim, cluster.mount_path) == ("lake-claim", "/mnt/visionloop")
    assert Placed.of(cluster).mount_path == "/mnt/visionloop"
    assert Placed.of(ClusterConfig()) == Placed(), "the two places agree on what is the default"
    assert json.loads(ClusterConfig().model_dump_json())["accelerator_cpu"] == "2"
