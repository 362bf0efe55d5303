"""Which response belongs to which request, when ids do not say."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from visionloop.serving.pairing import Half, Outcome, resolve
from visionloop.serving.requests import Request
from visionloop.serving.responses import Response

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=1)
NAMES = ("ns", "svc", "predictor", "", "pod")


def half(content: Request | Response, at: float, **more: Any) -> Half:
    moment = START + timedelta(seconds=at)
    kept: dict[str, Any] = {
        "event_id": "id",
        "digest": f"{type(content).__name__}{at}{more}",
        "occurred_at": moment,
        "received_at": moment,
        "names": NAMES,
        "content_type": "application/json",
        "metadata": "{}",
        "model_id": "",
        "body_sha256": repr(content),
        "content": content,
    }
    return Half(**{**kept, **more})


def ask(image: str, at: float, *, rows: int = 1, v2_id: str = "", **more: Any) -> Half:
    protocol = "v2" if v2_id else "v1"
    return half(Request(protocol, (image,) * rows, (None,) * rows, v2_id=v2_id), at, **more)


def reply(p: float, at: float, *, rows: int = 1, v2_id: str = "", **more: Any) -> Half:
    values = np.array([[p, 1 - p]] * rows, np.float32)
    return half(Response("v2" if v2_id else "v1", values, v2_id=v2_id), at, **more)


def joined(*halves: Half) -> dict[str, str | None]:
    """Return ``{first probability: image}``, which must not depend on the order."""
    found = []
    for order in itertools.permutations(halves):
        outcome = resolve(order, orphaned_before=LATER)
        found.append(_joined(outcome))
    assert all(one == found[0] for one in found)
    return found[0]


def _joined(outcome: Outcome) -> dict[str, str | None]:
    pairs: dict[str, str | None] = {}
    for inference in outcome.inferences:
        answer = inference.response.content
        assert isinstance(answer, Response)
        assert answer.probabilities is not None
        asked = inference.request.content if inference.request else None
        image = asked.samples[0] if isinstance(asked, Request) else None
        pairs[f"{answer.probabilities[0, 0]:.1f}"] = image
    return pairs


def states(*halves: Half, before: datetime = LATER) -> list[tuple[str, str]]:
    outcome = resolve(halves, orphaned_before=before)
    return [outcome.states[half.digest] for half in halves]


def test_one_after_the_other_is_told_apart_by_time() -> None:
    assert joined(
        ask("a", 0), reply(0.1, 1), ask("b", 2), reply(0.2, 3), ask("c", 4), reply(0.3, 5)
    ) == {"0.1": "a", "0.2": "b", "0.3": "c"}


def test_at_the_same_time_is_told_apart_by_the_v2_id() -> None:
    assert joined(
        ask("a", 0, v2_id="x"), ask("b", 1, v2_id="y"),
        reply(0.2, 2, v2_id="y"), reply(0.1, 3, v2_id="x"),
    ) == {"0.1": "a", "0.2": "b"}  # fmt: skip


def test_at_the_same_time_is_told_apart_by_what_both_events_carry() -> None:
    for name, a, b in (
        ("metadata", '{"X-Request-Id":["1"]}', '{"X-Request-Id":["2"]}'),
        ("content_type", "image/jpeg", "application/json"),
        ("names", (*NAMES[:4], "pod-1"), (*NAMES[:4], "pod-2")),
        ("names", ("ns", "one", *NAMES[2:]), ("ns", "two", *NAMES[2:])),
    ):
        assert joined(
            ask("a", 0, **{name: a}), ask("b", 1, **{name: b}),
            reply(0.2, 2, **{name: b}), reply(0.1, 3, **{name: a}),
        ) == {"0.1": "a", "0.2": "b"}  # fmt: skip


def test_at_the_same_time_is_told_apart_by_the_size_of_the_batch() -> None:
    assert joined(ask("a", 0, rows=2), ask("b", 1), reply(0.2, 2), reply(0.1, 3, rows=2)) == {
        "0.1": "a",
        "0.2": "b",
    }


def test_what_cannot_be_told_apart_keeps_its_probabilities_and_names_no_image() -> None:
    events = ask("a", 0), ask("b", 1), reply(0.1, 2), reply(0.2, 3)
    assert joined(*events) == {"0.1": None, "0.2": None}
    assert set(states(*events)) == {("harvested", "ambiguous_ce_id")}


def test_retries_of_one_request_need_no_telling_apart() -> None:
    assert joined(ask("a", 0), ask("a", 1), reply(0.1, 2), reply(0.2, 3)) == {
        "0.1": "a",
        "0.2": "a",
    }


def test_a_retry_after_a_failure_leaves_one_request_over() -> None:
    events = ask("a", 0), ask("a", 5), reply(0.1, 6)
    assert joined(*events) == {"0.1": "a"}
    assert sorted(state for state, _ in states(*events)) == ["harvested", "harvested", "orphan"]


def test_two_answers_to_one_request_contradict_each_other() -> None:
    events = ask("a", 0), reply(0.1, 1), reply(0.2, 2)
    assert joined(*events) == {}
    assert set(states(*events)) == {("rejected", "conflicting_responses")}


def test_a_younger_request_is_not_what_an_older_answer_belongs_to() -> None:
    # The request of the first answer and the answer of the second request were lost.
    lost = reply(0.1, 0), ask("b", 100), ask("c", 200), reply(0.3, 201)
    assert joined(*lost)["0.1"] is None


def test_a_clock_that_jumped_is_overruled_by_the_v2_id_alone() -> None:
    assert joined(ask("a", 7200, v2_id="x"), reply(0.1, 0, v2_id="x")) == {"0.1": "a"}
    # Otherwise it may as well be two inferences that each lost a half.
    assert joined(ask("a", 7200), reply(0.1, 0)) == {"0.1": None}


def test_an_event_sent_late_may_bear_a_younger_time_than_its_answer() -> None:
    # Before KServe 0.18 `ce-time` is when a worker sent the event.
    assert joined(ask("a", 0.5), reply(0.1, 0.2), ask("b", 60), reply(0.2, 61)) == {
        "0.1": "a",
        "0.2": "b",
    }


def test_another_number_of_rows_is_rejected() -> None:
    assert set(states(ask("a", 0), reply(0.1, 1, rows=3))) == {("rejected", "rows_differ")}


def test_a_half_alone_waits_and_then_is_an_orphan() -> None:
    for lonely, reason in (
        (ask("a", 0), "request_without_response"),
        (reply(0.1, 0), "response_without_request"),
    ):
        assert states(lonely, before=START - timedelta(hours=1)) == [("pending", reason)]
        assert states(lonely, before=START + timedelta(hours=1)) == [("orphan", reason)]


def test_thousands_of_requests_with_one_id_are_paired_in_seconds() -> None:
    import time

    events: list[Half] = []
    for n in range(3000):
        events += [ask(f"i{n}", n), reply((n % 9 + 1) / 10, n + 0.5)]
    began = time.monotonic()
    outcome = resolve(events, orphaned_before=LATER)
    assert time.monotonic() - began < 10
    for inference in outcome.inferences:
        assert inference.request is not None
        assert inference.request.order < inference.response.order
    assert len(outcome.inferences) == 3000
