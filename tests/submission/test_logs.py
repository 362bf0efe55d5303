"""Why a task failed is read out of its log, from whichever place still has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api_server import ApiServer
from tests.submission.kfp_stub import KfpStub
from tests.submission.workflows import pod, task, workflow
from visionloop.submission import Reason, Server, Work
from visionloop.submission.reasons import paragraph_in, tail_of

PARAGRAPH = "no sample has a label (labels, round 0003). Answer the requests, then start it again."
LOG = f"""train: started
Traceback (most recent call last):
  File "/app/visionloop/stages/train.py", line 41, in train
    table = training_set(lake)
visionloop.errors.InputError: {PARAGRAPH}
I1122 10:02:11.123456      42 launcher_v2.go:191] publish success.
F1122 10:02:11.234567      42 main.go:57] failed to execute component: exit status 1
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A Kubernetes API that kubectl's configuration points at."""
    with ApiServer() as server:
        path = server.kubeconfig(tmp_path / "kubeconfig", namespace="ml")
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield server


def reasons(kfp: KfpStub, work: Work, *, namespace: str = "", lines: int = 5) -> list[Reason]:
    server = Server.connect(kfp.url, namespace=namespace)
    run = server.start(work)
    return server.reasons(run, server.follow(run, poll_s=0.01), lines=lines)


def failing() -> list[dict[str, Any]]:
    return workflow(task("ingest", "SUCCEEDED"), task("train", "FAILED"))


def test_our_paragraph_comes_first_and_the_logs_end_after_it(work: Work) -> None:
    with KfpStub(["FAILED"], [failing()]) as kfp:
        kfp.api_logs[pod("train")] = LOG
        (reason,) = reasons(kfp, work)
    assert (reason.task, reason.pod, reason.source) == ("train", pod("train"), "the API server")
    assert reason.paragraph == PARAGRAPH
    assert len(reason.tail) == 5 and reason.tail[-1].endswith("exit status 1")
    text = reason.text().splitlines()
    assert text[0] == f"train: {PARAGRAPH}"
    assert text[1] == "  the last 5 lines of its log, from the API server:"
    assert text[-1].startswith("  | F1122 10:02:11")


def test_the_ui_has_the_log_where_the_api_server_has_it_not(work: Work) -> None:
    with KfpStub(["FAILED"], [failing()], single_user=False) as kfp:
        kfp.ui_logs[pod("train")] = LOG
        (reason,) = reasons(kfp, work, namespace="team-a")
        (asked,) = kfp.asked("GET", "/k8s/pod/logs")
    assert reason.source == "the UI" and reason.paragraph == PARAGRAPH
    assert asked.query["podnamespace"] == ["team-a"] and asked.query["runid"] == ["run-0"]
    assert asked.query["createdat"][0].startswith("20")


def test_kubernetes_is_asked_first_where_it_is_to_be_had(work: Work, cluster: ApiServer) -> None:
    add_pod(cluster, pod("train"), phase="Failed")
    cluster.pod_logs[f"{pod('train')}/main"] = LOG.splitlines()
    with KfpStub(["FAILED"], [failing()]) as kfp:
        (reason,) = reasons(kfp, work)
        assert kfp.asked("GET", "/log") == []
    assert reason.source == "Kubernetes" and reason.paragraph == PARAGRAPH


def test_a_pod_that_ran_out_of_memory_says_so_though_its_log_does_not(
    work: Work, cluster: ApiServer
) -> None:
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    add_pod(cluster, pod("train"), phase="Failed", state=killed)
    cluster.pod_logs[f"{pod('train')}/main"] = ["train: started"]
    with KfpStub(["FAILED"], [failing()]) as kfp:
        (reason,) = reasons(kfp, work)
    assert "memory" in reason.paragraph.lower() and reason.tail == ("train: started",)


def test_failed_pods_are_found_by_the_run_where_the_server_names_none(
    work: Work, cluster: ApiServer
) -> None:
    add_pod(
        cluster, "some-pod", phase="Failed", node="wf.root.turn.train-and-publish.train.executor"
    )
    cluster.pod_logs["some-pod/main"] = LOG.splitlines()
    with KfpStub(["FAILED"], [("train", "FAILED")]) as kfp:
        (reason,) = reasons(kfp, work)
    assert (reason.task, reason.paragraph) == ("train", PARAGRAPH)


def test_what_holds_a_pod_up_is_told_while_it_is_waited_for(
    work: Work, cluster: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionloop.submission.following._PODS_EVERY_S", 0.0)
    missing = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    add_pod(
        cluster, "waits", phase="Pending", state=missing, node="wf.root.intake.infer.executor(0)"
    )
    told: list[str] = []
    with KfpStub(["RUNNING"] * 5 + ["SUCCEEDED"]) as kfp:
        server = Server.connect(kfp.url)
        server.follow(server.start(work), poll_s=0.01, told=told.append)
    (line,) = told
    assert line.startswith("infer") and "registry.example/absent:1" in line


def test_without_any_log_the_way_to_see_it_is_told(work: Work) -> None:
    with KfpStub(["FAILED"], [failing()]) as kfp:
        (reason,) = reasons(kfp, work)
    assert reason.tail == ()
    assert f"kubectl -n kubeflow logs {pod('train')}" in reason.text()


def test_the_namespace_of_the_configuration_is_where_logs_are_looked_for(shared_work: Work) -> None:
    with KfpStub(["FAILED"], [failing()], single_user=False) as kfp:
        (reason,) = reasons(kfp, shared_work)
        (asked,) = kfp.asked("GET", "/k8s/pod/logs")
    assert asked.query["podnamespace"] == ["team-a"]
    assert f"kubectl -n team-a logs {pod('train')}" in reason.text()


def test_pods_are_looked_for_in_the_namespace_of_the_configuration(
    shared_work: Work, cluster: ApiServer
) -> None:
    add_pod(cluster, pod("train"), phase="Failed", namespace="team-a")
    cluster.pod_logs[f"{pod('train')}/main"] = LOG.splitlines()
    with KfpStub(["FAILED"], [failing()], single_user=False) as kfp:
        (reason,) = reasons(kfp, shared_work)
    assert reason.source == "Kubernetes"
    assert {r.path.split("/")[4] for r in cluster.asked("GET", "/pods")} == {"team-a"}


def test_a_page_for_people_is_not_taken_for_a_log(work: Work) -> None:
    with KfpStub(["FAILED"], [failing()]) as kfp:
        server = Server.connect(kfp.url)
        run = server.start(work)
        end = server.follow(run, poll_s=0.01)
        kfp.cookies = ["only-with-a-session"]
        (reason,) = server.reasons(run, end)
    assert reason.tail == ()


def test_what_a_task_really_prints_when_it_fails_is_found() -> None:
    program = (
        "from visionloop.stages.report import report\n"
        "report(config='{lake: gs://bucket/lake}', lake='gs://bucket/lake')"
    )
    failed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "_KFP_RUNTIME": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    found = paragraph_in(failed.stderr)
    assert found.startswith("a gs:// lake needs a catalog (gs://bucket/lake). Set `catalog:`")


def test_the_last_error_counts_and_ours_before_any_other() -> None:
    assert paragraph_in(LOG) == PARAGRAPH
    plain = "Traceback (most recent call last):\nKeyError: 'a'\nRuntimeError: CUDA error\nbye"
    assert paragraph_in(plain) == "RuntimeError: CUDA error"
    assert paragraph_in("all is well\n") == ""


def test_a_log_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_KFP_TOKEN", "t0ken-of-ci")
    log = "visionloop.errors.VisionloopError: no (postgresql://u:pw@host/db). Sent t0ken-of-ci."
    assert "pw" not in paragraph_in(log) and "t0ken-of-ci" not in paragraph_in(log)
    assert "t0ken-of-ci" not in "".join(tail_of(log, 5))


def add_pod(
    cluster: ApiServer,
    name: str,
    *,
    phase: str,
    state: dict[str, Any] | None = None,
    node: str = "",
    namespace: str = "ml",
) -> None:
    image = "registry.example/absent:1"
    status: dict[str, Any] = {"phase": phase}
    if state:
        status["containerStatuses"] = [
            {"name": "main", "image": image, "state": state, "ready": False, "restartCount": 0}
        ]
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"pipeline/runid": "run-0"},
                "annotations": {"workflows.argoproj.io/node-name": node},
            },
            "spec": {"containers": [{"name": "main", "image": image}]},
            "status": status,
        }
    )
