"""Designs: balanced whatever is asked for, and told as they are."""

from __future__ import annotations

import random
from collections import Counter
from math import factorial

from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.human_evaluation import design

PAPER = {name: [f"{name}{i}" for i in range(60)] for name in "ABCDE"}


def test_the_papers_design():
    """Sixty sessions of five sets, three people each: fifteen for each of sixty people."""
    orders = design.deal(PAPER, ratings=3, per_person=15, seed=13)
    found = design.balance(PAPER, orders)
    assert found.n_people == 60
    assert found.per_person == (15, 15)
    assert found.per_item == (3, 3)
    assert set(found.of_set.values()) == {(3, 3)}
    assert found.twice == found.same_order == 0
    assert found.is_connected
    assert found.shared[1] <= 6  # nobody rates what somebody else rates, and nothing beside it
    said = "\n".join(design.describe(found))
    assert "60 people rate 300 sessions: 15 sessions a person, 3 people a session" in said
    assert "A: 3 of them for each person" in said


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    ratings=st.integers(1, 6),
    per_person=st.integers(1, 20),
    seed=st.integers(0, 2**32),
)
def test_every_design_is_balanced(sizes, ratings, per_person, seed):
    sets = {f"{i}": [f"{i}-{j}" for j in range(size)] for i, size in enumerate(sizes)}
    orders = design.deal(sets, ratings, per_person, seed)
    n_items = sum(sizes)
    assert len(orders) == design.n_people(n_items, ratings, per_person)
    assert len(orders) >= ratings
    # Each item to so many different people.
    times = Counter(item for order in orders for item in order)
    assert set(times.values()) == {ratings}
    assert len(times) == n_items
    assert all(len(set(order)) == len(order) for order in orders)
    # All people have as many items, and as many of each set, give or take one.
    lengths = [len(order) for order in orders]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= max(per_person, -(-n_items * ratings // len(orders)))
    for items in sets.values():
        counts = [len(set(order) & set(items)) for order in orders]
        assert max(counts) - min(counts) <= 1
    # No two people have one order, unless there are fewer orders than people.
    for items, n in Counter(frozenset(order) for order in orders).items():
        different = {order for order in orders if frozenset(order) == items}
        assert len(different) == min(n, factorial(len(items)))
    # What is printed is what there is.
    found = design.balance(sets, orders)
    assert found.per_item == (ratings, ratings)
    assert found.per_person == (min(lengths), max(lengths))
    assert found.twice == 0


@given(seed=st.integers(0, 2**32))
def test_a_seed_gives_one_design(seed):
    sets = {"A": ["a", "b", "c"], "B": ["d", "e", "f"]}
    assert design.deal(sets, 2, 3, seed) == design.deal(sets, 2, 3, seed)


def test_other_seeds_give_other_designs():
    found = {tuple(design.deal(PAPER, 3, 15, seed)) for seed in range(5)}
    assert len(found) == 5


def test_positions_are_mixed():
    """No set stands first more often than chance has it, over many designs."""
    first = Counter(order[0][0] for seed in range(20) for order in design.deal(PAPER, 3, 15, seed))
    assert min(first.values()) > 0.8 * 1200 / 5
    assert max(first.values()) < 1.2 * 1200 / 5


def test_what_is_wrong_with_a_design_is_counted():
    sets = {"A": ["a", "b"], "B": ["c", "d"]}
    found = design.balance(sets, [("a", "a"), ("a", "b"), ("a", "b"), ("d",)])
    assert found.twice == 1
    assert found.same_order == 1
    assert found.per_item == (0, 4)
    assert found.per_person == (1, 2)
    assert found.of_set == {"A": (0, 2), "B": (0, 1)}
    assert not found.is_connected
    said = "\n".join(design.describe(found))
    assert "1 people have the order of somebody else" in said
    assert "share no session" in said


@given(
    n=st.integers(1, 8), n_checks=st.integers(0, 8), options=st.integers(2, 5), seed=st.integers()
)
def test_checks_of_attention_are_spread(n, n_checks, options, seed):
    order = [f"s{i}" for i in range(n)]
    found = design.draw_checks(order, n_checks, options, random.Random(seed))
    assert len(found) == min(n, n_checks)
    assert set(found) <= set(order)
    assert all(1 <= number <= options for number in found.values())
    if n_checks < n:
        assert order[0] not in found


def test_one_person_shares_nothing_with_anybody():
    alone = design.balance({"A": ["a", "b"]}, [("b", "a")])
    assert (alone.n_people, alone.shared, alone.is_connected) == (1, (0, 0), True)
