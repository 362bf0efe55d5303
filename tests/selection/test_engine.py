"""Selection as a whole: guards, arms, explanations, determinism, and what it refuses."""
# Over 400 lines: guards, arms and refusals are claims about one function, over one pool.

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.errors import InputError
from visionloop.media.fingerprint import NEAR_DUPLICATE_BITS
from visionloop.selection.config import SelectionConfig, parse_selection_config
from visionloop.selection.engine import Selection, select
from visionloop.selection.explain import explain
from visionloop.selection.pool import Pool, Reference


def ids(n: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{i:04d}" for i in range(n)]


def vectors(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def prints(n: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(32) for _ in range(n)]


def flip(fingerprint: bytes, bits: int) -> bytes:
    value = int.from_bytes(fingerprint, "little")
    for bit in range(bits):
        value ^= 1 << (bit * 7)
    return value.to_bytes(32, "little")


def probabilities(n: int, classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=n).astype(np.float32)


def make(n: int = 60, *, model: bool = True, seed: int = 0, **more: Any) -> Pool:
    return Pool.build(
        ids(n),
        embeddings={"e": vectors(n, seed=seed)},
        probabilities=probabilities(n, seed=seed) if model else None,
        classes=["a", "b", "c", "d"],
        **more,
    )


def labelled(n: int, d: int = 8) -> Reference:
    return Reference.build(ids(n, "z"), embeddings={"e": vectors(n, d, seed=9)})


def config(**data: Any) -> SelectionConfig:
    return parse_selection_config(data)


def lines(*entries: tuple[dict[str, Any], dict[str, Any]], **more: Any) -> SelectionConfig:
    entries_ = [{"input": i, "strategy": s} for i, s in entries]
    return config(strategies=entries_, random_share=0, **more)


PRESETS = ["auto", "random", "typicality", "diversity", "uncertainty"]


@given(
    preset=st.sampled_from(PRESETS),
    model=st.booleans(),
    size=st.integers(1, 40),
    n=st.integers(1, 50),
    n_labels=st.integers(0, 60),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_selection_is_of_distinct_open_samples_and_its_counts_add_up(
    preset: str, model: bool, size: int, n: int, n_labels: int, seed: int
) -> None:
    pool = make(size, model=model, seed=seed)
    taken = set(pool.sample_ids[::5])
    selection = select(
        pool,
        config(strategy=preset),
        n,
        labelled=labelled(n_labels),
        taken=taken,
        unattended=True,
    )
    chosen = selection.sample_ids
    assert len(set(chosen)) == len(chosen) == min(n, size - len(taken))
    assert not set(chosen) & taken
    assert selection.pool == selection.eligible + sum(selection.removed.values())
    assert [p.rank for p in selection.picks] == list(range(len(chosen)))
    assert ("budget_exceeds_pool" in selection.flags) == (n > size - len(taken))
    for pick in selection.picks:
        assert pick.propensity is not None
        assert 0 < pick.propensity <= 1
        assert all(v is None or 0 < v <= 1 for v in pick.objectives.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_order_in_which_samples_came_does_not_change_the_selection(preset: str) -> None:
    n = 50
    shuffle = np.random.default_rng(4).permutation(n)
    names, x, p, f = ids(n), vectors(n), probabilities(n), prints(n)

    def selection(order: np.ndarray) -> Selection:
        pool = Pool.build(
            [names[i] for i in order],
            embeddings={"e": x[order]},
            probabilities=p[order],
            classes=list("abcd"),
            fingerprints=[f[i] for i in order],
        )
        return select(pool, config(strategy=preset), 12, labelled=labelled(30))

    assert repr(selection(np.arange(n))) == repr(selection(shuffle))


def test_equals_go_to_the_smallest_sample_id() -> None:
    pool = Pool.build(
        ids(6)[::-1],
        scores={"margin": [0.5, 0.9, 0.9, 0.9, 0.1, 0.9]},
        embeddings={"e": vectors(6)},
    )
    chosen = select(pool, config(strategy="uncertainty", random_share=0), 3).sample_ids
    assert chosen == ("0000", "0002", "0003")


def test_copies_of_the_holdout_are_never_selected() -> None:
    frozen = prints(3, seed=5)
    copies = [flip(frozen[i % 3], bits) for i, bits in enumerate([0, 4, NEAR_DUPLICATE_BITS])]
    look_alike = flip(frozen[0], NEAR_DUPLICATE_BITS + 1)
    pool = make(8, fingerprints=[*copies, look_alike, *prints(4, seed=6)])
    holdout = Reference.build(ids(3, "h"), fingerprints=frozen)
    selection = select(pool, config(), 8, holdout=holdout, unattended=True)
    assert set(selection.sample_ids) == set(ids(8)[3:])
    assert selection.removed == {"copies of the holdout": 3}


def test_the_copy_distance_is_the_one_that_was_measured_for_the_fingerprint() -> None:
    assert SelectionConfig().copy_distance == NEAR_DUPLICATE_BITS


def test_what_equals_the_holdout_is_never_selected_also_where_nothing_is_compared() -> None:
    frozen, known = prints(1, seed=5), prints(1, seed=7)
    pool = make(5, fingerprints=[frozen[0], flip(frozen[0], 1), known[0], *prints(2)])
    holdout = Reference.build(["h"], fingerprints=frozen)
    reference = Reference.build(["z"], embeddings={"e": vectors(1, seed=9)}, fingerprints=known)
    plan = config(copy_distance=-1)
    selection = select(pool, plan, 4, holdout=holdout, labelled=reference)
    assert set(selection.sample_ids) == set(ids(5)[1:])
    assert selection.removed == {"copies of the holdout": 1}


def test_a_copy_of_a_labelled_picture_is_not_labelled_again() -> None:
    known = prints(1, seed=5)
    pool = make(4, fingerprints=[flip(known[0], 3), *prints(3)])
    reference = Reference.build(["z"], embeddings={"e": vectors(1)}, fingerprints=known)
    assert "0000" not in select(pool, config(), 3, labelled=reference).sample_ids


def test_near_duplicates_of_a_pick_are_left_out_of_its_batch() -> None:
    x = vectors(10)
    x[7] = x[3]  # the same vector
    f = prints(10)
    f[5] = flip(f[2], 6)  # the same picture, encoded again
    pool = Pool.build(ids(10), embeddings={"e": x}, fingerprints=f)
    selection = select(pool, config(), 10, unattended=True)
    assert len(selection.picks) == 8
    assert len({"0003", "0007"} & set(selection.sample_ids)) == 1
    assert len({"0002", "0005"} & set(selection.sample_ids)) == 1
    assert selection.flags == ("budget_exceeds_pool",)
    with pytest.raises(InputError, match="2 near duplicates of others in the batch"):
        select(pool, config(), 10)


def test_samples_of_the_holdout_themselves_are_never_selected() -> None:
    selection = select(make(6), config(), 5, holdout=Reference.build(["0003"]))
    assert set(selection.sample_ids) == {"0000", "0001", "0002", "0004", "0005"}


def test_missing_fingerprints_are_unlike_everything() -> None:
    few_bits = flip(bytes(32), 2)
    pool = make(5, fingerprints=[None, None, *prints(3)])
    holdout = Reference.build(["h", "i"], fingerprints=[None, few_bits])
    assert len(select(pool, config(), 5, holdout=holdout).picks) == 5


def test_flagged_samples_are_left_out_by_kind() -> None:
    flags = {"near_duplicate": [True] + [False] * 5, "dark": [False, True] + [False] * 4}
    pool = make(6, flags=flags)
    assert set(select(pool, config(), 5).sample_ids) == set(ids(6)[1:])
    both = select(pool, config(exclude_flags=["near_duplicate", "dark"]), 4)
    assert both.removed == {"flagged near_duplicate": 1, "flagged dark": 1}


def test_more_than_is_left_fails_and_says_what_is_left_after_each_filter() -> None:
    pool = make(20, flags={"near_duplicate": [True] * 4 + [False] * 16})
    with pytest.raises(InputError) as error:
        select(pool, config(), 15, taken=set(ids(20)[10:16]))
    text = str(error.value)
    assert "15 samples were asked for and 10 can be selected" in text
    assert "20 in the pool, 14 without 6 selected already" in text
    assert "10 without 4 flagged near_duplicate" in text


def test_an_unattended_round_takes_the_rest_and_flags_it() -> None:
    selection = select(make(5), config(), 9, unattended=True)
    assert len(selection.picks) == 5
    assert selection.requested == 9
    assert selection.flags == ("budget_exceeds_pool",)


def test_nothing_left_is_an_empty_selection_when_unattended() -> None:
    pool = make(3)
    selection = select(pool, config(), 2, taken=set(ids(3)), unattended=True)
    assert selection.picks == ()
    assert select(Pool(()), config(), 2, unattended=True).picks == ()


def test_nan_and_infinite_embeddings_are_refused_with_their_samples() -> None:
    x = vectors(5)
    x[1, 0], x[3, 2] = np.nan, np.inf
    with pytest.raises(InputError, match="2 embeddings hold NaN or infinity: 0001, 0003"):
        Pool.build(ids(5), embeddings={"e": x})


def test_embeddings_of_another_dimension_are_refused_with_their_samples() -> None:
    mixed = [*vectors(3, 8), *vectors(2, 16)]
    with pytest.raises(InputError, match=r"2 embeddings do not have the 8 dim.*0003 has 16"):
        Pool.build(ids(5), embeddings={"e": mixed})
    with pytest.raises(InputError, match=r"8 dimensions.* 16: z0000"):
        select(make(5), config(strategy="diversity"), 2, labelled=labelled(3, 16))


def test_logits_are_refused_as_probabilities() -> None:
    p = probabilities(5)
    p[3] = [2.0, -1.5, 0.3, 0.2]  # they sum to 1 all the same
    with pytest.raises(InputError, match=r"probabilities of 1 samples .*: 0003") as refused:
        Pool.build(ids(5), probabilities=p, classes=["a", "b", "c", "d"])
    assert "softmax" in str(refused.value.remedy)
    with pytest.raises(InputError, match=r"committee of 2 samples .*: 0000, 0004"):
        both = np.stack([probabilities(5), probabilities(5)])
        both[1, [0, 4]] *= 3
        Pool.build(ids(5), committee=both, classes=["a", "b", "c", "d"])


def test_a_query_of_another_dimension_is_refused_by_its_name() -> None:
    query = ({"type": "EMBEDDINGS", "query": ["0001", "q"]}, {"type": "SIMILARITY"})
    queries = Reference.build(["q"], embeddings={"e": vectors(1, 5)})
    with pytest.raises(InputError, match=r"1 query samples .* of 5 dimensions, the pool of 8: q"):
        select(make(), lines(query), 3, queries=queries)


def test_infinite_metadata_is_refused_where_it_is_used() -> None:
    pool = make(6, metadata={"speed": [1.0, float("inf"), 2, 3, 4, 5]})
    assert len(select(pool, config(strategy="diversity"), 3).picks) == 3
    line = ({"type": "METADATA", "key": "speed"}, {"type": "WEIGHTS"})
    with pytest.raises(InputError, match="1 samples have an infinite value of 'speed': 0001"):
        select(pool, lines(line), 3)


def test_samples_that_come_twice_are_refused() -> None:
    with pytest.raises(InputError, match="come twice in the pool: 0001"):
        Pool.build(["0001", "0000", "0001"])


def test_the_random_share_starts_with_the_first_trained_model() -> None:
    cold = select(make(100, model=False), config(), 20)
    assert {p.arm for p in cold.picks} == {"selected"}
    warm = select(make(100), config(), 20)
    drawn = [p for p in warm.picks if p.arm == "random"]
    assert len(drawn) == 2
    assert {p.propensity for p in drawn} == {2 / 100}
    assert {p.propensity for p in warm.picks if p.arm == "selected"} == {1.0}
    assert set(drawn[0].objectives) == set(warm.picks[0].objectives)


def test_the_random_share_draws_every_eligible_sample_equally_often() -> None:
    pool = make(40)
    taken = set(ids(40)[:20])
    counts = dict.fromkeys(ids(40)[20:], 0)
    rounds = 600
    for seed in range(rounds):
        selection = select(pool, config(strategy="uncertainty"), 10, taken=taken, seed=seed)
        for pick in selection.picks:
            counts[pick.sample_id] += pick.arm == "random"
    expected = rounds / 20
    chi2 = sum((c - expected) ** 2 / expected for c in counts.values())
    assert chi2 < 43.8  # 0.1% of 19 degrees of freedom


def test_every_pick_names_its_nearest_labelled_or_earlier_neighbour() -> None:
    pool, known = make(40), labelled(6)
    selection = select(pool, config(random_share=0), 8, labelled=known)
    seen = dict(zip(known.sample_ids, known.embeddings["e"], strict=True))
    for pick in selection.picks:
        x = pool.embeddings["e"][pool.sample_ids.index(pick.sample_id)]
        distances = {s: float(np.linalg.norm(x - other)) for s, other in seen.items()}
        assert pick.nearest_distance == pytest.approx(min(distances.values()), abs=1e-4)
        assert distances[str(pick.nearest_chosen)] == pytest.approx(pick.nearest_distance, abs=1e-4)
        seen[pick.sample_id] = x


def test_the_batch_keeps_away_from_what_was_drawn_at_random() -> None:
    pool = make(60)
    picks = select(pool, config(strategy="diversity", random_share=0.4), 10).picks
    assert [p.arm for p in picks] == ["selected"] * 6 + ["random"] * 4
    for pick in picks[:6]:
        assert pick.objectives["diversity"] == pytest.approx(pick.nearest_distance / 2, abs=1e-4)


def test_only_the_direction_of_an_embedding_counts() -> None:
    x = vectors(30)
    scaled = x * np.linspace(0.5, 9, 30)[:, None]
    one, other = (
        select(Pool.build(ids(30), embeddings={"e": e}), config(strategy="diversity"), 8).sample_ids
        for e in (x, scaled)
    )
    assert one == other


def test_the_first_pick_of_all_has_no_neighbour() -> None:
    first = select(make(10), config(random_share=0), 1).picks[0]
    assert first.nearest_chosen is None
    assert math.isnan(first.nearest_distance)


def test_an_unknown_score_is_neutral_and_not_zero() -> None:
    scores = {"margin": [0.1, 0.2, np.nan, 0.8, 0.9]}
    pool = Pool.build(ids(5), embeddings={"e": vectors(5)}, scores=scores)
    selection = select(pool, config(strategy="uncertainty", random_share=0), 5)
    assert selection.sample_ids == ("0004", "0003", "0002", "0001", "0000")
    assert selection.picks[2].objectives == {"margin": None}


def test_uncertainty_without_a_model_says_that_it_was_a_cold_start() -> None:
    selection = select(make(30, model=False), config(strategy="uncertainty"), 5)
    assert selection.flags == ("cold_start",)
    assert list(selection.strengths) == ["coverage"]


def test_auto_moves_its_weight_from_typicality_to_uncertainty() -> None:
    def strengths(n_labels: int) -> dict[str, float]:
        return dict(select(make(60), config(), 5, labelled=labelled(n_labels)).strengths)

    assert strengths(4) == {"coverage": 1.0}
    middle = strengths(20)
    assert 0 < middle["margin"] < 1
    assert middle["coverage"] == pytest.approx(1 - middle["margin"])
    late = strengths(60)
    assert late["margin"] == 1.0
    assert "coverage" not in late


def test_deployed_uncertainty_is_used_where_it_was_harvested() -> None:
    deployed = np.full(60, np.nan)
    deployed[:10] = 0.05
    deployed[10] = 0.95
    pool = make(60, scores={"deployed_margin": deployed})
    plain = select(make(60), config(random_share=0), 5, labelled=labelled(60))
    informed = select(pool, config(random_share=0), 5, labelled=labelled(60))
    assert "deployed_margin" not in plain.strengths
    assert "0010" in informed.sample_ids
    pick = next(p for p in informed.picks if p.sample_id == "0010")
    assert pick.objectives["deployed_margin"] == pytest.approx(0.95)


def test_a_minimum_distance_ends_the_selection_and_is_kept() -> None:
    pool = make(60, model=False)
    diversity = (
        {"type": "EMBEDDINGS"},
        {"type": "DIVERSITY", "stopping_condition_minimum_distance": 1.0},
    )
    selection = select(pool, lines(diversity), 60)
    assert selection.flags == ("minimum_distance",)
    assert 1 < len(selection.picks) < 60
    x = pool.embeddings["e"][[pool.sample_ids.index(s) for s in selection.sample_ids]]
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)[np.triu_indices(len(x), 1)]
    assert distances.min() >= 1.0 - 1e-5


def test_thresholds_filter_first_and_unknown_does_not_pass() -> None:
    sharp = [1.0, 5.0, None, 9.0, 7.0]
    pool = Pool.build(ids(5), embeddings={"e": vectors(5)}, metadata={"sharpness": sharp})
    threshold = (
        {"type": "METADATA", "key": "lightly.sharpness"},
        {"type": "THRESHOLD", "threshold": 5, "operation": "BIGGER"},
    )
    selection = select(pool, lines(threshold, ({"type": "RANDOM"}, {"type": "WEIGHTS"})), 2)
    assert set(selection.sample_ids) == {"0003", "0004"}
    assert selection.eligible == 2
    text = "the threshold on lightly.sharpness (bigger 5)"
    assert selection.removed == {f"unknown to {text}": 1, f"failing {text}": 2}


def test_balance_fills_the_wanted_shares_exactly() -> None:
    places = ["north"] * 50 + ["south"] * 30 + ["east"] * 20
    pool = Pool.build(ids(100), embeddings={"e": vectors(100)}, metadata={"place": places})
    target = {"north": 0.2, "south": 0.3, "east": 0.5}
    balance = (
        {"type": "METADATA", "key": "place"},
        {"type": "BALANCE", "distribution": "TARGET", "target": target},
    )
    chosen = select(pool, lines(balance), 30).sample_ids
    counts = {p: sum(places[int(s)] == p for s in chosen) for p in target}
    assert counts == {"north": 6, "south": 9, "east": 15}
    uniform = ({"type": "METADATA", "key": "place"}, {"type": "BALANCE", "distribution": "UNIFORM"})
    chosen = select(pool, lines(uniform), 30).sample_ids
    assert all(sum(places[int(s)] == p for s in chosen) == 10 for p in target)


def test_balance_over_predictions_evens_out_the_predicted_classes() -> None:
    p = np.zeros((40, 2), dtype=np.float32)
    p[:35, 0] = p[35:, 1] = 1.0
    pool = Pool.build(
        ids(40), embeddings={"e": vectors(40)}, probabilities=p, classes=["common", "rare"]
    )
    balance = (
        {"type": "PREDICTIONS", "name": "CLASS_DISTRIBUTION"},
        {"type": "BALANCE", "distribution": "UNIFORM"},
    )
    chosen = select(pool, lines(balance), 8).sample_ids
    assert sum(int(s) >= 35 for s in chosen) == 4


def test_similarity_finds_what_is_near_the_query() -> None:
    pool = make(50)
    query = ({"type": "EMBEDDINGS", "query": ["0007"]}, {"type": "SIMILARITY"})
    x = pool.embeddings["e"]
    nearest = np.argsort(np.linalg.norm(x - x[7], axis=1), kind="stable")[:6]
    found = select(pool, lines(query), 5)
    assert set(found.sample_ids) == {f"{i:04d}" for i in nearest if i != 7}
    assert found.removed["that are queries"] == 1 and found.pool == found.eligible + 1
    theirs = select(pool, lines(query, dialect="lightly", exclude_flags=()), 5).sample_ids
    assert set(theirs) == {f"{i:04d}" for i in nearest[:5]}, "LightlyOne has it among the rest"
    far = ({"type": "EMBEDDINGS", "query": ["0007"]}, {"type": "SIMILARITY", "strength": -1})
    assert "0007" not in select(pool, lines(far), 5).sample_ids
    missing = ({"type": "EMBEDDINGS", "query": ["gone"]}, {"type": "SIMILARITY"})
    with pytest.raises(InputError, match="no embedding in the space 'e': gone"):
        select(pool, lines(missing), 5)


def test_strengths_decide_between_objectives() -> None:
    pool = make(80)

    def chosen(strength: float) -> tuple[str, ...]:
        weights = (
            {"type": "SCORES", "score": "uncertainty_margin"},
            {"type": "WEIGHTS", "strength": strength},
        )
        diversity = ({"type": "EMBEDDINGS"}, {"type": "DIVERSITY"})
        return select(pool, lines(weights, diversity), 10, labelled=labelled(5)).sample_ids

    alone = select(pool, config(strategy="uncertainty", random_share=0), 10).sample_ids
    assert set(chosen(1000.0)) == set(alone)
    assert (
        chosen(0.0)
        == select(
            pool, config(strategy="diversity", random_share=0), 10, labelled=labelled(5)
        ).sample_ids
    )


def test_metadata_that_is_not_there_is_named_with_what_is() -> None:
    pool = make(5, metadata={"speed": [1, 2, 3, 4, 5]})
    weights = ({"type": "METADATA", "key": "sped"}, {"type": "WEIGHTS"})
    with pytest.raises(InputError, match=r"'sped'.*Use one of speed"):
        select(pool, lines(weights), 2)


def test_several_spaces_must_be_chosen_from_and_never_mix() -> None:
    pool = Pool.build(ids(5), embeddings={"one": vectors(5, 4), "two": vectors(5, 9)})
    with pytest.raises(InputError, match=r"2 embedding spaces.*Name one of one, two"):
        select(pool, config(), 2)
    assert select(pool, config(space="two"), 2).space == "two"
    with pytest.raises(InputError, match="no embeddings of the space 'three'"):
        select(pool, config(space="three"), 2)


def test_a_pool_without_embeddings_can_still_be_drawn_from() -> None:
    pool = Pool.build(ids(5), probabilities=probabilities(5), classes=list("abcd"))
    assert len(select(pool, config(strategy="random"), 3).picks) == 3
    with pytest.raises(InputError, match="has no embeddings"):
        select(pool, config(strategy="typicality"), 3)


def test_a_proportion_is_of_the_eligible_samples() -> None:
    selection = select(make(40), config(proportion_samples=0.25), taken=set(ids(40)[:20]))
    assert len(selection.picks) == 5


def test_explanations_are_one_sentence_for_a_person() -> None:
    known = {"margin": 0.93, "diversity": 0.41, "deployed_margin": None}
    assert explain(known) == (
        "Picked because the model hesitates between two classes (margin 0.93, diversity 0.41)."
    )
    assert explain({"coverage": 0.6, "deployed_margin": 0.9}) == (
        "Picked because the deployed model hesitated between two classes on it and it is typical "
        "of a group of images with few labels (deployed margin 0.90, coverage 0.60)."
    )
    assert explain(known, arm="random").startswith("Drawn at random")
    assert explain({}).startswith("Nothing was known")
    assert "speed is high" in explain({"speed": 0.9})
