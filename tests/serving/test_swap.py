"""The model in service changes under load, and only for one that works."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Server, Starter, picture, write_bundle
from visionloop.serving.endpoint import served_models, wait_for_model
from visionloop.serving.following import ModelFollower
from visionloop.serving.pointer import Pointer, delete_pointer, read_pointer, write_pointer


def wait_until(true: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status(server: Server) -> Any:
    return json.loads(server.get("/visionloop/status"))


def test_the_pointer_is_followed_and_no_request_is_dropped(start: Starter, tmp_path: Path) -> None:
    pointer = str(tmp_path / "serving" / "clf.json")
    bundles = {n: write_bundle(tmp_path / f"m{n}", f"model-{n}", seed=n) for n in range(4)}
    server = start("serve", model_uri=pointer, name="clf", http_port=0, grpc_port=None, workers=4)
    # Up, and not ready before the first model.
    image = picture(1)
    assert server.post("/v1/models/clf:predict", image)[0] == 503
    assert b"alive" in server.get("/")
    assert served_models(server.url, "clf") == []
    assert not status(server)["ready"]

    write_pointer(pointer, Pointer("model-0", str(bundles[0]), "2026-01-01", ""))
    wait_for_model(server.url, "clf", "model-0", timeout=20)

    stop = threading.Event()
    replies: list[tuple[int, Any]] = []

    def client() -> None:
        while not stop.is_set():
            code, body, _ = server.post("/v1/models/clf:predict", image)
            replies.append((code, json.loads(body)))

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    for number in (1, 2, 3):
        write_pointer(
            pointer, Pointer(f"model-{number}", str(bundles[number]), "", f"model-{number - 1}")
        )
        wait_for_model(server.url, "clf", f"model-{number}", timeout=20)
    # A bundle that does not load is refused, and says why.
    broken = write_bundle(tmp_path / "broken", "model-x", broken=True)
    write_pointer(pointer, Pointer("model-x", str(broken), "", "model-3"))
    wait_until(lambda: status(server)["refused"])
    time.sleep(0.3)
    stop.set()
    for thread in clients:
        thread.join()

    assert {code for code, _ in replies} == {200}
    by_model: dict[str, set[str]] = {}
    for _, reply in replies:
        by_model.setdefault(reply["model_id"], set()).add(json.dumps(reply["predictions"]))
    assert set(by_model) >= {"model-1", "model-2", "model-3"}
    # One model answers a request from its beginning to its end.
    assert all(len(answers) == 1 for answers in by_model.values())
    refused = status(server)["refused"]
    assert refused["model_id"] == "model-x"
    assert "ONNX" in refused["reason"]
    assert status(server)["model_id"] == "model-3"
    assert b"visionloop_model_refused 1.0" in server.get("/metrics")

    write_pointer(pointer, Pointer("other", str(bundles[1]), "", ""))
    wait_until(lambda: status(server)["refused"]["model_id"] == "other")
    assert "the pointer names other" in status(server)["refused"]["reason"]
    delete_pointer(pointer)
    time.sleep(0.7)
    assert status(server)["model_id"] == "model-3"
    assert server.stop() == 0


def test_what_is_in_service_is_refused_no_more_once_it_is_published_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "clf.json")
    good = Pointer("model-a", str(write_bundle(tmp_path / "a", "model-a")))
    bad = Pointer("model-b", str(write_bundle(tmp_path / "b", "model-b", broken=True)))
    write_pointer(place, good)
    follower = ModelFollower(place)
    follower.take_first()

    def refused() -> str:
        follower.poll()
        assert follower.model and follower.model.card.model_id == "model-a"
        return follower.refusal.reason if follower.refusal else ""

    write_pointer(place, bad)
    assert "ONNX" in refused()
    write_pointer(place, good)  # a roll-back
    assert not refused()
    Path(place).write_text("half a poin")
    assert "no pointer" in refused()
    write_pointer(place, good)
    assert not refused()
    with monkeypatch.context() as patched:

        def away(uri: str) -> None:
            raise OSError("the disk is away")

        patched.setattr("visionloop.serving.following.read_pointer", away)
        assert refused() == "OSError: the disk is away"
    assert not refused()
    assert follower.swaps == 1


def test_a_stop_finishes_requests_and_sends_events(start: Starter, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m", "model-1")
    collector = start("collect", events=str(tmp_path / "events"), port=0)
    server = start(
        "serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None,
        events_url=collector.url,
    )  # fmt: skip
    image = picture(2, form="JPEG", size=500)
    codes: list[int] = []

    def client() -> None:
        for _ in range(40):
            try:
                codes.append(server.post("/v1/models/clf:predict", image)[0])
            except OSError:
                return

    clients = [threading.Thread(target=client) for _ in range(3)]
    for thread in clients:
        thread.start()
    wait_until(lambda: len(codes) > 10)
    assert server.stop() == 0
    for thread in clients:
        thread.join()
    collector.stop()
    text = b"".join(path.read_bytes() for path in (tmp_path / "events").glob("*"))
    # What began before the stop is answered; what came after it is told to go elsewhere.
    answered = codes.count(200)
    assert set(codes) <= {200, 503}
    assert text.count(b"inference.response") >= answered > 10
    assert "0 dropped" in server.log.read_text()


def test_events_wait_for_a_sink_that_is_down_and_none_is_lost(
    start: Starter, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "m", "model-1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(
        "serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None,
        events_url=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    began = time.monotonic()
    for _ in range(20):
        assert server.post("/v1/models/clf:predict", picture())[0] == 200
    assert time.monotonic() - began < 10
    assert status(server)["events"]["waiting"] >= 40
    assert "cannot be reached (Connection refused): events wait for it" in server.log.read_text()
    collector = start("collect", events=str(tmp_path / "events"), port=port)
    wait_until(lambda: status(server)["events"]["delivered"] >= 40)
    assert status(server)["events"]["dropped"] == {}
    assert "events reach http://127.0.0.1:" in server.log.read_text()
    collector.stop()
    assert server.post("/v1/models/clf:predict", picture())[0] == 200
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 8
    text = b"".join(path.read_bytes() for path in (tmp_path / "events").glob("*.jsonl"))
    assert text.count(b"inference.request") == text.count(b"inference.response") >= 20


def test_a_pointer_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    place = str(tmp_path / "p.json")
    assert read_pointer(place) is None
    pointer = Pointer("m", "file:///models/m", "2026-01-01T00:00:00+00:00", "before")
    write_pointer(place, pointer)
    assert read_pointer(place) == pointer
