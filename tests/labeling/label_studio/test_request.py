"""What reaches Label Studio: the project, its interface, tasks in order, each once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.labeling.label_studio.conftest import CLASSES, Loop, answer, choice
from tests.labeling.label_studio.real_server import LabelStudio
from tests.servers import answering
from visionloop.errors import InputError
from visionloop.labeling.label_studio import check, ensure_webhook
from visionloop.labeling.provider import Box

Loops = Callable[..., Loop]


def test_a_round_becomes_tasks_with_picture_reason_and_suggestion(loop: Loops) -> None:
    pets = loop()
    asks = pets.asks(3)
    requests = pets.provider.request("r1", asks)
    tasks = pets.tasks()
    assert {task["data"]["sample_id"]: str(task["id"]) for task in tasks} == requests
    told = tasks[0]
    assert told["data"]["reason"] == "Reason 0."
    assert told["data"]["model"] == "The model sees: dog (75% sure)"
    assert told["data"]["details"] == "camera: left"
    assert told["data"]["image"].startswith("data:image/png;base64,")
    (suggested,) = told["predictions"]
    assert suggested["model_version"] == "model-1" and suggested["score"] == 0.75
    assert suggested["result"][0]["value"] == {"choices": ["dog"]}
    project = pets.project
    assert project["parsed_label_config"]["choice"]["labels"] == CLASSES
    assert project["model_version"] == "model-1"
    assert project["sampling"] == "Sequential sampling"


def test_each_round_shows_what_its_own_model_suggests(loop: Loops, server: LabelStudio) -> None:
    pets = loop()
    asks = pets.asks(4)
    pets.provider.request("r1", asks[:2])
    later = [replace(ask, model_id="model-2", label="owl") for ask in asks]
    # The round goes on after another model was published: its tasks are there already.
    pets.provider.request("r1", later[:2])
    assert pets.project["model_version"] == "model-1"
    pets.provider.request("r2", later[2:])
    assert pets.project["model_version"] == "model-2"
    with server.api() as person:
        for task in pets.tasks()[:2]:
            answer(person, task["id"], choice("cat"))
        following = person.get(f"/api/projects/{pets.project['id']}/next").json()
    assert [one["model_version"] for one in following["predictions"]] == ["model-2"]
    assert following["predictions"][0]["result"][0]["value"] == {"choices": ["owl"]}
    pets.provider.request("r3", [replace(asks[0], model_id="model-3", answers=2)])
    assert pets.project["model_version"] == "model-2"


def test_people_see_tasks_in_the_order_of_their_rank(loop: Loops, server: LabelStudio) -> None:
    pets = loop()
    ranks = [3, 0, 4, 1, 2]
    asks = [pets.ask(number, rank=rank) for number, rank in enumerate(ranks)]
    pets.provider.request("r1", asks)
    seen = []
    with server.api() as person:
        for _ in ranks:
            task = person.get(f"/api/projects/{pets.project['id']}/next").json()
            seen.append(task["data"]["rank"])
            assert task["predictions"], "the next task comes with the suggestion"
            answer(person, task["id"], choice("cat"))
        assert person.get(f"/api/projects/{pets.project['id']}/next").status_code == 404
    assert seen == [0, 1, 2, 3, 4]


def test_a_second_request_pushes_nothing_twice_and_adds_what_is_new(loop: Loops) -> None:
    pets = loop()
    first = pets.provider.request("r1", pets.asks(3))
    again = pets.provider.request("r1", pets.asks(5))
    assert {sample: again[sample] for sample in first} == first
    assert [task["data"]["rank"] for task in pets.tasks()] == [0, 1, 2, 3, 4]
    other = pets.provider.request("r2", pets.asks(1))
    assert len(pets.tasks()) == 6 and not set(other.values()) & set(again.values())


def test_several_people_are_asked_where_that_is_wanted(loop: Loops, server: LabelStudio) -> None:
    pets = loop()
    asks = [pets.ask(0, answers=2), pets.ask(1)]
    requests = pets.provider.request("r1", asks)
    overlap = {str(task["id"]): task["overlap"] for task in pets.tasks()}
    assert [overlap[requests[ask.sample_id]] for ask in asks] == [2, 1]
    number, task = pets.project["id"], requests[asks[0].sample_id]
    with server.api() as one, server.member("second") as two:
        answer(one, task, choice("cat"))
        assert str(two.get(f"/api/projects/{number}/next").json()["id"]) == task
        answer(one, task, choice("dog"))
        assert pets.provider.poll("r1", requests).answered == 0, "one person counts once"
        answer(two, task, choice("cat"))
    told = pets.provider.poll("r1", requests)
    assert (told.answered, told.requested) == (1, 2)
    assert told.where == f"{server.url}/projects/{number}"
    pets.provider.request("r1", [replace(asks[0], answers=3), asks[1]])
    assert pets.provider.poll("r1", requests).answered == 0, "a third answer is asked for"


def test_what_judges_labels_and_models_shows_no_suggestion(loop: Loops) -> None:
    pets = loop()
    purposes = ["holdout", "relabel", "audit", "training"]
    pets.provider.request("r1", [pets.ask(n, purpose=one) for n, one in enumerate(purposes)])
    pets.provider.request("r2", [pets.ask(4, answers=2)])
    *first, shown, several = pets.tasks()
    assert shown["predictions"]
    hidden = [*first, several]
    for task in hidden:
        assert not task["predictions"] and "dog" not in str(task["data"])
        assert not set(purposes) & set(str(task["data"]).replace('"', " ").split())


def test_a_task_that_more_people_are_asked_about_shows_no_suggestion_any_more(loop: Loops) -> None:
    pets = loop()
    asks = pets.asks(2)
    pets.provider.request("r1", asks)
    assert all(task["predictions"] for task in pets.tasks())
    for _ in range(2):
        pets.provider.request("r1", [replace(asks[0], answers=2), asks[1]])
        reopened, other = pets.tasks()
        assert not reopened["predictions"] and "dog" not in str(reopened["data"])
        assert reopened["data"]["reason"] == "Reason 0." and reopened["overlap"] == 2
        assert other["predictions"] and "dog" in other["data"]["model"]


def test_boxes_are_suggested_in_percent_and_cut_at_the_edge(loop: Loops) -> None:
    pets = loop(ask="boxes")
    boxes = (Box(10, 5, 50, 15, "cat", 0.5), Box(1, 1, 2, 2, "wolf"), Box(60, 0, 70, 9, "dog"))
    pets.provider.request("r1", [pets.ask(0, label=None, boxes=boxes)])
    (task,) = pets.tasks()
    (shown,) = task["predictions"][0]["result"]
    value = shown["value"]
    assert [value[key] for key in ("x", "y", "width", "height")] == [25, 25, 75, 50]
    assert (shown["original_width"], shown["original_height"]) == (40, 20)


@pytest.mark.parametrize("ask", ["classes", "boxes", "both"])
def test_odd_names_of_classes_and_a_thousand_of_them_are_kept(loop: Loops, ask: str) -> None:
    odd = ["<b>", "a & b", "\"q\" 'r'", "猫 é", "two\nlines", "5 $", "a/b,c;d", "]]>"]
    many = odd + [f"class {number}" for number in range(1000)]
    pets = loop(classes=many, ask=ask)
    pets.provider.request("r1", [pets.ask(0, label="two\nlines")])
    controls = pets.project["parsed_label_config"]
    wanted = {"classes": {"choice"}, "boxes": {"box"}, "both": {"choice", "box"}}[ask]
    assert {name for name in controls if "filter" not in name} == wanted
    assert all(controls[name]["labels"] == many for name in wanted)
    if ask != "boxes":
        (task,) = pets.tasks()
        assert task["predictions"][0]["result"][0]["value"]["choices"] == ["two\nlines"]


@pytest.mark.parametrize(
    ("classes", "problem"),
    [([], "not known yet"), (["cat", " "], "blank"), (["$cat"], "field"), (["a\x07"], "XML")],
)
def test_classes_that_cannot_be_shown_are_refused(
    loop: Loops, classes: list[str], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        loop(classes=classes).provider.request("r1", loop().asks(1))
    assert caught.value.where == "classes"


def test_a_class_that_is_added_appears_and_answers_guard_the_interface(
    loop: Loops, server: LabelStudio
) -> None:
    requests = loop().provider.request("r1", loop().asks(1))
    with server.api() as person:
        answer(person, next(iter(requests.values())), choice("cat"))
    grown = loop(classes=[*CLASSES, "fox"])
    grown.provider.request("r1", grown.asks(2))
    assert grown.project["parsed_label_config"]["choice"]["labels"] == [*CLASSES, "fox"]
    with pytest.raises(InputError, match="do not fit") as caught:
        loop(ask="boxes").provider.request("r1", loop().asks(2))
    assert "another title" in caught.value.remedy


def test_a_project_of_the_same_title_that_is_not_ours_is_left_alone(
    loop: Loops, server: LabelStudio
) -> None:
    title = "Somebody else's work"
    with server.api() as admin:
        made = admin.post("/api/projects", json={"title": title}).json()
    pets = loop(title=title)
    for act in (
        lambda: pets.provider.request("r1", pets.asks(1)),
        lambda: pets.provider.collect("r1", {}, ""),
    ):
        with pytest.raises(InputError, match=f"the project {made['id']}.*not this loop's"):
            act()
    assert pets.tasks() == []


def test_links_that_end_soon_or_lead_elsewhere_are_made_anew(
    loop: Loops, server: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", "0123456789abcdef0123456789abcdef")
    asks = loop().asks(3)

    def links(url: str, hours: float) -> list[str]:
        studio = {"media": "endpoint", "media_url": url, "url_hours": hours}
        pets = loop(studio=studio)
        pets.provider.request("r1", asks)
        return [task["data"]["image"] for task in pets.tasks()]

    first = links("http://media.example", 0.001)
    with server.api() as person:
        answer(person, loop().tasks()[0]["id"], choice("cat"))
    longer = links("http://media.example", 10)
    assert longer[0] == first[0], "nobody looks at an answered task again"
    assert not set(longer[1:]) & set(first)
    assert links("http://media.example", 10) == longer, "they are valid for long enough"
    moved = links("http://other.example", 10)
    assert all(link.startswith("http://other.example/") for link in moved[1:])
    assert [task["data"]["reason"] for task in loop().tasks()] == [a.reason for a in asks]


def test_the_webhook_is_set_up_once_and_tells_of_answers_with_its_secret(
    loop: Loops, server: LabelStudio
) -> None:
    pets = loop()
    requests = pets.provider.request("r1", pets.asks(1))
    calls: list[tuple[str, str]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append((str(self.headers["Authorization"]), told["action"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with answering(Collector) as address, server.api() as admin:
        url = f"http://{address}/label-studio/pets"
        assert ensure_webhook(pets.config, pets.lake, url, "a-secret-of-ours")
        assert not ensure_webhook(pets.config, pets.lake, url, "a-secret-of-ours")
        assert ensure_webhook(pets.config, pets.lake, url, "another-secret")
        hooks = admin.get("/api/webhooks", params={"project": pets.project["id"]}).json()
        assert [hook["url"] for hook in hooks] == [url]
        answer(admin, next(iter(requests.values())), choice("cat"))
        deadline = time.monotonic() + 20
        while not calls and time.monotonic() < deadline:
            time.sleep(0.05)
    assert calls[0] == ("Bearer another-secret", "ANNOTATION_CREATED")


def test_doctor_is_told_who_and_what_was_found(loop: Loops, server: LabelStudio) -> None:
    pets = loop()
    assert "is made with the first request" in check(pets.config, pets.lake)
    pets.provider.request("r1", pets.asks(2))
    told = check(pets.config, pets.lake)
    assert "admin@example.com" in told and "2 tasks" in told and "1.23.0" in told
