"""A watch shows every state once, whatever happens to its connection, and asks nothing in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api_server import ApiServer
from visionloop.cluster import Cluster, Forbidden, connect
from visionloop.cluster.transport import Patience
from visionloop.errors import VisionloopError


@pytest.fixture
def cluster(kubeconfig: Path) -> Cluster:
    return connect(patience=Patience(attempts=6, first_s=0.02, most_s=1.0))


def config_map(value: int, name: str = "a") -> dict[str, Any]:
    data = {"value": str(value)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, phase: str = "Running", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels}
    spec = {"containers": [{"name": "main"}]}
    state = {"running": {}} if phase == "Running" else {"terminated": {"exitCode": 0}}
    state = {"waiting": {"reason": "ContainerCreating"}} if phase == "Pending" else state
    status = {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def later(*actions: Callable[[], object], pause_s: float = 0.15) -> threading.Thread:
    def work() -> None:
        for action in actions:
            time.sleep(pause_s)
            action()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def values(cluster: Cluster, last: str | None, timeout_s: float = 10.0) -> list[str | None]:
    """Values that a watch of the one object shows, up to the last."""
    found: list[str | None] = []
    for item in cluster.watch("v1", "ConfigMap", "a", timeout_s=timeout_s):
        found.append(item["data"]["value"] if item else None)
        if found[-1] == last and len(found) > 1:
            break
    return found


def test_every_state_is_shown_from_absence_to_deletion(
    api_server: ApiServer, cluster: Cluster
) -> None:
    later(
        lambda: api_server.put(config_map(9, "b")),
        lambda: api_server.put(config_map(1)),
        lambda: api_server.put(config_map(2)),
        lambda: api_server.delete("ConfigMap", "a"),
    )
    assert values(cluster, None) == [None, "1", "2", None]
    assert len(api_server.asked("GET", "/configmaps$")) == 2, "one list, one stream"


def test_the_iterator_ends_with_its_time(api_server: ApiServer, cluster: Cluster) -> None:
    api_server.put(config_map(1))
    began = time.monotonic()
    assert values(cluster, "never", timeout_s=0.6) == ["1"]
    assert 0.5 <= time.monotonic() - began < 3.0


def test_a_stream_that_ends_early_goes_on_where_it_was(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(config_map(0))
    api_server.cut_watch("/configmaps$", after=1, times=3)
    later(*(lambda n=n: api_server.put(config_map(n)) for n in range(1, 6)), pause_s=0.05)  # type: ignore[misc]
    assert values(cluster, "5") == ["0", "1", "2", "3", "4", "5"]
    streams = [r for r in api_server.requests if r.query.get("watch")]
    assert len(streams) == 4 and len(api_server.asked("GET", "/configmaps$")) == 5, "listed once"


@pytest.mark.parametrize("code", [0, 401, 429, 500, 503])
def test_a_stream_that_cannot_begin_is_begun_again(
    api_server: ApiServer, cluster: Cluster, code: int
) -> None:
    api_server.put(config_map(0))
    api_server.fail("WATCH", "/configmaps$", code, times=1)
    later(lambda: api_server.put(config_map(1)))
    assert values(cluster, "1") == ["0", "1"]


def test_a_busy_server_is_given_the_time_that_it_asks_for(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(config_map(0))
    api_server.fail("WATCH", "/configmaps$", 429, retry_after="1")
    later(lambda: api_server.put(config_map(1)))
    began = time.monotonic()
    assert values(cluster, "1") == ["0", "1"]
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("as_event", [True, False])
def test_history_that_is_gone_is_listed_anew_and_nothing_comes_twice(
    api_server: ApiServer, cluster: Cluster, as_event: bool
) -> None:
    api_server.put(config_map(0))
    api_server.fail("WATCH", "/configmaps$", 410, event=as_event)
    later(lambda: api_server.put(config_map(1)), lambda: api_server.put(config_map(2)))
    assert values(cluster, "2") == ["0", "1", "2"]
    lists = [r for r in api_server.asked("GET", "/configmaps$") if not r.query.get("watch")]
    assert len(lists) == 2


def test_a_server_that_is_away_while_its_history_is_lost_is_waited_for(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(config_map(0))
    api_server.fail("WATCH", "/configmaps$", 410, event=True)
    found = []
    for item in cluster.watch("v1", "ConfigMap", "a", timeout_s=10.0):
        assert item is not None
        found.append(item["data"]["value"])
        if len(found) == 2:
            break
        # The first list is answered: it is not waited for, as the next one is.
        api_server.fail("GET", "/configmaps$", 503, times=8)
        api_server.put(config_map(1))
    assert found == ["0", "1"]
    assert not api_server.faults, "more failures than one request is tried"


def test_a_server_that_is_away_from_the_start_is_told(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.fail("GET", "/configmaps$", 503, times=6)
    with pytest.raises(VisionloopError, match="503"):
        values(cluster, "never")


def test_a_state_that_the_server_tells_twice_comes_once(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(config_map(0))

    def repeat() -> None:
        store = api_server.store
        with store.changed:
            _, _, key, item = store.log[-1]
            store.version = next(store.versions)
            store.log.append((store.version, "MODIFIED", key, item))

    later(repeat, lambda: api_server.put(config_map(1)))
    assert values(cluster, "1") == ["0", "1"]


def test_what_was_deleted_while_history_was_lost_is_told(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(config_map(0))
    api_server.cut_watch("/configmaps$", after=0)

    def lose() -> None:
        api_server.delete("ConfigMap", "a")
        api_server.store.forget()

    later(lose)
    assert values(cluster, None) == ["0", None]


def test_an_error_event_of_another_kind_is_no_busy_loop(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(config_map(0))
    api_server.fail("WATCH", "/configmaps$", 500, event=True, times=1000)
    values(cluster, "never", timeout_s=1.0)
    assert len([r for r in api_server.requests if r.query.get("watch")]) < 12


def test_a_right_to_watch_that_lacks_ends_it(api_server: ApiServer, cluster: Cluster) -> None:
    api_server.denied.add("watch configmaps")
    with pytest.raises(Forbidden, match="may not watch configmaps"):
        values(cluster, "never")


def test_pods_of_a_label_come_with_what_happened_to_them(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(pod("a", app="x"))
    api_server.put(pod("other", app="y"))
    later(
        lambda: api_server.put(pod("b", app="x")),
        lambda: api_server.put(pod("a", "Succeeded", app="x")),
        lambda: api_server.delete("Pod", "b"),
    )
    found = []
    for event, item in cluster.watch_list("v1", "Pod", label_selector="app=x", timeout_s=10):
        found.append((event, item["metadata"]["name"]))
        if event == "DELETED":
            break
    assert found == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


def test_a_controller_of_the_test_reacts_to_what_is_applied(
    api_server: ApiServer, cluster: Cluster
) -> None:
    def copy_value(event: str, item: dict[str, Any]) -> None:
        if item["kind"] == "ConfigMap" and "status" not in item:
            api_server.set_status(item, {"seen": item["data"]["value"]})

    api_server.controllers.append(copy_value)
    cluster.apply(config_map(4))
    for item in cluster.watch("v1", "ConfigMap", "a", timeout_s=10):
        if item and item.get("status"):
            assert item["status"] == {"seen": "4"}
            return
    pytest.fail("the controller was not called")


def test_a_log_is_followed_from_before_the_start_to_the_end_over_a_reset(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(pod("p", "Pending"))
    written = api_server.pod_logs.setdefault("p/main", [])
    later(
        lambda: api_server.put(pod("p")),
        lambda: written.extend(["one", "two"]),
        lambda: written.append("three"),
        lambda: (written.append("four"), api_server.put(pod("p", "Succeeded"))),
    )
    api_server.fail("GET", "/pods/p/log", 0)
    assert list(cluster.follow_logs("p", timeout_s=10)) == ["one", "two", "three", "four"]


def test_a_log_whose_connection_ends_goes_on_after_the_last_line(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(pod("p"))
    written = api_server.pod_logs.setdefault("p/main", ["one", "two", "three"])
    api_server.fail("GET", "/pods/p/log", cut_after=2, times=2)
    later(lambda: (written.append("four"), api_server.put(pod("p", "Succeeded"))), pause_s=0.4)
    assert list(cluster.follow_logs("p", timeout_s=10)) == ["one", "two", "three", "four"]
    begun_again = api_server.asked("GET", "/pods/p/log")[1]
    assert begun_again.query["sinceTime"] == "2026-01-01T00:00:01Z"


def test_a_log_of_a_pod_that_never_starts_is_empty_and_does_not_hang(
    api_server: ApiServer, cluster: Cluster
) -> None:
    failing = pod("p", "Pending")
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    failing["status"]["containerStatuses"][0]["state"] = waiting
    api_server.put(failing)
    began = time.monotonic()
    assert list(cluster.follow_logs("p", timeout_s=10)) == []
    assert time.monotonic() - began < 5
