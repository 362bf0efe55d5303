"""Nothing is made twice: versions follow content, runs follow keys, whatever gets lost."""

from __future__ import annotations

import threading
import time

import pytest

from tests.submission.conftest import LOOP
from tests.submission.kfp_stub import KfpStub
from visionloop.errors import InputError
from visionloop.submission import Server, ServerError, Work


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionloop.submission.runs._SETTLED_AFTER_S", 0.05)


def test_a_version_is_uploaded_only_when_its_content_is_new(work: Work, changed: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        first, again = server.upload(work), server.upload(work)
        other = server.upload(changed)
    assert (first.uploaded, again.uploaded, other.uploaded) == (True, False, True)
    assert first.version_id == again.version_id != other.version_id
    assert first.pipeline_id == other.pipeline_id
    assert len(kfp.asked("POST", "upload_version")) == 2
    assert work.package.digest[:12] in first.name
    assert kfp.versions[0]["description"] == f"sha256:{work.package.digest}"


def test_a_version_is_found_on_a_later_page_too(work: Work) -> None:
    with KfpStub(page=1) as kfp:
        server = Server.connect(kfp.url)
        server.upload(work)
        # A second pipeline's version of the same name comes first in no list of this one.
        kfp.versions.insert(0, {**kfp.versions[0], "pipeline_version_id": "version-9"})
        kfp.versions[0]["display_name"] = "older"
        assert server.upload(work).version_id == "version-0"


def test_jobs_that_upload_at_once_take_the_first_ones_version(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)

        def another_job() -> None:
            mine = {"display_name": work.package.name}
            kfp.answer("POST", "/apis/v2beta1/pipelines", {}, mine)

        # Between the look and the creation, another job is faster.
        kfp.fail("GET", "/pipelines$", 429, retry_after="0")
        kfp.fail("POST", "/pipelines$", 409, then=another_job)
        version = server.upload(work)
        assert len(kfp.pipelines) == 1 and version.pipeline_id == "pipeline-0"

        query = {"name": [version.name], "pipelineid": ["pipeline-0"]}
        kfp.versions.clear()
        kfp.fail(
            "POST",
            "/upload_version",
            500,
            message=f"Failed to create a version. The name {version.name} already exist",
            then=lambda: kfp.answer("POST", "/apis/v2beta1/pipelines/upload_version", query, ""),
        )
        assert server.upload(work).uploaded is False
        assert len(kfp.versions) == 1


def test_an_experiment_that_another_job_made_meanwhile_is_taken() -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        made = {"display_name": "nightly"}
        kfp.fail(
            "POST",
            "/experiments$",
            409,
            then=lambda: kfp.answer("POST", "/apis/v2beta1/experiments", {}, made),
        )
        assert server.experiment("nightly") == "experiment-0"
        kfp.experiments[0]["storage_state"] = "ARCHIVED"
        with pytest.raises(InputError, match="archived"):
            server.experiment("nightly")


@pytest.mark.parametrize("status", [0, 500, 503, 504])
def test_a_run_whose_answer_got_lost_is_found_and_not_started_again(
    work: Work, status: int
) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        kfp.fail("POST", "/runs$", status, done=True)
        run = server.start(work, name="nightly")
        assert len(kfp.runs) == 1
    assert run.run_id == "run-0" and not run.attached


@pytest.mark.parametrize("status", [0, 429, 503])
def test_a_run_that_was_not_made_is_asked_for_again(work: Work, status: int) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        kfp.fail("POST", "/runs$", status, times=2)
        assert server.start(work).run_id == "run-0"
        assert len(kfp.runs) == 1


def test_a_run_of_the_same_name_by_somebody_else_is_not_taken_for_ours(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        server.start(work, name="nightly")
        kfp.fail("POST", "/runs$", 503)
        assert server.start(work, name="nightly").run_id == "run-1"


def test_a_server_asks_for_a_pause_and_gets_it(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        kfp.fail("GET", "/experiments", 429, retry_after="1")
        began = time.monotonic()
        server.experiment("visionloop")
        assert 1 <= time.monotonic() - began < 5


def test_a_server_that_never_recovers_ends_the_tries(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        kfp.fail("POST", "/runs$", 429, times=50, retry_after="0")
        with pytest.raises(ServerError, match="answered 429"):
            server.start(work)
        assert len(kfp.asked("POST", "/runs$")) == 5 and kfp.runs == []


def test_what_is_wrong_is_not_tried_again(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        kfp.fail("POST", "/runs$", 400, message="parameter lake is not optional")
        with pytest.raises(InputError, match="parameter lake is not optional"):
            server.start(work)
        assert len(kfp.asked("POST", "/runs$")) == 1


def test_a_job_that_starts_again_attaches_to_its_run(work: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        first, again = server.start(work, once="4f2a91c"), server.start(work, once="4f2a91c")
        other = server.start(work, once="another")
    assert (first.run_id, again.run_id, other.run_id) == ("run-0", "run-0", "run-1")
    assert (first.attached, again.attached, other.attached) == (False, True, False)
    assert first.name == "digits-round 4f2a91c"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_is_lost_is_started_anew(work: Work, state: str) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        server.start(work, once="4f2a91c")
        kfp.runs[0]["state"] = state
        assert server.start(work, once="4f2a91c").run_id == "run-1"


def test_a_key_stands_for_one_content(work: Work, changed: Work) -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        server.start(work, once="4f2a91c")
        with pytest.raises(InputError, match="belongs to a run of something else"):
            server.start(changed, once="4f2a91c")


@pytest.mark.parametrize("key", ["two words", " ", "a\tb"])
def test_a_key_is_one_word(work: Work, key: str) -> None:
    with KfpStub() as kfp, pytest.raises(InputError, match="not one word"):
        Server.connect(kfp.url).start(work, once=key)
    assert kfp.runs == []


def test_a_program_submits_follows_and_judges_as_the_command_does() -> None:
    with KfpStub(["RUNNING", "SUCCEEDED"], [("ingest", "SUCCEEDED")]) as kfp:
        server = Server.connect(kfp.url)
        run = server.submit("round", LOOP, settings=["n_samples=5"], image="registry.example/a:3")
        end = server.follow(run, poll_s=0.01)
    assert end.succeeded and [task.name for task in end.tasks] == ["ingest"]
    assert kfp.runs[0]["runtime_config"]["parameters"]["n_samples"] == 5
    assert "image: registry.example/a:3" in kfp.packages[run.version]


def test_two_jobs_with_one_key_at_the_same_moment_end_up_with_one_run(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionloop.submission.runs._SETTLED_AFTER_S", 1.5)
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        server.upload(work)
        server.experiment("visionloop")
        both_looked = threading.Barrier(2, timeout=10)

        def held() -> None:
            both_looked.wait()

        found: list[str] = []

        def job() -> None:
            mine = Server.connect(kfp.url)
            look = mine.client.list_runs
            looks = 0

            def list_runs(**query: object) -> object:
                nonlocal looks
                answer = look(**query)
                looks += 1
                if looks == 1:
                    held()
                return answer

            mine.client.list_runs = list_runs
            found.append(mine.start(work, once="4f2a91c").run_id)

        jobs = [threading.Thread(target=job) for _ in range(2)]
        for thread in jobs:
            thread.start()
        for thread in jobs:
            thread.join(timeout=30)
        assert len(kfp.runs) == 2
        alive = [run["run_id"] for run in kfp.runs if run["state"] != "CANCELED"]
        assert found == alive * 2
