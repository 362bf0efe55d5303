"""What a cluster would refuse of a value is refused when it is read, from a file or an option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from visionloop.cli import main
from visionloop.config import LoopConfig, load_config
from visionloop.errors import InputError


def loop(path: str, value: Any) -> LoopConfig:
    """Read a configuration that says one thing; the lake lies in a bucket."""
    return load_config("{lake: gs://bucket/lake}", overrides={path: value})


def refused(path: str, value: Any) -> str:
    with pytest.raises(InputError) as caught:
        loop(path, value)
    assert caught.value.exit_status == 2
    return caught.value.what


IMAGES = ["cluster.image", "serving.kserve.image", "training.trainjob.image"]


@pytest.mark.parametrize("path", IMAGES)
@pytest.mark.parametrize(
    "image",
    [
        *("https://ghcr.io/a/b:1", "ghcr.io/Team/app:1", "app:", "a b:1", "app:1 ", "/app:1"),
        *("app@sha256:12", "app:" + "1" * 129, "ghcr.io//app:1", "host:port/app:1", "app\n"),
    ],
)
def test_a_text_that_names_no_image_is_refused(path: str, image: str) -> None:
    told = refused(path, image)
    assert f"`{path}`: write an image as registry/name:tag" in told and "ghcr.io/" in told


@pytest.mark.parametrize("path", IMAGES)
@pytest.mark.parametrize(
    "image",
    [
        *("", "app", "app:1", "visionloop/app", "localhost:5001/app:dev_1.0-x"),
        *("ghcr.io/visionloop/visionloop:0.1.0-cpu", f"eu.gcr.io/p/a__b@sha256:{'a1' * 32}"),
        f"REGION-docker.pkg.dev/project/repository/app:v1@sha256:{'0f' * 32}",
    ],
)
def test_every_form_of_an_image_is_taken(path: str, image: str) -> None:
    loop(path, image)


@pytest.mark.parametrize("section", ["cluster", "serving.kserve"])
def test_an_accelerator_is_a_resource_and_not_a_kind_of_gpu(section: str) -> None:
    path = f"{section}.accelerator_type"
    for wrong in ("nvidia-l4", "gpu", "nvidia/gpu", "nvidia.com/", "kubernetes.io/gpu", "a.b/c/d"):
        told = refused(path, wrong)
        assert "nvidia.com/gpu; the kind of GPU goes into node_selector" in told and wrong in told
    for right in ("", "nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "gpu.intel.com/i915"):
        loop(path, right)


@pytest.mark.parametrize("section", ["cluster", "serving.kserve"])
@pytest.mark.parametrize(
    ("toleration", "told"),
    [
        ({"kee": "gpu", "operator": "Exists"}, "`kee` is no field of a toleration"),
        ({"key": "gpu", "operator": "exists"}, "`operator` is Exists or Equal, not 'exists'"),
        ({"key": "gpu", "effect": "noschedule"}, "`effect` is one of NoSchedule"),
        ({"key": "gpu", "value": True}, "put it into quotes"),
        ({"key": "gpu", "operator": "Exists", "value": "x"}, "takes no `value`"),
        ({"value": "x"}, "name the taint's `key`"),
        ({"key": "a b"}, "is no taint's key"),
        ({"key": "gpu", "value": "a/b"}, "is no taint's value"),
        ({"key": "gpu", "tolerationSeconds": 5}, "needs `effect: NoExecute`"),
        ({"key": "gpu", "effect": "NoExecute", "tolerationSeconds": "5"}, "is a whole number"),
    ],
)
def test_a_toleration_that_kubernetes_refuses_is_refused(
    section: str, toleration: dict[str, Any], told: str
) -> None:
    found = refused(f"{section}.tolerations", [toleration])
    assert f"`{section}.tolerations.0`" in found and told in found


@pytest.mark.parametrize("section", ["cluster", "serving.kserve"])
def test_a_toleration_that_kubernetes_takes_stays_as_it_is_written(section: str) -> None:
    given = [
        {"operator": "Exists"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "pool", "value": "gpu", "effect": "NoExecute", "tolerationSeconds": 30},
    ]
    found = json.loads(loop(f"{section}.tolerations", given).text())
    for part in section.split("."):
        found = found[part]
    assert found["tolerations"] == given


@pytest.mark.parametrize("name", ["a" * 37, "under_score", "7up"])
def test_an_endpoint_that_kserve_cannot_have_is_refused_with_kserve_alone(name: str) -> None:
    text = f"{{name: {name}, lake: gs://bucket/lake"
    assert load_config(text + "}").endpoint == name
    with pytest.raises(InputError, match=r"at most 36 characters; set `serving\.endpoint`"):
        load_config(text + ", serving: {kserve: {}}}")
    load_config(text + ", serving: {endpoint: " + "a" * 36 + ", kserve: {}}}")


@pytest.mark.parametrize("uri", ["s3://bucket/lake", "https://host/x", "hdfs://x", "GS://bucket/x"])
def test_a_storage_that_we_do_not_read_is_refused(uri: str) -> None:
    for path, value in (
        ("lake", uri),
        ("sources", [{"uri": uri}]),
        ("sources", [{"uri": "gs://bucket/photos", "labels": uri}]),
        ("labeling", {"provider": "csv", "labels": uri}),
        ("embedding.weights", uri),
        ("training.weights", uri),
        ("serving.events", uri),
    ):
        told = refused(path, value)
        assert f"use a path, file://… or gs://…, not {uri!r}" in told


@pytest.mark.parametrize("uri", ["lake", "/data/lake", "file:///data/lake", "gs://bucket/lake"])
def test_a_storage_that_we_read_is_taken(uri: str) -> None:
    assert loop("lake", uri).lake == uri


@pytest.mark.parametrize(
    "place",
    [
        *("/tmp", "//tmp", "/dev/shm", "/var/run", "/var", "/run/secrets", "/opt", "/gcs", "/usr"),
        *("/usr/local", "/opt/visionloop/bin", "/etc", "/proc", "/mnt/../tmp", "/kfp-launcher"),
    ],
)
def test_a_volume_over_what_the_pod_needs_is_refused(place: str) -> None:
    assert "`cluster.volume`: " in refused("cluster.volume", f"lake:{place}")


def test_a_volume_at_the_root_is_refused_in_words() -> None:
    assert "not / itself" in refused("cluster.volume", "lake:/")


@pytest.mark.parametrize("volume", ["lake", "lake:/mnt/visionloop", "lake:/data", "lake:/tmp/lake"])
def test_a_volume_at_a_place_of_its_own_is_taken(volume: str) -> None:
    loop("cluster.volume", volume)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("cluster.queue", "GPU", "lower-case letters, digits and -"),
        ("cluster.namespace", "X_Y", "lower-case letters, digits and -"),
        ("cluster.namespace", "a.b", "lower-case letters, digits and -"),
        ("serving.kserve.namespace", "X_Y", "lower-case letters, digits and -"),
        ("cluster.service_account", "A", "for example visionloop-runner"),
        ("cluster.memory", "4GB", "for example 4Gi"),
        ("cluster.accelerator_memory", "four", "for example 4Gi"),
        ("cluster.cpu", "2 cores", "for example 2 or 500m"),
        ("cluster.volume", "lake:data", "for example visionloop-lake:/mnt/visionloop"),
        ("serving.kserve.resources.limits", {"memory": "2GB"}, "4Gi or 500M of memory"),
        ("serving.kserve.logger.url", "collector", "for example http://collector"),
        ("serving.kserve.logger.storage", "bucket", "gs://…, s3://… or abfs://…"),
        ("serving.endpoint", "My_Endpoint", "a letter first, for example clothing"),
        ("name", "My Loop", "lower-case letters, digits, - and _"),
    ],
)
def test_a_malformed_value_is_told_in_words(path: str, value: Any, told: str) -> None:
    found = refused(path, value)
    assert f"`{path}" in found and told in found
    assert "pattern" not in found and "[a-z" not in found


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A loop that any command takes."""
    path = tmp_path / "loop.yaml"
    path.write_text("name: digits\nlake: gs://bucket/lake\n", encoding="utf-8")
    return str(path)


# Port 9 of this machine: what is refused is refused before anything is asked.
HOST = ("--host", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    "command",
    [
        ("compile",),
        ("submit", "round", *HOST),
        ("schedule", "round", "--cron", "0 6 * * *", *HOST),
        ("doctor", "--cluster", *HOST),
    ],
)
@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--namespace", "X_Y", "lower-case letters, digits and -"),
        ("--image", "https://ghcr.io/app:1", "write an image as registry/name:tag"),
    ],
)
def test_an_option_that_a_cluster_refuses_is_refused(
    command: tuple[str, ...],
    option: str,
    value: str,
    told: str,
    config: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, "--config", config, option, value]) == 2
    said = capsys.readouterr().err
    assert told in said and repr(value) in said


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("accelerator_type=nvidia-l4", "`accelerator_type`: write the resource"),
        ('tolerations=[{"key": "gpu", "operator": "exists"}]', "`operator` is Exists or Equal"),
        ("accelerator_memory=8GB", "for example 4Gi"),
    ],
)
def test_a_parameter_that_a_cluster_refuses_is_refused(
    setting: str, told: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "round", "--config", config, *HOST, "--set", setting]) == 2
    assert told in capsys.readouterr().err
