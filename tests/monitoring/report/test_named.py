"""What the page calls things: rounds by one name, groups apart from classes, whose answers."""

from __future__ import annotations

from dataclasses import replace

from tests.monitoring.report.whole_page import some_map, whole
from visionloop.monitoring.report.charts.scatter import groups
from visionloop.monitoring.report.data import Gallery
from visionloop.monitoring.report.page import render


def test_a_harvest_after_a_round_is_told_to_be_after_it_and_not_of_the_next() -> None:
    data = whole()
    assert data.rounds[-1].round_id == "0002"
    late = replace(data.drift[0].points[-1], round_id="0003")
    drift = replace(data.drift[0], points=(*data.drift[0].points[:-1], late))
    window = replace(data.windows[-1], round_id="0003")
    found = replace(data, drift=(drift,), windows=(window,), upcoming="0003")
    text = render(found)
    assert "After round 2: " in text and '<th scope="row">after 2</th>' in text
    assert f"<h4>After round 2, {window.endpoint}</h4>" in text
    assert "ound 3" not in text
    # Once the round was opened the same harvest is a part of it.
    assert "<h4>Round 3, " in render(replace(found, upcoming="0004"))


def test_labels_that_the_model_contradicts_have_one_gallery() -> None:
    data = whole()
    pictures = data.disagreements.pictures if data.disagreements else ()
    kind = replace(
        data.flags[0],
        kind="confident_disagreement",
        gallery=Gallery("Confident disagreement", 2, pictures[:1]),
    )
    text = render(replace(data, flags=(*data.flags, kind)))
    assert text.count("97.1% sure of 4") == len(pictures) == 2


def test_a_class_that_is_called_like_what_stands_for_none_is_a_class_of_its_own() -> None:
    points = tuple(
        replace(point, label=label)
        for point, label in zip(some_map(3).points, ("no label", "other labels", ""), strict=True)
    )
    named = [name for name, _ in groups(replace(some_map(3), points=points))]
    assert named == ['"no label"', '"other labels"', "no label"]


def test_errors_that_no_confident_answer_made_are_not_denied() -> None:
    unsure = Gallery("Most confident errors", 30, (), "30 errors, of none was it 50% sure.")
    assert "30 errors, of none was it 50% sure." in render(replace(whole(), errors=unsure))
    none = render(replace(whole(), errors=Gallery("Most confident errors", 0, (), "")))
    assert "No labelled picture contradicts what the model says." in none
