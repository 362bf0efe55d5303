"""Runs on a server: what is sent, and when the exit status is 0."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.submission.kfp_stub import KfpStub
from tests.submission.workflows import pod, task, workflow
from visionloop.cli import main


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "loop.yaml"
    path.write_text(
        "name: digits\nlake: gs://bucket/lake\ncatalog: http://catalog.example\n"
        "selection: {n_samples: 40}\n",
        encoding="utf-8",
    )
    return str(path)


def submit(stub: KfpStub, config: str, *more: str, pipeline: str = "round") -> int:
    return main(
        ["submit", pipeline, "--config", config, "--host", stub.url, "--poll", "0.02", *more]
    )


def test_a_submitted_run_carries_the_pipeline_and_the_configurations_values(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub() as stub:
        status = submit(
            stub, config, "--set", "epochs=3", "--image", "registry.example/a:1", "--json"
        )
    assert status == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["run_id"], printed["state"]) == ("run-0", "PENDING")
    run = stub.runs[0]
    parameters = run["runtime_config"]["parameters"]
    assert parameters["n_samples"] == 40
    assert parameters["epochs"] == 3
    assert parameters["lake"] == "gs://bucket/lake"
    assert json.loads(parameters["config"])["name"] == "digits"
    assert run["pipeline_version_reference"] == {
        "pipeline_id": "pipeline-0",
        "pipeline_version_id": "version-0",
    }
    assert stub.pipelines[0]["display_name"] == "digits-round"
    # With placement the package is two documents: the pipeline's and the platform's.
    spec, platform = yaml.safe_load_all(stub.packages[printed["version"]])
    executors = spec["deploymentSpec"]["executors"].values()
    assert {e["container"]["image"] for e in executors} == {"registry.example/a:1"}
    assert set(platform) == {"platforms"}
    # A run that a person starts from the form needs nothing else.
    assert spec["root"]["inputDefinitions"]["parameters"]["n_samples"]["defaultValue"] == 40
    assert stub.experiments[0]["display_name"] == "visionloop"


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["PENDING", "RUNNING", "SUCCEEDED"], 0),
        (["RUNNING", "FAILED"], 1),
        (["RUNNING", "CANCELING", "CANCELED"], 1),
        (["SKIPPED"], 1),
    ],
)
def test_the_exit_status_is_0_only_when_the_run_succeeded(
    config: str, states: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub(states, [("ingest", "SUCCEEDED"), ("train", "FAILED")]) as stub:
        assert submit(stub, config, "--wait") == status
    printed = capsys.readouterr()
    if status:
        last = printed.err.splitlines()[-1]
        ended = "was cancelled" if states[-1] == "CANCELED" else f"ended as {states[-1]} in train"
        assert last.startswith(
            f"error: The run {ended} (run run-0, {stub.url}/#/runs/details/run-0)"
        )
    else:
        assert "round: SUCCEEDED" in printed.out


def test_a_round_that_waits_for_labels_succeeds_and_says_so(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [("collect-labels", "SUCCEEDED"), ("condition-2", "SKIPPED")]
    with KfpStub(["SUCCEEDED"], tasks) as stub:
        assert submit(stub, config, "--wait", "--json") == 0
    assert json.loads(capsys.readouterr().out)["waiting"] is True


def test_a_server_that_restarts_does_not_end_the_wait(config: str) -> None:
    with KfpStub(["RUNNING", "SUCCEEDED"]) as stub:
        stub.fail("GET", "/runs/run-0$", 503, times=3)
        assert submit(stub, config, "--wait") == 0


def test_waiting_ends_at_the_timeout_with_status_1(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub(["RUNNING"]) as stub:
        assert submit(stub, config, "--wait", "--timeout", "0.1") == 1
    assert "it goes on by itself" in capsys.readouterr().err


def test_the_token_of_the_environment_is_sent(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_KFP_TOKEN", "secret-1")
    with KfpStub() as stub:
        assert submit(stub, config) == 0
    assert stub.tokens == {"Bearer secret-1"}


def test_in_a_pod_the_service_accounts_token_is_sent(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("secret-2", encoding="utf-8")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with KfpStub() as stub:
        assert submit(stub, config) == 0
    assert stub.tokens == {"Bearer secret-2"}


def test_a_namespace_is_sent_only_when_it_is_given(config: str) -> None:
    with KfpStub(single_user=True) as stub:
        assert submit(stub, config) == 0
    with KfpStub(single_user=False) as stub:
        assert submit(stub, config, "--namespace", "team-a") == 0
    assert stub.experiments[0]["namespace"] == "team-a"


def test_refused_access_and_an_absent_server_are_told_with_a_remedy(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub(refuse=403) as stub:
        client_url = stub.url
        assert submit(stub, config) == 1
    assert "VISIONLOOP_KFP_TOKEN" in capsys.readouterr().err
    # The stub is gone: nobody listens there any more.
    assert main(["submit", "round", "--config", config, "--host", client_url]) == 1
    told = capsys.readouterr().err
    assert "cannot be reached" in told and client_url in told


def test_a_lake_on_this_machines_disk_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop.yaml").write_text("lake: lake\n", encoding="utf-8")
    with KfpStub() as stub:
        assert submit(stub, str(tmp_path / "loop.yaml")) == 2
        assert "pods do not see" in capsys.readouterr().err
        # On a volume that every pod mounts it is the same lake for all of them.
        (tmp_path / "loop.yaml").write_text(
            "lake: /mnt/visionloop/lake\ncluster: {volume: lake-claim}\n", encoding="utf-8"
        )
        assert submit(stub, str(tmp_path / "loop.yaml")) == 0


def test_a_failure_is_told_with_its_reason_and_the_end_of_the_log(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = workflow(task("ingest", "SUCCEEDED"), task("train", "FAILED"))
    with KfpStub(["RUNNING", "FAILED"], [steps]) as stub:
        stub.api_logs[pod("train")] = "visionloop.errors.InputError: no labels. Answer them.\nend\n"
        assert submit(stub, config, "--wait", "--json", "--log-lines", "1") == 1
    printed = capsys.readouterr()
    assert "  | end" in printed.err
    assert printed.err.splitlines()[-1].startswith(
        "error: The run ended as FAILED in train: no labels. Answer them"
    )
    result = json.loads(printed.out)
    assert (result["state"], result["url"]) == ("FAILED", f"{stub.url}/#/runs/details/run-0")
    assert [(t["name"], t["state"]) for t in result["tasks"]] == [
        ("ingest", "SUCCEEDED"),
        ("train", "FAILED"),
    ]
    assert result["reasons"][0]["paragraph"] == "no labels. Answer them."


def test_a_job_that_starts_again_follows_its_run(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub(["RUNNING", "SUCCEEDED"]) as stub:
        assert submit(stub, config, "--once", "4f2a91c") == 0
        assert submit(stub, config, "--once", "4f2a91c", "--wait") == 0
        assert len(stub.runs) == 1
    assert "round: attached to run run-0" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/experiments", "Stopped before a run was started"),
        ("POST", "/runs$", "asked to start a run: it may have started"),
    ],
)
def test_a_command_that_is_stopped_before_it_has_a_run_says_whether_there_may_be_one(
    config: str, stop: signal.Signals, method: str, path: str, words: str
) -> None:
    with KfpStub() as stub:
        stub.fail(method, path, 503, times=1000)
        command = [sys.executable, "-m", "visionloop", "submit", "round", "--config", config]
        child = subprocess.Popen(
            [*command, "--host", stub.url, "--wait"], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not stub.asked(method, path) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(stop)
        _, told = child.communicate(timeout=30)
    assert child.returncode == 1
    assert words in told and "what was finished is kept" not in told


def test_what_no_server_could_take_is_refused_before_one_is_asked(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub() as stub:
        for option, value in (("--timeout", "-5"), ("--poll", "nan"), ("--timeout", "soon")):
            assert submit(stub, config, "--wait", f"{option}={value}") == 2
            assert option in capsys.readouterr().err
        assert not stub.requests
        assert submit(stub, config, "--once", "two words") == 2
        assert "Give a word without spaces" in capsys.readouterr().err
        assert not stub.runs
    assert main(["submit", "round", "--config", config, "--host", "ftp://kfp.example"]) == 2


def test_a_namespace_on_a_server_for_one_user_is_ignored_and_that_is_said(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub(single_user=True) as stub:
        assert submit(stub, config, "--namespace", "team-a") == 0
    assert "--namespace team-a is ignored" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("cancel", [False, True])
def test_a_command_that_is_stopped_says_whether_the_run_goes_on(
    config: str, stop: signal.Signals, cancel: bool
) -> None:
    with KfpStub(["RUNNING"]) as stub:
        command = [sys.executable, "-m", "visionloop", "submit", "round", "--config", config]
        command += ["--host", stub.url, "--wait", "--poll", "0.05"]
        command += ["--cancel-on-interrupt"] if cancel else []
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not stub.looks and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(stop)
        _, told = child.communicate(timeout=30)
        assert child.returncode == 1
        assert ("the run was asked to end" if cancel else "the run goes on") in told
        assert stub.runs[0]["state"] == ("CANCELED" if cancel else "PENDING")


def test_the_configuration_says_where_runs_are_filed(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(
        "lake: gs://bucket/lake\ncatalog: http://catalog.example\n"
        "cluster: {namespace: team-a, service_account: loop, image: registry.example/a:2}\n",
        encoding="utf-8",
    )
    with KfpStub(single_user=False) as stub:
        assert submit(stub, str(path)) == 0
        assert submit(stub, str(path), "--service-account", "other") == 0
    assert stub.experiments[0]["namespace"] == stub.pipelines[0]["namespace"] == "team-a"
    assert [run["service_account"] for run in stub.runs] == ["loop", "other"]
    assert "image: registry.example/a:2" in next(iter(stub.packages.values()))
    with KfpStub(single_user=True) as stub:
        assert submit(stub, str(path)) == 0
