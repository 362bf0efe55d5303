"""Publishing: the pointer, the endpoint that has to come up, the round that is closed."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from tests.servers import free_port, wait_until
from tests.stages.endpoints import endpoint
from visionloop.config import load_config
from visionloop.errors import VisionloopError
from visionloop.lake import Lake
from visionloop.lake.lock import writer_lock
from visionloop.serving.endpoint import NoAnswer
from visionloop.serving.pointer import Pointer, pointer_uri, read_pointer, write_pointer
from visionloop.stages import publish as publishing
from visionloop.stages.publish import publish


def config(lake: Lake, **serving: object) -> str:
    return json.dumps({"name": lake.loop, "lake": lake.uri, "serving": serving})


def trained(lake: Lake, *models: str) -> None:
    for model in models:
        opened = lake.rounds.open("run", take_over=True)
        with lake.run(stage="evaluate", round_id=opened.round_id) as run:
            run.append(
                "experiments", pa.table({"model_id": [model], "arm": ["loop"], "state": ["passed"]})
            )
            run.commit()


def states(lake: Lake) -> dict[str, str]:
    rows = lake.read("experiments").to_pylist()
    return {row["model_id"]: row["state"] for row in rows}


def test_a_model_that_passed_goes_into_service_and_closes_its_round(
    lake: Lake, tmp_path: Path
) -> None:
    trained(lake, "m1")
    place = pointer_uri(lake, "test")
    with endpoint(place, after=2) as url:
        setting = config(lake, url=url)
        done = publish(config=setting, model_id="m1", model_uri="file:///m1", passed=True)
    assert done[1:] == (True, "m1")
    held = read_pointer(place)
    assert held is not None and (held.model_id, held.previous) == ("m1", "")
    assert states(lake) == {"m1": "in_service"}
    closed = lake.rounds.get("0000")
    assert closed is not None and (closed.state, closed.outcome) == ("done", "published")
    assert lake.read("decisions")["outcome"].to_pylist() == ["published"]


def test_a_model_that_did_not_pass_leaves_the_one_in_service_where_it_is(lake: Lake) -> None:
    trained(lake, "m1")
    publish(config=config(lake), model_id="m1", model_uri="file:///m1", passed=True)
    trained(lake, "m2")
    done = publish(config=config(lake), model_id="m2", model_uri="file:///m2", passed=False)
    assert done[1:] == (False, "m1")
    held = read_pointer(pointer_uri(lake, "test"))
    assert held is not None and held.model_id == "m1"
    assert states(lake) == {"m1": "in_service", "m2": "passed"}
    assert [r.outcome for r in lake.rounds.all()] == ["published", "kept"]


def test_a_new_model_retires_the_old_one(lake: Lake) -> None:
    for model in ("m1", "m2"):
        trained(lake, model)
        publish(config=config(lake), model_id=model, model_uri=f"file:///{model}", passed=True)
    assert states(lake) == {"m1": "retired", "m2": "in_service"}
    # Nothing serves here, so that nothing is said to be in service after some seconds.
    reasons = lake.read("decisions", where="decision == 'publish'")["reason"].to_pylist()
    assert set(reasons) == {
        "passed its gate; the pointer names it, and no endpoint is configured that would be waited "
        "for"
    }
    held = read_pointer(pointer_uri(lake, "test"))
    assert held is not None and (held.model_id, held.previous) == ("m2", "m1")


@pytest.mark.parametrize("up", [True, False])
def test_an_endpoint_that_does_not_come_up_gets_the_old_model_back(lake: Lake, up: bool) -> None:
    trained(lake, "m1")
    publish(config=config(lake), model_id="m1", model_uri="file:///m1", passed=True)
    trained(lake, "m2")
    place = pointer_uri(lake, "test")
    with endpoint(place, refuses=True) as url:
        address = url if up else f"http://127.0.0.1:{free_port()}"
        setting = config(lake, url=address, timeout_s=0.5)
        says = "no model yet" if up else "does not answer: .*refused"
        with pytest.raises(VisionloopError, match=f"did not come up with model m2.*{says}"):
            publish(config=setting, model_id="m2", model_uri="file:///m2", passed=True)
    held = read_pointer(place)
    assert held is not None and held.model_id == "m1"
    assert states(lake) == {"m1": "in_service", "m2": "passed"}
    again = lake.rounds.get("0001")
    assert again is not None and again.state == "running"
    with endpoint(place) as url:
        done = publish(
            config=config(lake, url=url), model_id="m2", model_uri="file:///m2", passed=True
        )
    assert done.in_service == "m2"


def test_a_publish_that_was_killed_after_it_moved_the_pointer_still_goes_back(lake: Lake) -> None:
    for model in ("m1", "m2"):
        trained(lake, model)
        publish(config=config(lake), model_id=model, model_uri=f"file:///{model}", passed=True)
    trained(lake, "m3")
    place = pointer_uri(lake, "test")
    # What a publish of m3 leaves that is killed while it waits for the endpoint.
    write_pointer(place, Pointer("m3", "file:///m3", "", "m2", "file:///m2"))
    with endpoint(place, refuses=True) as url:
        setting = config(lake, url=url, timeout_s=0.3)
        with pytest.raises(VisionloopError, match="did not come up with model m3"):
            publish(config=setting, model_id="m3", model_uri="file:///m3", passed=True)
    held = read_pointer(place)
    assert held is not None and (held.model_id, held.model_uri) == ("m2", "file:///m2")


def test_an_interrupt_while_the_endpoint_comes_up_goes_back_too(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(lake, "m1")
    publish(config=config(lake), model_id="m1", model_uri="file:///m1", passed=True)
    trained(lake, "m2")
    place = pointer_uri(lake, "test")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with endpoint(place, refuses=True) as url:
        monkeypatch.setattr("visionloop.serving.endpoint.time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(
                config=config(lake, url=url), model_id="m2", model_uri="file:///m2", passed=True
            )
    held = read_pointer(place)
    assert held is not None and held.model_id == "m1"


def test_an_interrupt_while_the_lock_is_waited_for_leaves_no_model_that_nobody_saw_up(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(lake, "m1", "m2")
    publish(config=config(lake), model_id="m1", model_uri="file:///m1", passed=True)
    place, waited = pointer_uri(lake, "test"), []

    def interrupt(seconds: float) -> None:
        waited.append(seconds)
        raise KeyboardInterrupt

    url = f"http://127.0.0.1:{free_port()}"
    setting = load_config(config(lake, url=url, timeout_s=60))
    with ExitStack() as held:

        def first(seconds: float) -> None:
            # From here on another process writes, and the next thing that sleeps is the lock.
            held.enter_context(writer_lock(lake.catalog_uri, lake.loop))
            interrupt(seconds)

        monkeypatch.setattr(
            "visionloop.serving.endpoint.time",
            SimpleNamespace(sleep=first, monotonic=time.monotonic),
        )
        monkeypatch.setattr(
            "visionloop.lake.lock.time", SimpleNamespace(sleep=interrupt, monotonic=time.monotonic)
        )
        with pytest.raises(KeyboardInterrupt):
            publishing.move_pointer(setting, lake, "m2", "file:///m2", demand=lambda _: None)
    found = read_pointer(place)
    assert len(waited) == 2 and found is not None and found.model_id == "m1"


def test_publishing_twice_is_publishing_once(lake: Lake) -> None:
    trained(lake, "m1")
    place = pointer_uri(lake, "test")
    for _ in range(2):
        publish(
            config=config(lake),
            round_id="0000",
            model_id="m1",
            model_uri="file:///m1",
            passed=True,
        )
    assert lake.read("decisions").num_rows == 1
    assert lake.read("experiments").num_rows == 1
    held = read_pointer(place)
    assert held is not None and held.previous == ""


def test_a_pointer_goes_back_also_while_another_process_writes(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(lake, "m1", "m2")
    publish(config=config(lake), model_id="m1", model_uri="file:///m1", passed=True)
    place, over = pointer_uri(lake, "test"), threading.Event()
    monkeypatch.setattr(publishing, "_PUT_BACK_SECONDS", 0.2)

    def served() -> str:
        held = read_pointer(place)
        return held.model_id if held else ""

    def writes() -> None:
        wait_until(lambda: served() == "m2")
        with writer_lock(lake.catalog_uri, lake.loop):
            over.wait(60)

    setting = load_config(config(lake, url=f"http://127.0.0.1:{free_port()}", timeout_s=1.5))
    writer = threading.Thread(target=writes)
    writer.start()
    # What is told is why the endpoint failed, and that may pass: the lock is nobody's fault.
    with pytest.raises(NoAnswer, match="did not come up with model m2"):
        publishing.move_pointer(setting, lake, "m2", "file:///m2", demand=lambda _: None)
    assert writer.is_alive() and served() == "m1"
    over.set()
    writer.join(timeout=60)
