"""The collector's route for Label Studio, over real HTTP: a call leaves a hint and no more."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Server, Starter
from tests.serving.test_collector import EVENT, lines
from visionloop.errors import InputError
from visionloop.labeling.hints import look
from visionloop.lake.storage import FileStorage
from visionloop.serving.label_webhook import MAX_BYTES, LabelWebhook

SECRET = "0123456789abcdef-hook"
CALL = json.dumps(
    {"action": "ANNOTATION_CREATED", "annotation": {"result": "not believed"}}
).encode()


@pytest.fixture
def collector(start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", SECRET)
    return start("collect", **places(tmp_path))


def places(folder: Path) -> dict[str, Any]:
    return {"events": str(folder / "events"), "label_events": str(folder / "hints"), "port": 0}


def call(server: Server, loop: str = "clothing", body: bytes = CALL, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.post(f"/label-studio/{loop}", body, named)[0]


def hint(folder: Path, loop: str = "clothing", *, calls: int = 1) -> dict[str, Any]:
    """Return the hint of a loop once it tells of so many calls."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = look(FileStorage(), str(folder / "hints"), loop)
        if found and json.loads(found)["calls"] >= calls:
            held: dict[str, Any] = json.loads(found)
            return held
        time.sleep(0.05)
    raise AssertionError("no hint came")


def test_a_call_with_the_secret_leaves_a_hint_and_what_it_tells_is_not_kept(
    collector: Server, tmp_path: Path
) -> None:
    began = time.monotonic()
    assert call(collector, Authorization=f"Bearer {SECRET}") == 202
    assert time.monotonic() - began < 1
    held = hint(tmp_path)
    assert (held["loop"], held["action"], held["calls"]) == ("clothing", "ANNOTATION_CREATED", 1)
    assert call(collector, X_Visionloop_Secret=SECRET, body=b"{}") == 202
    assert hint(tmp_path, calls=2)["action"] == ""
    assert [path.name for path in (tmp_path / "hints").iterdir()] == ["clothing.json"]
    assert "not believed" not in (tmp_path / "hints" / "clothing.json").read_text()
    # It is no event of an endpoint, and events are taken as before.
    assert collector.post("/", b"x", EVENT)[0] == 200
    assert len(lines(tmp_path / "events")) == 1
    metrics = collector.get("/metrics").decode()
    assert 'visionloop_collector_webhooks_total{outcome="taken"} 2.0' in metrics
    assert 'visionloop_collector_label_hints_total{outcome="written"} 2.0' in metrics
    assert "visionloop_collector_events_total 1.0" in metrics


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {SECRET}x"},
     {"Authorization": SECRET}, {"Authorization": f"Basic {SECRET}"}, {"X_Visionloop_Secret": ""}],
)  # fmt: skip
def test_a_call_without_the_secret_leaves_nothing(
    collector: Server, tmp_path: Path, headers: dict[str, str]
) -> None:
    assert call(collector, **headers) == 401
    time.sleep(0.2)
    assert not (tmp_path / "hints").exists()
    assert 'webhooks_total{outcome="unauthorized"} 1.0' in collector.get("/metrics").decode()
    assert lines(tmp_path / "events") == []


@pytest.mark.parametrize("loop", ["", "../events/x", "a/b", "UPPER", "%2e%2e", "x" * 64])
def test_only_a_loop_can_be_named(collector: Server, tmp_path: Path, loop: str) -> None:
    assert call(collector, loop, Authorization=f"Bearer {SECRET}") == 404
    assert not (tmp_path / "hints").exists()


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[" * 100_000, b"\xff", b'{"action": ["x"]}',
                                  b'{"action": "<script>"}'])  # fmt: skip
def test_a_body_of_garbage_is_a_hint_all_the_same(
    collector: Server, tmp_path: Path, body: bytes
) -> None:
    assert call(collector, body=body, Authorization=f"Bearer {SECRET}") == 202
    assert hint(tmp_path)["action"] == ""


def test_a_body_that_is_too_large_is_refused(collector: Server) -> None:
    status = call(collector, body=b"x" * (MAX_BYTES + 1), Authorization=f"Bearer {SECRET}")
    assert status == 413


def test_many_calls_are_few_hints_and_the_last_is_not_lost(
    collector: Server, tmp_path: Path
) -> None:
    for number in range(60):
        assert call(collector, f"loop-{number % 2}", Authorization=f"Bearer {SECRET}") == 202
    assert hint(tmp_path, "loop-0", calls=30)["calls"] == 30
    assert hint(tmp_path, "loop-1", calls=30)["calls"] == 30
    metrics = collector.get("/metrics").decode()
    written = next(
        line for line in metrics.splitlines() if 'hints_total{outcome="written"}' in line
    )
    assert float(written.split()[-1]) <= 10


def test_what_waits_is_written_before_the_end(collector: Server, tmp_path: Path) -> None:
    for _ in range(5):
        call(collector, Authorization=f"Bearer {SECRET}")
    assert collector.stop() == 0
    assert json.loads((tmp_path / "hints" / "clothing.json").read_text())["calls"] == 5


def test_without_a_secret_the_route_is_off_and_a_short_one_is_refused(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISIONLOOP_WEBHOOK_SECRET", raising=False)
    server = start("collect", **places(tmp_path))
    assert call(server, Authorization="Bearer ") == 404
    assert lines(tmp_path / "events") == []
    with pytest.raises(InputError, match="fewer than 16"):
        LabelWebhook(str(tmp_path), "short")


def test_a_hint_that_cannot_be_written_is_tried_again_and_stops_no_event(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", SECRET)
    (tmp_path / "hints").write_text("a file in the place of the folder")
    server = start("collect", **places(tmp_path))
    assert call(server, Authorization=f"Bearer {SECRET}") == 202
    deadline = time.monotonic() + 10
    while b'hints_total{outcome="failed"} 1.0' not in server.get("/metrics"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.post("/", b"x", EVENT)[0] == 200
    (tmp_path / "hints").unlink()
    assert hint(tmp_path)["calls"] == 1
