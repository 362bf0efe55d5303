"""A run is followed task by task, by the names that people know, to its own end."""

from __future__ import annotations

import pytest

from tests.submission.kfp_stub import KfpStub
from tests.submission.workflows import broken_driver, frame, pod, task, workflow
from visionloop.errors import VisionloopError
from visionloop.submission import End, Server, ServerError, Work


def followed(kfp: KfpStub, work: Work, *, timeout_s: float = 20) -> tuple[End, list[str]]:
    server = Server.connect(kfp.url)
    told: list[str] = []
    run = server.start(work)
    end = server.follow(run, timeout_s=timeout_s, poll_s=0.01, told=told.append)
    return end, [" ".join(line.split()) for line in told]


def test_tasks_are_told_once_each_with_their_names_and_durations(work: Work) -> None:
    looks = [
        workflow(frame("intake", "RUNNING", task("ingest", "RUNNING"))),
        workflow(
            frame("intake", "SUCCEEDED", task("ingest", "SUCCEEDED"), task("infer", "RUNNING"))
        ),
        workflow(
            frame(
                "intake",
                "SUCCEEDED",
                task("ingest", "SUCCEEDED"),
                task("infer", "SUCCEEDED", cached=True),
            ),
            state="SUCCEEDED",
        ),
    ]
    with KfpStub(["RUNNING", "RUNNING", "SUCCEEDED"], looks) as kfp:
        end, told = followed(kfp, work)
    assert told == [
        "intake running",
        "ingest running",
        "intake succeeded 60 s",
        "ingest succeeded 60 s",
        "infer running",
        "infer cached",
    ]
    assert end.succeeded and [t.name for t in end.tasks] == ["intake", "ingest", "infer"]
    assert [t.pods for t in end.tasks] == [(), (pod("ingest"),), (pod("infer"),)]


def test_a_condition_is_called_what_the_pipeline_calls_it(work: Work) -> None:
    steps = workflow(task("collect-labels", "SUCCEEDED"), frame("condition-2", "SKIPPED"))
    with KfpStub(["SUCCEEDED"], [steps]) as kfp:
        end, told = followed(kfp, work)
    assert told[-1] == "labels-finished skipped" and end.waits_for_labels


def test_shards_of_one_name_get_numbers(work: Work) -> None:
    steps = workflow(task("infer-shard", "SUCCEEDED"), task("infer-shard", "FAILED"))
    for n, step in enumerate(steps):
        step["task_id"] = f"t-{n:02d}"
    with KfpStub(["FAILED"], [steps]) as kfp:
        end, _ = followed(kfp, work)
    assert [t.name for t in end.tasks] == ["infer-shard", "infer-shard #2"]


def test_a_driver_is_told_of_where_it_fails_and_a_retried_task_has_all_its_pods(
    work: Work,
) -> None:
    steps = workflow(
        task("infer", "SUCCEEDED", tries=("FAILED", "SUCCEEDED")), broken_driver("train")
    )
    with KfpStub(["FAILED"], [steps]) as kfp:
        end, told = followed(kfp, work)
    assert told == ["infer succeeded 60 s", "train (driver) failed 60 s"]
    assert end.tasks[0].pods == (pod("infer"), pod("infer-0"), pod("infer-1"))
    assert [t.name for t in end.failed] == ["train (driver)"]


def test_the_task_that_failed_is_told_from_the_pipelines_around_it(work: Work) -> None:
    inside = frame("train-and-publish", "FAILED", task("train", "FAILED"))
    with KfpStub(["FAILED"], [workflow(frame("turn", "FAILED", inside))]) as kfp:
        end, _ = followed(kfp, work)
    assert not end.succeeded and [t.name for t in end.failed] == ["train"]


def test_states_of_tasks_that_lag_behind_the_runs_are_waited_for(work: Work) -> None:
    late = [workflow(task("report", "RUNNING"))] * 2 + [workflow(task("report", "SUCCEEDED"))]
    with KfpStub(["SUCCEEDED"], late) as kfp:
        end, _ = followed(kfp, work)
        assert kfp.looks == 3
    assert [t.state for t in end.tasks] == ["SUCCEEDED"]


def test_a_run_that_is_cancelled_ends_the_wait_and_is_no_success(work: Work) -> None:
    with KfpStub(["RUNNING", "CANCELING", "CANCELED"]) as kfp:
        end, _ = followed(kfp, work)
    assert (end.state, end.succeeded) == ("CANCELED", False)


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_server_that_is_away_for_a_moment_does_not_end_the_wait(work: Work, status: int) -> None:
    with KfpStub(["RUNNING", "SUCCEEDED"]) as kfp:
        kfp.fail("GET", "/runs/run-0$", status, times=2, retry_after="0")
        end, _ = followed(kfp, work)
    assert end.succeeded


def test_a_run_that_was_deleted_ends_the_wait(work: Work) -> None:
    with KfpStub(["RUNNING"]) as kfp:
        server = Server.connect(kfp.url)
        run = server.start(work)
        kfp.runs.clear()
        with pytest.raises(ServerError, match="does not know it"):
            server.follow(run, poll_s=0.01)


def test_the_time_that_is_waited_has_an_end(work: Work) -> None:
    with KfpStub(["RUNNING"]) as kfp, pytest.raises(VisionloopError, match="goes on by itself"):
        followed(kfp, work, timeout_s=0.05)


def test_a_run_can_be_followed_by_its_id_alone_and_cancelled(work: Work) -> None:
    with KfpStub(["RUNNING"]) as kfp:
        server = Server.connect(kfp.url)
        run = server.start(work)
        kfp.fail("POST", ":terminate", 503)
        server.cancel(run.run_id)
        assert server.follow(run.run_id, poll_s=0.01).state == "CANCELED"
        assert run.url == f"{kfp.url}/#/runs/details/run-0"
