"""Candidates evenly in energy, rounds within the budget, and what halving keeps."""

import itertools
import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from molhpft.tuning.halving import (
    CANDIDATES,
    SHARE,
    Round,
    affordable,
    budget,
    highest,
    ranked,
    rounds,
    spaced,
    survivors,
    watched,
)
from tests.toy import NAN


def halve(candidates, plan, score):
    """The candidate that is left after every round."""
    left = list(candidates)
    for now, count in zip(plan, [*(later.size for later in plan[1:]), 1], strict=False):
        left = survivors(left, [score(candidate, now.until) for candidate in left], count)
    return left[0]


values = st.floats(0, 10, allow_nan=False)


@given(st.integers(0, 5000))
def test_watched_epochs_rise_from_zero_to_the_longest(longest):
    taus = watched(longest)
    assert (taus[0], taus[-1]) == (0, longest)
    assert list(taus) == sorted(set(taus))
    # every epoch at first, then each a tenth beyond the one before
    steps = [(a, b) for a, b in itertools.pairwise(taus) if b != longest]
    assert all(b == (a + 1 if a < 32 else math.ceil(1.1 * a)) for a, b in steps)
    assert all(b - a == 1 or b <= 1.2 * a for a, b in itertools.pairwise(taus))


@given(st.lists(values, min_size=1, max_size=60), st.integers(1, 8))
@example([5e-324, 5e-324, 0.0], 3)
def test_candidates_are_distinct_taus_of_falling_energy(numbers, count):
    energies = dict(enumerate(numbers))
    taus = spaced(energies, count)
    assert taus[0] == 0
    assert 1 <= len(taus) <= count
    assert set(taus) <= set(energies)
    assert list(taus) == sorted(set(taus))
    falling = [energies[tau] for tau in taus]
    assert all(a > b for a, b in itertools.pairwise(falling))
    if count > 1:
        assert falling[-1] == min(numbers)


@given(st.integers(2, 8), st.integers(50, 200))
def test_candidates_lie_evenly_in_energy_where_epochs_are_fine(count, longest):
    energies = {tau: 1 / (1 + tau / 50) for tau in range(longest + 1)}
    falling = [energies[tau] for tau in spaced(energies, count)]
    steps = [a - b for a, b in itertools.pairwise(falling)]
    assert len(falling) == count
    finest = energies[0] - energies[1]  # energy falls fastest at first
    assert max(steps) - min(steps) <= 2 * finest


def test_after_a_steep_first_epoch_what_is_left_is_parted_anew():
    energies = {0: 10.0} | {tau: 1 - tau / 100 for tau in range(1, 51)}
    assert spaced(energies, 6) == (0, 1, 14, 26, 38, 50)


@pytest.mark.parametrize(("energies", "count"), [({}, 3), ({1: 1.0}, 3), ({0: 1.0}, 0)])
def test_candidates_need_a_beginning(energies, count):
    with pytest.raises(ValueError, match=r"^candidates are at least 1, from tau 0 on"):
        spaced(energies, count)


def cost(plan, epochs):
    """Epochs of every candidate by counting: losers to their last round, the winner to its end."""
    behind = [0] * (plan[0].size if plan else 1)
    for now in plan:
        behind[: now.size] = [now.until] * now.size
    return sum(behind[1:]) + epochs


@given(st.integers(1, 300), st.integers(1, CANDIDATES))
def test_rounds_never_cost_more_than_the_budget(epochs, candidates):
    assume(candidates <= affordable(epochs))
    plan = rounds(candidates, epochs=epochs)
    assert cost(plan, epochs) <= budget(epochs) <= CANDIDATES * epochs / SHARE
    untils = [now.until for now in plan]
    assert untils == sorted(set(untils))
    assert all(1 <= until <= epochs for until in untils)
    sizes = [now.size for now in plan]
    assert sizes[:1] == ([candidates] if candidates > 1 else [])
    assert all(a > b > 1 for a, b in itertools.pairwise(sizes))


@given(st.integers(3, 300))
def test_most_of_the_budget_is_used(epochs):
    plan = rounds(min(CANDIDATES, affordable(epochs)), epochs=epochs)
    assert budget(epochs) - cost(plan, epochs) < CANDIDATES


def test_twenty_epochs_halve_six_candidates_three_times():
    assert rounds(6, epochs=20) == (Round(6, 2), Round(3, 4), Round(2, 10))


@pytest.mark.parametrize("candidates", [0, 7])
def test_what_cannot_be_afforded_is_refused(candidates):
    with pytest.raises(ValueError, match=f"choose among 1 to 6 candidates .* got {candidates}"):
        rounds(candidates, epochs=20)


@given(st.lists(st.lists(values, min_size=20, max_size=20), min_size=1, max_size=CANDIDATES))
def test_every_round_keeps_those_of_the_highest_score_and_asks_each_once(curves):
    plan, asked = rounds(len(curves), epochs=20), []

    def score(candidate, until):
        asked.append((candidate, until))
        return curves[candidate][until - 1]

    best = halve(range(len(curves)), plan, score)
    assert len(set(asked)) == len(asked)
    left = list(range(len(curves)))
    for now, size in zip(plan, [*(r.size for r in plan[1:]), 1], strict=False):
        assert [candidate for candidate, until in asked if until == now.until] == left
        # a stable sort keeps the first of equals
        left = sorted(sorted(left, key=lambda c: -curves[c][now.until - 1])[:size])
    assert left == [best]


@given(st.lists(st.sampled_from([NAN, -1.0, 0.0, 0.5, 2.0]), max_size=8))
def test_ranks_fall_with_equals_in_order_and_nan_last(scores):
    order = ranked(scores)
    assert sorted(order) == list(range(len(scores)))
    there = [i for i in order if scores[i] == scores[i]]
    assert order[: len(there)] == there
    for i, k in itertools.pairwise(there):
        assert scores[i] > scores[k] or (scores[i] == scores[k] and i < k)


@pytest.mark.parametrize(
    ("scores", "best"),
    [([NAN, 0.1, 0.2], 2), ([0.2, NAN, 0.1], 0), ([0.1, 0.2, 0.2], 1)],
)
def test_the_highest_score_is_the_first_of_equals_and_never_nan(scores, best):
    assert highest(scores) == best


@pytest.mark.parametrize("scores", [[], [NAN], [NAN, NAN]], ids=len)
def test_there_is_nothing_to_choose_among_scores_that_are_all_nan(scores):
    with pytest.raises(ValueError, match=f"nothing to choose among: {len(scores)} scores, none of"):
        highest(scores)


@pytest.mark.parametrize("broken", range(CANDIDATES))
def test_halving_drops_a_candidate_whose_score_is_nan_first(broken):
    plan, asked = rounds(CANDIDATES, epochs=30), []

    def score(candidate, until):
        asked.append((candidate, until))
        return NAN if candidate == broken else -float(candidate)

    assert halve(range(CANDIDATES), plan, score) == (1 if broken == 0 else 0)
    assert [until for candidate, until in asked if candidate == broken] == [plan[0].until]


def test_halving_says_so_when_every_score_is_nan():
    with pytest.raises(ValueError, match=r"^nothing to choose among"):
        halve(range(3), rounds(3, epochs=20), lambda candidate, until: NAN)
