"""What a watch counts from one look to the next: requests of a model, and answers of two."""

from __future__ import annotations

from visionloop.monitoring.acting_seen import Pairs, pairs_again, read_again


def test_the_same_answers_are_one_look_and_too_few_are_none() -> None:
    of = ("m2", "m1")
    first = pairs_again(None, Pairs(10, 1, 5, 0, of), 50)
    assert first.looks == 0
    few = pairs_again(first, Pairs(20, 1, 5, 1, of), 50)
    assert few.looks == 0
    looks = []
    held = few
    for n, worse in ((60, 6), (60, 6), (60, 7), (80, 7), (80, 7)):
        held = pairs_again(held, Pairs(n, 1, worse, 1, of), 50)
        looks.append(held.looks)
    assert looks == [1, 1, 2, 3, 3]
    # Of another pair of models nothing was looked at.
    assert pairs_again(held, Pairs(60, 1, 6, 1, ("m3", "m2")), 50).looks == 1


def test_counters_are_added_up_over_readings_restarts_and_servers() -> None:
    first = read_again(None, "m1", {"a": (1000, 50)}, 100)
    assert (first.requests, first.looks) == (0, 0)
    second = read_again(first, "m1", {"a": (1060, 55)}, 100)
    assert (second.requests, second.errors, second.looks) == (60, 5, 0)
    third = read_again(second, "m1", {"a": (50, 1), "b": (900, 9)}, 100)  # a was started again
    assert (third.requests, third.errors, third.looks) == (110, 6, 1)
    fourth = read_again(third, "m1", {"a": (70, 1), "b": (920, 10)}, 100)  # that window was judged
    assert (fourth.requests, fourth.errors, fourth.looks) == (40, 1, 1)
    assert fourth.total == (150, 7)
    other = read_again(fourth, "m2", {"a": (90, 2)}, 100)
    assert (other.model_id, other.requests, other.looks, other.before) == ("m2", 0, 0, (150, 7))


def test_what_another_model_did_between_two_readings_is_none_of_this_models() -> None:
    first = read_again(None, "m1", {"a": (1000, 0)}, 100, since="3 o'clock")
    back = read_again(first, "m1", {"a": (5000, 900)}, 100, since="4 o'clock")
    assert (back.requests, back.errors, back.total, back.looks) == (0, 0, (0, 0), 0)
    later = read_again(back, "m1", {"a": (5150, 901)}, 100, since="4 o'clock")
    assert (later.requests, later.errors, later.total) == (150, 1, (150, 1))
