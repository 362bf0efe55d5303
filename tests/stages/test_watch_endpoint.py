"""An endpoint that counts, refuses or does not answer, as a watch meets it."""

from __future__ import annotations

import inspect
import json
import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.servers import free_port, wait_until
from tests.stages.acting_loop import ActingLoop, worse_loop
from tests.stages.endpoints import counting, endpoint
from visionloop.config import load_config
from visionloop.lake import lock
from visionloop.serving.pointer import pointer_uri
from visionloop.stages import watch_acts
from visionloop.stages.rollback import rollback


@pytest.fixture
def loop(tmp_path: Path) -> ActingLoop:
    return ActingLoop(tmp_path)


@pytest.fixture
def worse(tmp_path: Path) -> ActingLoop:
    return worse_loop(tmp_path)


def test_an_endpoint_that_refuses_the_model_before_keeps_the_one_in_service(
    worse: ActingLoop,
) -> None:
    place = pointer_uri(worse.lake, "test")
    with endpoint(place, refuses=True) as url:
        worse.serving = {"url": url, "timeout_s": 0.3}
        assert "Model m1 was not brought back: the endpoint 'test' did not" in worse.watch().acts
    assert worse.in_service() == ("m2", "m1") and worse.states()["m2"] == "in_service"
    with endpoint(place) as url:
        worse.serving = {"url": url}
        assert worse.watch().acts == "", "by rule it is tried once"
        assert rollback(config=worse.config).in_service == "m1"


def test_an_endpoint_that_does_not_answer_is_left_to_the_next_watch(worse: ActingLoop) -> None:
    port, place = free_port(), pointer_uri(worse.lake, "test")
    worse.serving = {"url": f"http://127.0.0.1:{port}", "timeout_s": 0.3}
    found = worse.watch().acts
    assert "The rollback to m1 waits for the next watch: the endpoint 'test' did not" in found
    assert "Connection refused" in found
    assert worse.in_service() == ("m2", "m1") and worse.states()["m2"] == "in_service"
    assert worse.decisions("rollback") == [("rollback", "called_for", "m1")]
    worse.serving["timeout_s"] = 30
    done: list[str] = []
    watching = threading.Thread(target=lambda: done.append(worse.watch().acts))
    watching.start()
    wait_until(lambda: worse.in_service()[0] == "m1")  # it refuses connections for a while yet
    with endpoint(place, port=port):
        watching.join(timeout=60)
    assert done == ["Model m1 is in service again, in the place of m2."]
    assert worse.decisions("rollback")[1:] == [("rollback", "published", "m1")]


def test_a_rollback_that_meets_another_writer_is_left_to_the_next_watch(
    worse: ActingLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse.serving = {"url": f"http://127.0.0.1:{free_port()}", "timeout_s": 0.1}
    worse.watch()  # decides, and meets nobody at the endpoint
    worse.serving, lake = {}, worse.lake
    defaults = inspect.unwrap(lock.writer_lock).__kwdefaults__
    with monkeypatch.context() as patched, lock.writer_lock(lake.catalog_uri, lake.loop):
        patched.setitem(defaults, "timeout", 0.2)
        config = load_config(worse.config)
        told = watch_acts.finish_rollback(config, lake, held_by="", run_id="")
    assert told.startswith("The rollback to m1 waits for the next watch: another process has been")
    assert worse.in_service() == ("m2", "m1")
    assert worse.watch().acts == "Model m1 is in service again, in the place of m2."


def test_a_rollback_that_another_model_overtook_is_told_as_that_and_not_as_failed(
    worse: ActingLoop,
) -> None:
    worse.serving = {"url": f"http://127.0.0.1:{free_port()}", "timeout_s": 0.1}
    worse.watch()
    worse.serving = {}
    worse.publish("m3")
    told = "Model m1 need not come back: m3 is in service by now, not m2."
    assert worse.watch().acts == told
    assert worse.watch().acts == ""
    assert worse.in_service() == ("m3", "m2") and worse.states()["m3"] == "in_service"
    assert worse.decisions("rollback")[1:] == [("rollback", "overtaken", "m1")]


def test_a_rollback_that_waited_for_a_day_is_given_up(
    worse: ActingLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse.serving = {"url": f"http://127.0.0.1:{free_port()}", "timeout_s": 0.1}
    worse.watch()
    monkeypatch.setattr(watch_acts, "_PATIENCE", timedelta(0))
    assert worse.watch().acts.startswith("Model m1 was not brought back: the endpoint")
    assert worse.decisions("rollback")[-1] == ("rollback", "failed", "m1")


def test_errors_of_the_server_are_told_from_what_two_watches_read(loop: ActingLoop) -> None:
    loop.publish("m1")
    loop.watching = {"block_publication": {"max_error_rate": 0.05}}
    with counting([(1000, 900), (1100, 905), (1300, 990), (1700, 991)]) as url:
        loop.serving = {"url": url}
        assert loop.watch().acts == ""  # where the counters stand: 900 errors are nobody's
        assert loop.watch().acts == ""  # 105 requests are too few
        assert "90 of 390 requests since the last judgement ended in an error" in loop.watch().acts
        assert "Models may be published again: 1 of 401 requests" in loop.watch().acts
    loop.serving = {"url": "http://127.0.0.1:9"}
    loop.watch()
    rows = loop.lake.read("decisions", where="decision == 'watch'").to_pylist()
    last = json.loads(max(rows, key=lambda row: row["decided_at"])["inputs"])
    (rule,) = [rule for rule in last["rules"] if rule["name"] == "error_rate"]
    assert rule["verdict"] == "unknown" and "could not be counted" in rule["told"]


def test_what_does_not_speak_http_is_told_and_stops_no_watch(loop: ActingLoop) -> None:
    loop.publish("m1")
    loop.watching = {"block_publication": {"max_error_rate": 0.05}}
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0\r\n")

        threading.Thread(target=answer, daemon=True).start()
        loop.serving = {"url": f"http://127.0.0.1:{server.getsockname()[1]}"}
        loop.watch()
    (row,) = loop.lake.read("decisions", where="decision == 'watch'").to_pylist()
    rules = json.loads(row["inputs"])["rules"]
    (told,) = [rule["told"] for rule in rules if rule["name"] == "error_rate"]
    assert "the requests could not be counted: SSH-2.0" in told
