"""What comes back from Label Studio: answers, skips, drafts, and what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.labeling.label_studio.conftest import Loop, answer, choice, rectangle
from tests.labeling.label_studio.real_server import ADMIN, LabelStudio
from visionloop.labeling.label_studio import delete_tasks
from visionloop.labeling.label_studio import tasks as reading
from visionloop.labeling.label_studio.collecting import _changed, _Cursor
from visionloop.labeling.provider import Box, Collected

Loops = Callable[..., Loop]


def _states(told: Collected) -> dict[tuple[str, str], str]:
    return {(one.sample_id, one.annotator): one.state for one in told.annotations}


def test_answers_of_two_people_skips_and_drafts_are_told_apart(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    asks = pets.asks(4)
    requests = pets.provider.request("r1", [pets.ask(0, answers=2), *asks[1:]])
    both, skipped, drafted, untouched = (ask.sample_id for ask in asks)
    with server.api() as one, server.member("second") as two:
        answer(one, requests[both], choice("cat"))
        answer(two, requests[both], choice("owl"), lead_time=8.25)
        answer(two, requests[skipped], was_cancelled=True)
        body = {"result": [choice("cat")], "lead_time": 1.5}
        one.post(f"/api/tasks/{requests[drafted]}/drafts", json=body)
        two.post(f"/api/tasks/{requests[drafted]}/drafts", json=body)
    before = datetime.now(UTC) + timedelta(seconds=5)
    told = pets.provider.collect("r1", requests, "")
    second = "second@example.com"
    assert _states(told) == {
        (both, ADMIN): "done",
        (both, second): "done",
        (skipped, second): "skipped",
        (drafted, ADMIN): "draft",
        (drafted, second): "draft",
    }
    assert told.samples == {both, skipped, drafted, untouched}
    assert not told.rejected and not told.gone
    theirs = next(one for one in told.annotations if one.label == "owl")
    assert (theirs.seconds, theirs.prelabel, theirs.boxes) == (8.25, None, None)
    assert theirs.created_at.tzinfo is UTC
    assert timedelta() <= before - theirs.updated_at < timedelta(minutes=5)
    assert pets.provider.poll("r1", requests).answered == 2, "a skip is an answer"


def test_only_what_changed_is_read_and_what_was_taken_away_is_noticed(
    loop: Loops, server: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionloop.labeling.label_studio.collecting._OVERLAP", timedelta())
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(5))
    first, corrected, removed, drafted, never = requests
    with server.api() as person:
        made = {s: answer(person, requests[s], choice("cat")) for s in (first, corrected, removed)}
        url = f"/api/tasks/{requests[drafted]}/drafts"
        draft = person.post(url, json={"result": [], "lead_time": 1}).json()
        start = pets.provider.collect("r1", requests, "")
        assert start.samples == set(requests)
        same = pets.provider.collect("r1", requests, start.cursor)
        # The newest change itself, which another one may share its time with, and what has drafts.
        assert first not in same.samples and corrected not in same.samples
        assert drafted in same.samples and never not in same.samples
        body = {"result": [choice("owl")]}
        person.patch(f"/api/annotations/{made[corrected]['id']}/", json=body)
        person.delete(f"/api/annotations/{made[removed]['id']}/")
        person.delete(f"/api/drafts/{draft['id']}/")
    told = pets.provider.collect("r1", requests, same.cursor)
    assert {corrected, removed, drafted} <= told.samples and first not in told.samples
    assert [(one.sample_id, one.label) for one in told.annotations] == [(corrected, "owl")]
    assert told.annotations[0].external_id == str(made[corrected]["id"])


def test_answers_within_the_second_of_a_collection_are_not_missed(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(6))
    seen: set[str] = set()
    cursor = ""
    with server.api() as person:
        for task in requests.values():
            answer(person, task, choice("cat"))
            told = pets.provider.collect("r1", requests, cursor)
            cursor = told.cursor
            seen |= {one.sample_id for one in told.annotations}
    assert seen == set(requests)


def test_answers_that_were_deleted_all_at_once_are_noticed(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(3))
    with server.api() as person:
        for task in requests.values():
            answer(person, task, choice("cat"))
        start = pets.provider.collect("r1", requests, "")
        assert len(start.annotations) == 3
        query = {"id": "delete_tasks_annotations", "project": pets.project["id"]}
        chosen = {"all": False, "included": [int(task) for task in list(requests.values())[:2]]}
        person.post("/api/dm/actions", params=query, json={"selectedItems": chosen})
    told = pets.provider.collect("r1", requests, start.cursor)
    assert set(list(requests)[:2]) <= told.samples
    assert {one.sample_id for one in told.annotations} <= {list(requests)[2]}


def test_boxes_come_back_in_pixels_and_an_image_without_objects_is_an_answer(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop(ask="boxes")
    requests = pets.provider.request("r1", pets.asks(4, label=None))
    drawn, empty, outside, edge = requests
    with server.api() as person:
        boxes = [rectangle("cat", 25, 50, 50, 25), rectangle("dog", 0, 0, 100, 100)]
        answer(person, requests[drawn], *boxes)
        answer(person, requests[empty])
        answer(person, requests[outside], rectangle("cat", 60, 10, 50, 20))
        answer(person, requests[edge], rectangle("cat", -1, 0, 103, 50))
    told = pets.provider.collect("r1", requests, "")
    found = {one.sample_id: one.boxes for one in told.annotations}
    assert found == {
        drawn: (Box(10, 10, 30, 15, "cat"), Box(0, 0, 40, 20, "dog")),
        empty: (),
        edge: (Box(0, 0, 40, 10, "cat"),),
    }
    (bad,) = told.rejected
    assert (bad.sample_id, bad.reason) == (outside, "outside")
    assert "44" in bad.detail and "40 x 20" in bad.detail


def test_class_and_boxes_are_asked_for_together(loop: Loops, server: LabelStudio) -> None:
    pets = loop(ask="both")
    requests = pets.provider.request("r1", pets.asks(2))
    whole, half = requests
    with server.api() as person:
        answer(person, requests[whole], choice("cat"), rectangle("cat", 0, 0, 50, 50))
        answer(person, requests[half], rectangle("cat", 0, 0, 50, 50))
    told = pets.provider.collect("r1", requests, "")
    (one,) = told.annotations
    assert (one.label, one.boxes) == ("cat", (Box(0, 0, 20, 10, "cat"),))
    assert [(bad.sample_id, bad.reason) for bad in told.rejected] == [(half, "empty")]


def test_each_answer_that_cannot_be_used_is_a_row_and_stops_nothing(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(5))
    unknown, empty, two, strange, good = requests
    results: dict[str, list[dict[str, Any]]] = {
        unknown: [choice("wolf")],
        empty: [],
        two: [choice("cat"), choice("dog")],
        strange: [{"foo": 1}],
        good: [choice("owl")],
    }
    before = datetime.now(UTC) - timedelta(seconds=5)
    with server.member("second") as person:
        made = {s: answer(person, requests[s], *given)["id"] for s, given in results.items()}
    told = pets.provider.collect("r1", requests, "")
    assert {one.sample_id: (one.reason, one.external_id) for one in told.rejected} == {
        unknown: ("unknown_class", str(made[unknown])),
        empty: ("empty", str(made[empty])),
        two: ("malformed", str(made[two])),
        strange: ("malformed", str(made[strange])),
    }
    for one in told.rejected:
        assert (one.annotator, one.seconds) == ("second@example.com", 3.5)
        assert one.created_at is not None and one.updated_at is not None
        assert before < one.created_at <= one.updated_at < before + timedelta(minutes=5)
    assert [(one.sample_id, one.label) for one in told.annotations] == [(good, "owl")]
    assert told.samples == set(requests)


def test_of_two_answers_of_one_person_the_newer_counts(loop: Loops, server: LabelStudio) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(1))
    (task,) = requests.values()
    with server.api() as person:
        first = answer(person, task, choice("cat"))
        answer(person, task, choice("dog"))
        body = {"result": [choice("owl")]}
        person.patch(f"/api/annotations/{first['id']}/", json=body)
    told = pets.provider.collect("r1", requests, "")
    assert [one.label for one in told.annotations] == ["owl"]


def test_tasks_that_are_gone_and_tasks_that_nobody_asked_for_are_told(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(3))
    gone, foreign, known = requests
    with server.api() as person:
        person.delete(f"/api/tasks/{requests[gone]}/")
        made = answer(person, requests[foreign], choice("cat"))
    told = pets.provider.collect("r1", {gone: requests[gone], known: requests[known]}, "")
    assert told.gone == {gone} and told.samples == {known}
    (bad,) = told.rejected
    assert (bad.external_id, bad.reason) == (str(made["id"]), "unknown_sample")
    assert (bad.annotator, bad.seconds) == (ADMIN, 3.5)
    again = pets.provider.request("r1", pets.asks(3))
    assert again[gone] != requests[gone] and again[known] == requests[known]


def test_an_answer_about_an_erased_sample_is_refused_and_its_task_goes(
    loop: Loops, server: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.lake.erasing.tombstones import Tombstones

    pets = loop()
    requests = pets.provider.request("r1", pets.asks(2))
    erased, kept = requests
    with server.api() as person:
        answer(person, requests[erased], choice("cat"))
    stones = Tombstones().with_more([erased])
    monkeypatch.setattr(Tombstones, "of", classmethod(lambda cls, lake: stones))
    told = pets.provider.collect("r1", requests, "")
    (bad,) = told.rejected
    assert bad.reason == "erased" and erased not in str(bad)
    assert not bad.annotator and bad.created_at is None
    assert told.samples == {kept} and not told.annotations
    assert [task["data"]["sample_id"] for task in pets.tasks()] == [kept]


def test_erasing_a_sample_deletes_its_tasks_of_all_rounds_with_their_answers(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    assert delete_tasks(pets.config, pets.lake, ["no project yet"]) == set()
    asks = pets.asks(45)
    first = pets.provider.request("r1", asks)
    second = pets.provider.request("r2", asks[:1])
    with server.api() as person:
        answer(person, first[asks[0].sample_id], choice("cat"))
    going = [ask.sample_id for ask in asks[:42]]
    gone = {int(first[sample]) for sample in going} | {int(second[going[0]])}
    assert delete_tasks(pets.config, pets.lake, [*going, "f" * 64]) == gone
    left = {task["data"]["sample_id"] for task in pets.tasks()}
    assert left == {ask.sample_id for ask in asks[42:]}


def test_a_task_of_an_erased_sample_goes_also_where_nobody_touched_it_since(
    loop: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.lake.erasing.tombstones import Tombstones

    monkeypatch.setattr("visionloop.labeling.label_studio.collecting._OVERLAP", timedelta())
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(3))
    erased, *kept = requests
    cursor = pets.provider.collect("r1", requests, "").cursor
    left = {sample: requests[sample] for sample in kept}
    cursor = pets.provider.collect("r1", left, cursor).cursor
    assert len(pets.tasks()) == 3
    stones = Tombstones().with_more([erased])
    monkeypatch.setattr(Tombstones, "of", classmethod(lambda cls, lake: stones))
    pets.provider.collect("r1", left, cursor)
    assert {task["data"]["sample_id"] for task in pets.tasks()} == set(kept)


def test_a_cursor_is_in_utc_whatever_clock_the_server_shows() -> None:
    at = datetime(2026, 5, 1, 3, tzinfo=timezone(timedelta(hours=9)))
    assert _Cursor.of(_Cursor(1, at).text(), 1).since == at
    (((_, _, _, since),),) = _changed(_Cursor(1, at), [])
    assert since == "2026-04-30T17:58:00.000000Z"


def test_a_recall_takes_what_nobody_has_begun(loop: Loops, server: LabelStudio) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(5))
    answered, skipped, drafted, free, gone = requests
    other = pets.provider.request("r2", pets.asks(5))
    with server.api() as person:
        answer(person, requests[answered], choice("cat"))
        answer(person, requests[skipped], was_cancelled=True)
        person.post(f"/api/tasks/{requests[drafted]}/drafts", json={"result": [], "lead_time": 1})
        person.delete(f"/api/tasks/{requests[gone]}/")
    assert pets.provider.recall("r1", requests) == [free, gone]
    assert pets.provider.recall("r1", {}) == []
    left = {str(task["id"]) for task in pets.tasks()}
    kept = {requests[sample] for sample in (answered, skipped, drafted)}
    assert left == {*kept, *other.values()}


def test_a_task_is_shown_to_nobody_else_once_fewer_answers_are_asked_for(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    asks = [pets.ask(0, answers=2), pets.ask(1)]
    requests = pets.provider.request("r1", asks)
    number, task = pets.project["id"], requests[asks[0].sample_id]
    with server.api() as one, server.member("second") as two:
        answer(one, task, choice("cat"))
        assert str(two.get(f"/api/projects/{number}/next").json()["id"]) == task
        again = pets.provider.request("r1", [pets.ask(0, answers=1)])
        assert again == {asks[0].sample_id: task}
        answer(two, requests[asks[1].sample_id], choice("cat"))
        assert two.get(f"/api/projects/{number}/next").status_code == 404
    assert pets.provider.poll("r1", requests).answered == 2


def test_many_tasks_are_read_page_by_page(
    loop: Loops, server: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE", 7)
    monkeypatch.setattr(reading, "_CHUNK", 10)
    pets = loop()
    asks = pets.asks(33)
    requests = pets.provider.request("r1", asks)
    assert pets.provider.request("r1", asks) == requests
    assert [task["data"]["rank"] for task in pets.tasks()] == list(range(33))
    with server.api() as person:
        answer(person, requests[asks[30].sample_id], choice("cat"))
    told = pets.provider.collect("r1", requests, "")
    assert len(told.samples) == 33 and len(told.annotations) == 1
    assert json.loads(told.cursor)["project"] == pets.project["id"]
