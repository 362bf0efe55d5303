"""The commands in the manifests are those of this release, and its servers answer the probes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.rendering import MANIFESTS, Document, named, pod_templates, render, variant
from visionloop.cli.parser import Parser
from visionloop.environment import SECRET_FOLDER
from visionloop.serving.config import KServeConfig
from visionloop.serving.ending import CLOSING_SECONDS
from visionloop.serving.inference_service.documents import logger_spec
from visionloop.serving.inference_service.endpoint import Endpoint
from visionloop.serving.reducing import Plan

COLLECTOR = "StatefulSet visionloop-collector"
PREDICTOR = "ServingRuntime visionloop-predictor"
MEDIA = "Deployment visionloop-media"


def container(name: str, title: str) -> Document:
    """Return the container of a workload."""
    pod = dict(pod_templates(variant(name)))[title]
    held: Document = pod["spec"]["containers"][0]
    return held


def arguments(name: str, title: str) -> list[str]:
    """Return a container's arguments as Kubernetes and KServe hand them over."""
    held = container(name, title)
    values = {}
    for entry in held.get("env", []):
        if "configMapKeyRef" not in entry["valueFrom"]:
            continue
        key = entry["valueFrom"]["configMapKeyRef"]
        values[entry["name"]] = named(variant(name), "ConfigMap", key["name"])["data"][key["key"]]
    expanded = [argument.replace("{{.Name}}", "clothing") for argument in held["args"]]
    return [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], text) for text in expanded]


def parsed(command: list[str]) -> argparse.Namespace:
    """Return what our own command line makes of arguments."""
    parser = Parser(prog=command[0])
    importlib.import_module(f"visionloop.cli.{command[0]}").add_arguments(parser)
    return parser.parse_args(command[1:])


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[int]:
    """Run a command of ours at a free port, and give the port."""
    port_file = folder / "port"
    process = subprocess.Popen(
        [sys.executable, "-m", "visionloop", *command, f"--port-file={port_file}"], cwd=folder
    )
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists():
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it does not come up"
            time.sleep(0.05)
        yield json.loads(port_file.read_text())["http"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def status(port: int, probe: dict[str, Any]) -> int:
    """Return what a probe of a container gets from a server at another port."""
    try:
        url = f"http://127.0.0.1:{port}{probe['httpGet']['path']}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    ("name", "events", "spool"),
    [
        ("gke", "gs://YOUR_BUCKET/lake/events", "/spool"),
        ("local", "file:///mnt/visionloop/lake/events", ""),
    ],
)
def test_the_collector_writes_where_a_harvest_reads(name: str, events: str, spool: str) -> None:
    args = parsed(arguments(name, COLLECTOR))
    assert (args.events, args.spool, args.host, args.port) == (events, spool, "0.0.0.0", 8090)
    assert args.durable
    # Pixels are not kept unless somebody decides so.
    assert args.keep == "hashes"


def test_the_collectors_token_file_lies_where_its_secret_is_mounted() -> None:
    name = "gke with everything"
    mounts = {m["name"]: m["mountPath"] for m in container(name, COLLECTOR)["volumeMounts"]}
    args = parsed(arguments(name, COLLECTOR))
    assert args.token_file == f"{mounts['tokens']}/tokens"
    assert args.max_spool_mib < 10 * 1024 - args.min_free_mib  # of its claim of 10 GiB


def test_the_collector_answers_its_probes_and_ends_within_its_grace(tmp_path: Path) -> None:
    given = {"--events": tmp_path / "events", "--spool": tmp_path / "spool"}
    command = [
        f"{option}={given[option]}" if (option := text.partition("=")[0]) in given else text
        for text in arguments("gke", COLLECTOR)
        if not text.startswith(("--port", "--host"))
    ]
    with running([*command, "--port=0"], tmp_path) as port:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert status(port, container("gke", COLLECTOR)[probe]) == 200, probe


def test_the_media_endpoint_answers_its_probes_and_has_the_key_where_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = container("gke with everything", MEDIA)
    assert held["args"][:2] == ["labels", "media"]
    args = parsed(arguments("gke with everything", MEDIA))
    assert (args.lake, args.host) == ("gs://YOUR_BUCKET/lake", "0.0.0.0")
    assert args.port == held["ports"][0]["containerPort"]
    assert SECRET_FOLDER in {mount["mountPath"] for mount in held["volumeMounts"]}
    monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", "0123456789abcdef")
    with running(["labels", "media", f"--lake={tmp_path / 'lake'}", "--port=0"], tmp_path) as port:
        for probe in ("startupProbe", "livenessProbe"):
            assert status(port, held[probe]) == 200, probe
        assert status(port, held["readinessProbe"]) == 503  # there is no lake yet


def test_the_media_endpoint_of_the_local_overlay_has_the_lakes_volume(tmp_path: Path) -> None:
    copy = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, copy)
    file = copy / "overlays" / "local" / "kustomization.yaml"
    line = "- ../../components/label-media"
    assert f"# {line}" in file.read_text()
    file.write_text(file.read_text().replace(f"# {line}", line))
    documents = tuple(render(file.parent))
    pod = named(documents, "Deployment", "visionloop-media")["spec"]["template"]["spec"]
    claim = {"name": "lake", "persistentVolumeClaim": {"claimName": "visionloop-lake"}}
    assert claim in pod["volumes"]
    key = pod["containers"][0]["env"][0]["valueFrom"]["configMapKeyRef"]
    lake = named(documents, "ConfigMap", key["name"])["data"][key["key"]]
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert lake.startswith(f"file://{mounts['lake']}/")


def test_the_collector_gets_the_secret_of_label_studios_webhook_where_there_is_one() -> None:
    for name in ("gke with everything", "local with everything"):
        held = {e["name"]: e["valueFrom"] for e in container(name, COLLECTOR)["env"]}
        wanted = {"name": "visionloop-label-studio", "key": "webhook", "optional": True}
        assert held["VISIONLOOP_WEBHOOK_SECRET"] == {"secretKeyRef": wanted}


def test_the_grace_covers_all_that_the_collector_does_at_its_end() -> None:
    args = parsed(arguments("gke", COLLECTOR))
    plan = Plan(raw=args.spool, folder=args.spool, upload=args.events)
    pause = int(container("gke", COLLECTOR)["lifecycle"]["preStop"]["exec"]["command"][1])
    requests_under_way = 10.0
    pod = dict(pod_templates(variant("gke")))[COLLECTOR]["spec"]
    grace = pod["terminationGracePeriodSeconds"]
    assert pause + requests_under_way + plan.stop_seconds < grace


def test_the_predictor_serves_the_bundle_that_kserve_puts_down() -> None:
    args = parsed(arguments("gke", PREDICTOR))
    assert (args.model, args.name, args.host) == ("/mnt/models", "clothing", "0.0.0.0")
    assert args.port == container("gke", PREDICTOR)["ports"][0]["containerPort"]
    assert args.grpc_port == -1


def test_the_grace_of_pods_covers_all_that_the_predictor_does_at_its_end() -> None:
    args = parsed(arguments("gke", PREDICTOR))
    assert args.drain_s + args.grace_s + CLOSING_SECONDS < 30  # KServe's runtimes cannot set it


def test_the_predictor_is_alive_and_not_ready_before_it_has_a_model(tmp_path: Path) -> None:
    command = ["serve", f"--model={tmp_path}/none.json", "--name=clothing", "--grpc-port=-1"]
    held = container("gke", PREDICTOR)
    with running([*command, "--port=0"], tmp_path) as port:
        assert status(port, held["livenessProbe"]) == 200
        assert status(port, held["readinessProbe"]) == 503


def test_a_collector_of_a_bucket_keeps_its_spool_on_a_claim_of_its_own() -> None:
    workload = named(variant("gke"), "StatefulSet", "visionloop-collector")["spec"]
    mounts = {m["mountPath"]: m["name"] for m in container("gke", COLLECTOR)["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in workload["volumeClaimTemplates"]}
    assert mounts[parsed(arguments("gke", COLLECTOR)).spool] in claims
    assert set(workload["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_publish_sends_events_to_the_collectors_service() -> None:
    endpoint = Endpoint("clothing", "kubeflow", "clothing", KServeConfig())
    service = named(variant("gke"), "Service", "visionloop-collector")
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    port = service["spec"]["ports"][0]["port"]
    assert logger_spec(endpoint)["url"] == f"http://{host}:{port}"
